"""
Milliseconds per gradient step and environment steps per second of DiscreteSAC next to its peers, in one run.

All train on CartPole-v1 with batch 64 and one gradient step per environment step: our DiscreteSAC, Tianshou's DiscreteSAC,
TorchRL's DiscreteSACLoss and, as the yardstick of what SB3 users have now, SB3's DQN (its own update: one critic, no
temperature). The peers that are not installed with sb3_softac live in environments of their own::

    python3 -m venv peers/tianshou && peers/tianshou/bin/pip install torch==2.13.0 tianshou==2.0.1
    python3 -m venv peers/torchrl && peers/torchrl/bin/pip install torch==2.13.0 torchrl==0.14.1 gymnasium
    python benchmarks/discrete_update.py --tianshou peers/tianshou/bin/python --torchrl peers/torchrl/bin/python

Each learner is a process that sets up once and then waits. The main process asks them in turn, in many short blocks, so that a
change of the machine's speed hits all; the ratio of each pair of blocks is the figure to quote. What is timed:

- update: what the library's own training loop does per gradient step: sample from its buffer, losses, optimizers, targets.
- loop: one environment step, then one gradient step, and so on.
- chunked loop: 100 environment steps, then 100 gradient steps. TorchRL's and Tianshou's examples collect in chunks, because
  every call of a collector costs time.

Nobody logs to disk or draws a progress bar, and everybody gets the fastest of the ways that its documentation shows:

- Tianshou: collector and ``update`` called from a loop (its trainer does the same and more: it looks for NaN in the whole
  buffer after every collection).
- TorchRL: the buffer is in memory and holds no more than the loss reads, the losses have one backward pass and one grouped
  optimizer, and steps that are not collected in chunks come from ``step_and_maybe_reset``. (The script in its
  sota-implementations has a memory-mapped buffer that is read ahead, three backward passes and three ``item()``: slower here.)
- A name with ``_fused`` is the peer with ``fused=True`` for its Adam, the one speed-up that is an argument away. It is our
  default.

Every worker of a SAC checks before it is timed that one of its updates moves two critics and the temperature, and both targets
tau of the way to the new critics. That the expectations over actions are exact is to be read in the sources of all three.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th

RESULTS = Path(__file__).parent / "results"
ENV = "CartPole-v1"
OBSERVATIONS, ACTIONS = 4, 2
BATCH, LEARNING_RATE, GAMMA, TAU = 64, 3e-4, 0.99, 0.005
BUFFER, FILL, WARM_UP, CHUNK = 20_000, 5_000, 200, 100

# Distribution that a learner comes from, by name; those of the current interpreter come first.
PACKAGES = {
    "discrete_sac": "sb3_softac",
    "dqn": "stable_baselines3",
    "dqn_fused": "stable_baselines3",
    "tianshou": "tianshou",
    "tianshou_fused": "tianshou",
    "torchrl": "torchrl",
    "torchrl_fused": "torchrl",
}
REFERENCE = "discrete_sac"
NET_ARCHS = [[64, 64], [256, 256]]


class Nets(NamedTuple):
    """Copies of what an update changes: critics and targets, one row each, and log alpha."""

    critics: th.Tensor
    targets: th.Tensor
    log_alpha: float


class Learner(NamedTuple):
    """
    One algorithm, ready to train.

    ``update`` takes a number of gradient steps, ``loop`` a number of environment steps and how many of them to collect before
    as many gradient steps follow; ``nets`` is None for what is not a SAC.
    """

    update: Callable[[int], None]
    loop: Callable[[int, int], None]
    nets: Callable[[], Nets] | None


def adam_kwargs(fused: bool) -> dict[str, bool]:
    return dict(fused=True) if fused else {}


def rows(stacked: Iterable[th.Tensor]) -> th.Tensor:
    """Join parameters ``[n_critics, ...]`` to one row per critic."""
    return th.cat([parameter.detach().flatten(1) for parameter in stacked], dim=1)


def make_sb3(name: str, net_arch: list[int], fused: bool) -> Learner:
    from stable_baselines3 import DQN
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

    common = dict(
        learning_rate=LEARNING_RATE, gamma=GAMMA, batch_size=BATCH, buffer_size=BUFFER, learning_starts=FILL, device="cpu"
    )
    model: OffPolicyAlgorithm
    if name == "dqn":
        policy_kwargs = dict(net_arch=net_arch, optimizer_kwargs=adam_kwargs(fused))
        model = DQN("MlpPolicy", gym.make(ENV), policy_kwargs=policy_kwargs, train_freq=1, gradient_steps=-1, **common)
    else:
        from sb3_softac import DiscreteSAC

        model = DiscreteSAC(
            "MlpPolicy",
            gym.make(ENV),
            policy_kwargs=dict(net_arch=net_arch),
            ent_coef="auto",
            tau=TAU,
            gradient_steps=-1,
            **common,
        )
    model.set_logger(configure(None, []))
    model.learn(FILL)

    def update(gradient_steps: int) -> None:
        for _ in range(gradient_steps):
            model.train(gradient_steps=1, batch_size=BATCH)

    def loop(steps: int, chunk: int) -> None:
        model.train_freq = TrainFreq(chunk, TrainFrequencyUnit.STEP)  # gradient_steps=-1: as many as environment steps
        model.learn(steps, reset_num_timesteps=False)

    def nets() -> Nets:
        critic, target = model.policy.critic.parameters(), model.policy.critic_target.parameters()
        return Nets(rows(critic), rows(target), model.log_ent_coef.item())

    return Learner(update, loop, None if name == "dqn" else nets)


def make_tianshou(net_arch: list[int], fused: bool) -> Learner:
    from tianshou.algorithm.modelfree.discrete_sac import DiscreteSAC, DiscreteSACPolicy
    from tianshou.algorithm.modelfree.sac import AutoAlpha
    from tianshou.algorithm.optim import TorchOptimizerFactory
    from tianshou.data import Collector, ReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
    from tianshou.utils.torch_utils import policy_within_training_step

    def net() -> Net:
        return Net(state_shape=(OBSERVATIONS,), hidden_sizes=net_arch)

    adam = TorchOptimizerFactory(th.optim.Adam, lr=LEARNING_RATE, **adam_kwargs(fused))
    actor = DiscreteActor(preprocess_net=net(), action_shape=ACTIONS, softmax_output=False)
    critics = [DiscreteCritic(preprocess_net=net(), last_size=ACTIONS) for _ in range(2)]
    policy = DiscreteSACPolicy(actor=actor, action_space=gym.make(ENV).action_space)
    algorithm = DiscreteSAC(
        policy=policy,
        policy_optim=adam,
        critic=critics[0],
        critic_optim=adam,
        critic2=critics[1],
        critic2_optim=adam,
        tau=TAU,
        gamma=GAMMA,
        alpha=AutoAlpha(target_entropy=0.98 * np.log(ACTIONS), log_alpha=0.0, optim=adam),
    )
    buffer = ReplayBuffer(BUFFER)
    collector = Collector(algorithm, DummyVectorEnv([lambda: gym.make(ENV)]), buffer)
    collector.reset()
    collector.collect(n_step=FILL, random=True)

    def update(gradient_steps: int) -> None:
        with policy_within_training_step(policy):
            for _ in range(gradient_steps):
                algorithm.update(buffer=buffer, sample_size=BATCH)

    def loop(steps: int, chunk: int) -> None:
        with policy_within_training_step(policy):
            for _ in range(steps // chunk):
                collector.collect(n_step=chunk)
                for _ in range(chunk):
                    algorithm.update(buffer=buffer, sample_size=BATCH)

    def nets() -> Nets:
        to_vector = th.nn.utils.parameters_to_vector
        targets = [algorithm.critic_old, algorithm.critic2_old]
        critic_rows, target_rows = ([to_vector(net.parameters()).detach() for net in pair] for pair in (critics, targets))
        return Nets(th.stack(critic_rows), th.stack(target_rows), np.log(algorithm.alpha.value))

    return Learner(update, loop, nets)


def torchrl_needed(data: Any) -> Any:
    """:return: What the loss reads of a TensorDict with transitions."""
    return data.select("observation", "action", *[("next", key) for key in ("observation", "reward", "done", "terminated")])


def torchrl_loss(env: Any, net_arch: list[int]) -> tuple[Any, Any]:
    """:return: Actor and loss."""
    from tensordict.nn import InteractionType, TensorDictModule
    from torchrl.modules import MLP, OneHotCategorical, ProbabilisticActor
    from torchrl.objectives import DiscreteSACLoss

    def net(out_key: str) -> TensorDictModule:
        mlp = MLP(in_features=OBSERVATIONS, out_features=ACTIONS, num_cells=net_arch, activation_class=th.nn.ReLU)
        return TensorDictModule(mlp, in_keys=["observation"], out_keys=[out_key])

    actor = ProbabilisticActor(
        net("logits"),
        in_keys=["logits"],
        spec=env.full_action_spec,
        distribution_class=OneHotCategorical,
        default_interaction_type=InteractionType.RANDOM,
    )
    loss = DiscreteSACLoss(
        actor, net("action_value"), action_space=env.action_spec, num_actions=ACTIONS, num_qvalue_nets=2, loss_function="l2"
    )
    loss.make_value_estimator(gamma=GAMMA)
    return actor, loss


def make_torchrl(net_arch: list[int], fused: bool) -> Learner:
    from torchrl.collectors import Collector
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
    from torchrl.envs import GymEnv, RewardSum, TransformedEnv
    from torchrl.objectives import SoftUpdate, group_optimizers

    def make_env() -> TransformedEnv:
        return TransformedEnv(GymEnv(ENV), RewardSum())  # counts returns, as SB3's Monitor and Tianshou's collector do

    env = make_env()
    actor, loss = torchrl_loss(env, net_arch)
    target_update = SoftUpdate(loss, tau=TAU)
    trained = [loss.qvalue_network_params, loss.actor_network_params]
    groups = [list(parameters.flatten_keys().values()) for parameters in trained] + [[loss.log_alpha]]
    optimizer = group_optimizers(*[th.optim.Adam(group, lr=LEARNING_RATE, **adam_kwargs(fused)) for group in groups])
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(BUFFER), batch_size=BATCH)
    buffer.extend(torchrl_needed(env.rollout(FILL, break_when_any_done=False)))
    chunks = iter(Collector(make_env(), actor, frames_per_batch=CHUNK, total_frames=-1))
    state = env.reset()

    def update(gradient_steps: int) -> None:
        for _ in range(gradient_steps):
            losses = loss(buffer.sample())
            (losses["loss_qvalue"] + losses["loss_actor"] + losses["loss_alpha"]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            target_update.step()

    def step() -> None:
        nonlocal state
        with th.no_grad():
            transition, state = env.step_and_maybe_reset(actor(state))
        buffer.add(torchrl_needed(transition))

    def loop(steps: int, chunk: int) -> None:
        for _ in range(steps // chunk):
            if chunk == CHUNK:
                buffer.extend(torchrl_needed(next(chunks)))
            else:
                step()
            update(chunk)

    def nets() -> Nets:
        pair = (loss.qvalue_network_params, loss.target_qvalue_network_params)
        critics, targets = (rows(parameters.flatten_keys().values()) for parameters in pair)
        return Nets(critics, targets, loss.log_alpha.item())

    return Learner(update, loop, nets)


def make_learner(name: str, net_arch: list[int]) -> Learner:
    plain, fused = name.removesuffix("_fused"), name.endswith("_fused")
    if plain == "tianshou":
        return make_tianshou(net_arch, fused)
    if plain == "torchrl":
        return make_torchrl(net_arch, fused)
    return make_sb3(plain, net_arch, fused)


def check(learner: Learner) -> None:
    """
    :raises AssertionError: if one update is not that of a SAC with two critics, a learned temperature and averaged targets.
    """
    if learner.nets is None:
        return
    before = learner.nets()
    learner.update(1)
    after = learner.nets()
    assert len(before.critics) == len(before.targets) == 2, f"{len(before.critics)} critics instead of 2"
    assert (before.critics != after.critics).any(dim=1).all(), "a critic has not been trained"
    assert before.log_alpha != after.log_alpha, "the temperature is not learned"
    assert (before.targets != after.targets).any(dim=1).all(), "a target has not been averaged"
    expected = before.targets.lerp(after.critics, TAU)
    assert th.allclose(after.targets, expected, rtol=1e-5, atol=1e-7), f"the targets do not move by {TAU}"


def worker(name: str, net_arch: list[int], threads: int) -> None:
    """
    Set up one learner, then answer the commands on stdin with the seconds that they took, as JSON lines.

    The commands are "update N", "loop N" and "chunked N". The first line is out when the learner is ready.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not get between the answers
    warnings.simplefilter("ignore")
    th.set_num_threads(threads)
    th.manual_seed(0)
    np.random.seed(0)
    learner = make_learner(name, net_arch)
    commands = {
        "update": learner.update,
        "loop": lambda steps: learner.loop(steps, 1),
        "chunked": lambda steps: learner.loop(steps, CHUNK),
    }
    for command in commands.values():
        command(WARM_UP)
    check(learner)
    package = PACKAGES[name]
    print(json.dumps(dict(version=f"{package} {version(package)}, torch {th.__version__}")), file=answers, flush=True)
    for line in sys.stdin:
        command, count = line.split()
        start = time.perf_counter()
        commands[command](int(count))
        print(json.dumps(dict(seconds=time.perf_counter() - start)), file=answers, flush=True)


