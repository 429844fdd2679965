"""The batch that every ``_update`` reads."""

from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_softac.replay.samples import Samples


class Batch(NamedTuple):
    """Transitions on the device of the networks."""

    obs: PyTorchObs
    """Observations ``[batch, ...]``, or a dictionary of them."""
    actions: th.Tensor
    """Actions as stored in the replay buffer: scaled to [-1, 1], or counted from 0 ``[batch, action_dim]``."""
    rewards: th.Tensor
    """Rewards, or discounted sums of n of them ``[batch]``."""
    dones: th.Tensor
    """1 where the next state is terminal, else 0 ``[batch]``; a time limit is not terminal."""
    discounts: th.Tensor
    """Discounts of the value of the next state ``[batch]``."""
    next_obs: PyTorchObs
    """Observations of the states whose values are added to the rewards ``[batch, ...]``."""
    extras: dict[str, th.Tensor]
    """Additional columns of the replay buffer by name ``[batch, ...]``."""


def make_batch(samples: Samples, gamma: float) -> Batch:
    """The samples as a batch, numbers of transitions as ``[batch]``; gamma is used where there are no discounts."""
    rewards, discounts = _numbers(samples.rewards), samples.discounts
    return Batch(
        obs=samples.observations,
        actions=samples.actions,
        rewards=rewards,
        dones=_numbers(samples.dones),
        discounts=th.full_like(rewards, gamma) if discounts is None else _numbers(discounts),
        next_obs=samples.next_observations,
        extras=getattr(samples, "extras", {}),
    )


def _numbers(column: th.Tensor) -> th.Tensor:
    """:return: One number per transition ``[batch]``; booleans and integers, as buffers of users may have, as floats."""
    column = column.flatten()
    return column if column.is_floating_point() else column.float()
