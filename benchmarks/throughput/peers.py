"""
Tianshou's and TorchRL's discrete SAC on CartPole-v1 with the settings of our own, for ``worker.py``.

Nobody logs to disk or draws a progress bar, and everybody gets the fastest of the ways that its documentation shows:

- Tianshou: collector and ``update`` called from a loop (its trainer does the same and more: it looks for NaN in the whole
  buffer after every collection).
- TorchRL: the buffer is in memory and holds no more than the loss reads, the losses have one backward pass and one grouped
  optimizer, and steps come from ``step_and_maybe_reset``. (The script in its sota-implementations has a memory-mapped buffer
  that is read ahead, three backward passes and three ``item()``: slower here.)
- A name with ``_fused`` is the peer with ``fused=True`` for its Adam, the one speed-up that is an argument away. It is our
  default.

That the expectations over actions are exact is to be read in the sources of both.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th

ENV = "CartPole-v1"
OBSERVATIONS, ACTIONS = 4, 2
BATCH, LEARNING_RATE, GAMMA, TAU = 64, 3e-4, 0.99, 0.005
BUFFER, FILL = 20_000, 5_000


class Nets(NamedTuple):
    """Copies of what an update changes: critics and targets, one row each, and log alpha."""

    critics: th.Tensor
    targets: th.Tensor
    log_alpha: float


class Learner(NamedTuple):
    """One algorithm, ready to train: ``update`` does a gradient step, ``loop`` environment steps with one after each."""

    update: Callable[[], None]
    loop: Callable[[int], None]
    nets: Callable[[], Nets]


def adam_kwargs(fused: bool) -> dict[str, bool]:
    return dict(fused=True) if fused else {}


def rows(stacked: Iterable[th.Tensor]) -> th.Tensor:
    """Join parameters ``[n_critics, ...]`` to one row per critic."""
    return th.cat([parameter.detach().flatten(1) for parameter in stacked], dim=1)


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

    def update() -> None:
        with policy_within_training_step(policy):
            algorithm.update(buffer=buffer, sample_size=BATCH)

    def loop(steps: int) -> None:
        with policy_within_training_step(policy):
            for _ in range(steps):
                collector.collect(n_step=1)
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
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
    from torchrl.envs import GymEnv, RewardSum, TransformedEnv
    from torchrl.objectives import SoftUpdate, group_optimizers

    env = TransformedEnv(GymEnv(ENV), RewardSum())  # counts returns, as SB3's Monitor and Tianshou's collector do
    actor, loss = torchrl_loss(env, net_arch)
    target_update = SoftUpdate(loss, tau=TAU)
    trained = [loss.qvalue_network_params, loss.actor_network_params]
    groups = [list(parameters.flatten_keys().values()) for parameters in trained] + [[loss.log_alpha]]
    optimizer = group_optimizers(*[th.optim.Adam(group, lr=LEARNING_RATE, **adam_kwargs(fused)) for group in groups])
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(BUFFER), batch_size=BATCH)
    buffer.extend(torchrl_needed(env.rollout(FILL, break_when_any_done=False)))
    state = env.reset()

    def update() -> None:
        losses = loss(buffer.sample())
        (losses["loss_qvalue"] + losses["loss_actor"] + losses["loss_alpha"]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        target_update.step()

    def loop(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            with th.no_grad():
                transition, state = env.step_and_maybe_reset(actor(state))
            buffer.add(torchrl_needed(transition))
            update()

    def nets() -> Nets:
        pair = (loss.qvalue_network_params, loss.target_qvalue_network_params)
        critics, targets = (rows(parameters.flatten_keys().values()) for parameters in pair)
        return Nets(critics, targets, loss.log_alpha.item())

    return Learner(update, loop, nets)


def make_learner(name: str, net_arch: list[int]) -> Learner:
    make = make_tianshou if name.startswith("tianshou") else make_torchrl
    return make(net_arch, name.endswith("_fused"))


def check(learner: Learner) -> None:
    """
    :raises AssertionError: if one update is not that of a SAC with two critics, a learned temperature and averaged targets.
    """
    before = learner.nets()
    learner.update()
    after = learner.nets()
    assert len(before.critics) == len(before.targets) == 2, f"{len(before.critics)} critics instead of 2"
    assert (before.critics != after.critics).any(dim=1).all(), "a critic has not been trained"
    assert before.log_alpha != after.log_alpha, "the temperature is not learned"
    assert (before.targets != after.targets).any(dim=1).all(), "a target has not been averaged"
    expected = before.targets.lerp(after.critics, TAU)
    assert th.allclose(after.targets, expected, rtol=1e-5, atol=1e-7), f"the targets do not move by {TAU}"