class Worker:
    """
    Process of one learner.

    :param name: Name of the learner.
    :param python: Interpreter of its environment.
    :param net_arch: Sizes of the hidden layers.
    :param threads: Threads of torch, and of whatever else has some.
    :raises RuntimeError: if the learner cannot be set up.
    """

    def __init__(self, name: str, python: str, net_arch: list[int], threads: int):
        command = [python, __file__, "worker", name, "--threads", threads, "--net-arch", *net_arch]
        limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        self.name = name
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **limits, "RL_LOGGING_LEVEL": "ERROR"},  # the last one is TorchRL's
        )
        self.version = self._answer()["version"]

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.name} has ended, see its error above")
        return json.loads(line)

    def seconds(self, command: str, count: int) -> float:
        """:return: Seconds per gradient step or environment step of one block."""
        self.process.stdin.write(f"{command} {count}\n")
        self.process.stdin.flush()
        return self._answer()["seconds"] / count

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def start_workers(names: list[str], pythons: dict[str, str], net_arch: list[int], threads: int) -> list[Worker]:
    workers = []
    for name in names:
        try:
            workers.append(Worker(name, pythons[PACKAGES[name]], net_arch, threads))
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)
    return workers


def spread(values: np.ndarray, digits: int) -> str:
    low, high = np.percentile(values, [25, 75])
    return f"{low:.{digits}f}-{high:.{digits}f}"


