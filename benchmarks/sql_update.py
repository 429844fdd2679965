"""
Milliseconds and memory per update of SQL next to the same update without its savings, in one run on one thread.

Observations of 17 and actions of 6 numbers, as in HalfCheetah, batch 128, random transitions in the replay buffer. First the
sizes of the authors' code (two layers of 128, 16 particles for the kernel and 16 for the value), then our defaults::

    python benchmarks/sql_update.py

The plain update repeats the state for every particle, lets the score's gradient run on into the weights of the critics, keeps
the gradient of all particles though only one half is moved, and has two optimizers that loop over their parameters. Each of
these savings is measured alone and all four together; the rest of the difference is what SQL does with stacked critics.

Before anything is timed, each variant must give the losses, gradients, parameters and targets of SQL, from the same random
numbers. All sample from the same kind of buffer; SQL alone computes its diagnostics and looks for losses that are not finite.
The variants take turns, block by block, so that a change of the machine's speed hits all; the ratio of each pair of blocks is
the figure to quote. The time is CPU time, on which other programs of the machine have the least influence. Memory is what the
tensors that one update makes take up at most at one time, by PyTorch's profiler; parameters and optimizer states do not count.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update
from torch import nn
from torch.nn import functional as F

from sb3_softac import SQL
from sb3_softac.equations.bellman import soft_bellman_target
from sb3_softac.equations.soft_q import importance_sampled_soft_value
from sb3_softac.equations.stein import sampler_loss, svgd_direction, unsquashed_score
from sb3_softac.nets import mlp
from sb3_softac.nets.stacked import StackedMLP
from sb3_softac.sql.proposal import FITTED_PARTICLES, mixture_proposal

RESULTS = Path(__file__).parent / "results"
OBSERVATIONS, ACTIONS, BATCH, TRANSITIONS = 17, 6, 128, 5_000
ALPHA, GAMMA, TAU, LEARNING_RATE = 1.0, 0.99, 0.005, 3e-4
CHECKED_UPDATES = 3


class Size(NamedTuple):
    """Hidden layers, particles, and how many updates make a block."""

    net_arch: list[int]
    kernel_particles: int
    value_particles: int
    updates: int


SIZES = [Size([128, 128], 16, 16, 25), Size([256, 256], 32, 64, 5)]
STATE_ONCE = "state once per row"
NO_WEIGHTS = "no weight gradients in score"
MOVED_ONLY = "gradient of moved particles only"
ONE_ADAM = "one fused Adam"
SAVINGS = [STATE_ONCE, NO_WEIGHTS, MOVED_ONLY, ONE_ADAM]
VARIANTS = {"plain": [], **{saving: [saving] for saving in SAVINGS}, "all four": SAVINGS}
Train = Callable[[int], tuple[float, float]]
"""Does some updates; returns the losses of sampler and critics, means over the updates."""


class Spaces(gym.Env):
    """An environment of which nothing but the spaces is used."""

    observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)


def make_model(size: Size) -> SQL:
    """:return: SQL with a replay buffer full of random transitions, one in ten of them the last of its episode."""
    model = SQL(
        "MlpPolicy",
        Spaces(),
        learning_rate=LEARNING_RATE,
        buffer_size=TRANSITIONS,
        tau=TAU,
        gamma=GAMMA,
        ent_coef=ALPHA,
        kernel_particles=size.kernel_particles,
        value_particles=size.value_particles,
        policy_kwargs=dict(net_arch=size.net_arch),
        seed=0,
        device="cpu",
    )
    model.set_logger(Logger(None, []))
    assert model.replay_buffer is not None
    rng = np.random.default_rng(0)
    for obs, next_obs in rng.normal(size=(TRANSITIONS, 2, OBSERVATIONS)):
        action, reward, done = rng.uniform(-1, 1, ACTIONS), rng.normal(size=1), rng.random(1) < 0.1
        model.replay_buffer.add(obs, next_obs, action, reward, done, [{}])
    return model


def trainer(model: SQL) -> Train:
    def train(gradient_steps: int) -> tuple[float, float]:
        model.train(gradient_steps, BATCH)
        logs = model.logger.name_to_value
        return logs["train/actor_loss"], logs["train/critic_loss"]

    return train


def parameters(nets: list[nn.Sequential]) -> list[nn.Parameter]:
    return [parameter for net in nets for parameter in net.parameters()]


def gradients(of: Iterable[nn.Parameter]) -> list[th.Tensor]:
    return [parameter.grad for parameter in of if parameter.grad is not None]


def unstack(stacked: Iterable[th.Tensor]) -> list[th.Tensor]:
    """:return: Parameters of a ``StackedMLP``, or their gradients, as :func:`parameters` has those of one net per member."""
    tensors = [tensor.detach() for tensor in stacked]
    pairs = list(zip(tensors[::2], tensors[1::2], strict=True))
    return [tensor for i in range(len(tensors[0])) for weight, bias in pairs for tensor in (weight[i].T, bias[i, 0])]


def sequential_nets(stacked: StackedMLP) -> list[nn.Sequential]:
    """:return: One network per member, with its parameters."""
    nets = []
    for _ in range(stacked.n_members):
        linears = [nn.Linear(weight.shape[1], weight.shape[2]) for weight in list(stacked.parameters())[::2]]
        nets.append(nn.Sequential(*[module for linear in linears for module in (linear, nn.ReLU())][:-1]))
    for parameter, tensor in zip(parameters(nets), unstack(stacked.parameters()), strict=True):
        parameter.data.copy_(tensor)
    return nets


class Plain:
    """
    The update of SQL in ordinary PyTorch.

    :param model: Gives the initial parameters, the particle numbers and the replay buffer.
    :param savings: Which of ``SAVINGS`` it has all the same.
    """

    def __init__(self, model: SQL, savings: list[str]):
        assert model.replay_buffer is not None
        self.replay_buffer, self.savings = model.replay_buffer, savings
        self.n_fixed, self.n_moved = model.kernel_particles // 2, model.kernel_particles - model.kernel_particles // 2
        self.value_particles = model.value_particles
        (self.actor,) = sequential_nets(model.actor.network)
        self.critics = sequential_nets(model.critic.q_networks)
        self.targets = sequential_nets(model.critic_target.q_networks)
        groups = [parameters([self.actor]), parameters(self.critics)]
        if ONE_ADAM in savings:
            self.optimizers = [th.optim.Adam(groups[0] + groups[1], LEARNING_RATE, fused=True)]
        else:
            self.optimizers = [th.optim.Adam(group, LEARNING_RATE) for group in groups]

    def train(self, gradient_steps: int) -> tuple[float, float]:
        history = []
        for _ in range(gradient_steps):
            actor_loss, critic_loss = self.losses(self.replay_buffer.sample(BATCH))
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            actor_loss.backward()
            critic_loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            polyak_update(parameters(self.critics), parameters(self.targets), TAU)
            history.append((actor_loss.item(), critic_loss.item()))
        actor_mean, critic_mean = np.mean(history, axis=0)
        return actor_mean, critic_mean

    def losses(self, batch: ReplayBufferSamples) -> tuple[th.Tensor, th.Tensor]:
        """:return: Losses of sampler and critics."""
        with th.no_grad():
            noise = th.randn(BATCH, FITTED_PARTICLES, ACTIONS)
            fitted = self.outputs(self.actor, batch.next_observations, noise)
            actions_next, log_proposal = mixture_proposal([fitted], self.value_particles)
            q_next = self.smallest_q(self.targets, batch.next_observations, actions_next)
            v_next = importance_sampled_soft_value(q_next, log_proposal, ALPHA)
            target = soft_bellman_target(batch.rewards.squeeze(1), batch.dones.squeeze(1), v_next, GAMMA)
        inputs = th.cat([batch.observations, batch.actions], dim=1)
        critic_losses = [0.5 * F.mse_loss(critic(inputs).squeeze(1), target) for critic in self.critics]
        fixed, moved = self.particles(batch.observations)
        direction = svgd_direction(fixed, moved, self.score(batch.observations, fixed))
        return sampler_loss(moved, direction), th.stack(critic_losses).sum()

    def particles(self, obs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """:return: Fixed particles, without gradient, and those that are moved."""
        noise = [th.randn(BATCH, n, ACTIONS) for n in (self.n_fixed, self.n_moved)]
        if MOVED_ONLY in self.savings:
            with th.no_grad():
                fixed = self.outputs(self.actor, obs, noise[0])
            return fixed, self.outputs(self.actor, obs, noise[1])
        u = self.outputs(self.actor, obs, th.cat(noise, dim=1))
        return u[:, : self.n_fixed].detach(), u[:, self.n_fixed :]

    def score(self, obs: th.Tensor, fixed: th.Tensor) -> th.Tensor:
        """:return: Score of the density that the sampler is to have, at the fixed particles."""
        actions = fixed.tanh().requires_grad_(True)
        q_sum = self.smallest_q(self.critics, obs, actions).sum()
        if NO_WEIGHTS in self.savings:
            (gradient,) = th.autograd.grad(q_sum, actions)
            return unsquashed_score(gradient, fixed, ALPHA)
        q_sum.backward()  # what it leaves in the critics is set to zero before their own loss
        assert actions.grad is not None
        return unsquashed_score(actions.grad, fixed, ALPHA)

    def smallest_q(self, critics: list[nn.Sequential], obs: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """:return: Smallest Q-values ``[batch, K]``."""
        return th.cat([self.outputs(critic, obs, actions) for critic in critics], dim=2).amin(dim=2)

    def outputs(self, net: nn.Sequential, obs: th.Tensor, own: th.Tensor) -> th.Tensor:
        """:return: What a network makes of the states, each with K inputs of its own ``[batch, K, outputs]``."""
        if STATE_ONCE in self.savings:
            weight, bias, *_ = net.parameters()
            rows = F.linear(obs, weight[:, :OBSERVATIONS], bias)
            return net[1:](rows.unsqueeze(1) + F.linear(own, weight[:, OBSERVATIONS:]))
        return net(th.cat([obs.unsqueeze(1).expand(-1, own.shape[1], -1), own], dim=2))


def check(size: Size, savings: list[str]) -> None:
    """
    :param size: Sizes of the networks and numbers of particles.
    :param savings: Savings of the plain update.
    :raises AssertionError: if its updates are not those of SQL with the same random numbers.
    """
    model = make_model(size)
    plain = Plain(model, savings)
    # With the products of one library: another one rounds otherwise, and Adam makes steps of what is left of a gradient of 0
    large, mlp.LARGE = mlp.LARGE, sys.maxsize
    for seed in range(CHECKED_UPDATES):
        losses = []
        for train in (trainer(model), plain.train):
            th.manual_seed(seed)
            np.random.seed(seed)
            losses.append(train(1))
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5, atol=1e-5)
        for stacked, nets in ((model.actor.network, [plain.actor]), (model.critic.q_networks, plain.critics)):
            own, theirs = parameters(nets), list(stacked.parameters())
            th.testing.assert_close(gradients(own), unstack(gradients(theirs)), rtol=1e-4, atol=1e-6)
            th.testing.assert_close([*map(th.Tensor.detach, own)], unstack(theirs), rtol=0.0, atol=2e-5)
        targets = [parameter.detach() for parameter in parameters(plain.targets)]
        th.testing.assert_close(targets, unstack(model.critic_target.parameters()), rtol=0.0, atol=1e-7)
    mlp.LARGE = large


def cpu_ms(train: Train, updates: int) -> float:
    """:return: Milliseconds per update of one block."""
    start = time.process_time()
    train(updates)
    return 1e3 * (time.process_time() - start) / updates


def peak_mib(train: Train) -> float:
    """:return: The most that tensors made by one update take up at one time."""
    with th.profiler.profile(activities=[th.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    alive: dict[int, int] = {}  # bytes by address
    peak = 0
    for event in sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]):
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            alive[address] = size
        else:
            alive.pop(address, None)  # what is not there was made before the update
        peak = max(peak, sum(alive.values()))
    return peak / 2**20


HEADER = ["hidden layers", "particles (kernel, value)", "update", "CPU ms", "quartiles", "plain / this", "lowest", "highest"]
HEADER += ["peak MiB"]


def measure(size: Size, blocks: int) -> list[list[str]]:
    """:return: Rows of the table."""
    trains: dict[str, Train] = {name: Plain(make_model(size), savings).train for name, savings in VARIANTS.items()}
    trains["sb3_softac"] = trainer(make_model(size))
    for train in trains.values():
        train(size.updates)
    times: dict[str, list[float]] = {name: [] for name in trains}
    for _ in range(blocks):
        for name, train in trains.items():
            times[name].append(cpu_ms(train, size.updates))
    rows = []
    for name, train in trains.items():
        ratios = np.array(times["plain"]) / np.array(times[name])
        low, median, high = np.percentile(times[name], [25, 50, 75])
        row = ["x".join(map(str, size.net_arch)), f"{size.kernel_particles}, {size.value_particles}", name]
        row += [
            f"{median:.1f}",
            f"{low:.1f}-{high:.1f}",
            *(f"{x:.2f}" for x in (np.median(ratios), ratios.min(), ratios.max())),
        ]
        rows.append([*row, f"{peak_mib(train):.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20)
    blocks = parser.parse_args().blocks
    th.set_num_threads(1)
    rows = [HEADER]
    for size in SIZES:
        for savings in VARIANTS.values():
            check(size, savings)
        rows += measure(size, blocks)
    print(f"torch {th.__version__}, one thread, {blocks} blocks each")
    for row in rows:
        print("  ".join(f"{cell:>16}" for cell in row))
    with open(RESULTS / "sql_update.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