def median_and_spread(values: np.ndarray, digits: int = 2) -> str:
    return f"{np.median(values):.{digits}f} ({spread(values, digits)})"


HEADER = ["net_arch", "name", "ms per update", "quartiles", "update: time / ours", "loop steps/s", "loop: time / ours"]
HEADER += ["chunked loop steps/s", "chunked: time / ours", "version"]


def measure(workers: list[Worker], net_arch: list[int], blocks: int, counts: dict[str, int]) -> list[list[str]]:
    """
    :param workers: Learners to ask in turn.
    :param net_arch: Sizes of their hidden layers.
    :param blocks: How often each is asked.
    :param counts: Size of a block, by command.
    :return: Rows of the table.
    """
    seconds = {command: {worker.name: [] for worker in workers} for command in counts}
    for _ in range(blocks):
        for command, count in counts.items():
            for worker in workers:
                seconds[command][worker.name].append(worker.seconds(command, count))
    table = []
    for worker in workers:
        times = {command: np.array(seconds[command][worker.name]) for command in counts}
        ratio = {}
        for command in counts:
            ours = seconds[command].get(REFERENCE)
            ratio[command] = median_and_spread(times[command] / np.array(ours)) if ours else "-"
        ms, loop, chunked = 1e3 * times["update"], 1 / times["loop"], 1 / times["chunked"]
        row = ["x".join(map(str, net_arch)), worker.name, f"{np.median(ms):.3f}", spread(ms, 3), ratio["update"]]
        row += [median_and_spread(loop, 0), ratio["loop"], median_and_spread(chunked, 0), ratio["chunked"], worker.version]
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, the same for all")
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--updates", type=int, default=200, help="gradient steps of a block")
    parser.add_argument("--steps", type=int, default=300, help=f"environment steps of a block, a multiple of {CHUNK}")
    parser.add_argument("--names", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--tianshou", metavar="PYTHON", help="interpreter that has Tianshou, which is left out without it")
    parser.add_argument("--torchrl", metavar="PYTHON", help="interpreter that has TorchRL, which is left out without it")
    args = parser.parse_args()
    if args.steps % CHUNK:
        parser.error(f"--steps must be a multiple of {CHUNK}")
    pythons = dict(sb3_softac=sys.executable, stable_baselines3=sys.executable, tianshou=args.tianshou, torchrl=args.torchrl)
    names = [name for name in args.names if pythons[PACKAGES[name]]]
    counts = dict(update=args.updates, loop=args.steps, chunked=args.steps)
    table = [HEADER]
    for net_arch in NET_ARCHS:
        workers = start_workers(names, pythons, net_arch, args.threads)
        table += measure(workers, net_arch, args.blocks, counts)
        for worker in workers:
            worker.stop()
    print(f"{ENV}, batch {BATCH}, {args.threads} thread(s), {args.blocks} blocks each: median (25 % - 75 %)")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"discrete_update_{args.threads}_threads.csv", "w", newline="") as file:
        csv.writer(file).writerows(table)


def worker_main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="discrete_update.py worker")
    parser.add_argument("name", choices=PACKAGES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--net-arch", type=int, nargs="+", default=NET_ARCHS[0])
    args = parser.parse_args(arguments)
    worker(args.name, args.net_arch, args.threads)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker_main(sys.argv[2:])
    else:
        main()
