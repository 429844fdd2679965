"""Samples from a replay buffer, and n-step targets."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples, TensorDict


class SoftReplayBufferSamples(NamedTuple):
    """SB3's samples and, in a dictionary, the extra columns."""

    observations: th.Tensor | TensorDict
    actions: th.Tensor
    next_observations: th.Tensor | TensorDict
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | None
    extras: TensorDict


Samples = ReplayBufferSamples | DictReplayBufferSamples | SoftReplayBufferSamples
"""SB3's, unless the buffer has extra columns."""


class BatchIndices(NamedTuple):
    """A batch: the positions of its transitions in the replay buffer, and the values that are computed on the host."""

    first: np.ndarray
    """Position of the first transition of each target, counted over rows and environments ``[batch]``."""
    last: np.ndarray
    """That of the last transition; the same for 1-step targets."""
    rewards: np.ndarray
    """Discounted sums of rewards ``[batch, 1]``."""
    dones: np.ndarray
    """1 where the last transition led to a terminal state ``[batch, 1]``."""
    discounts: np.ndarray | None
    """Discounts of the values after the last transitions ``[batch, 1]``; None for the algorithm's gamma."""


def n_step_targets(rewards: np.ndarray, ends: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Sum rewards ``[batch, n_steps]``; a target ends at the first end of an episode, or after ``n_steps`` rewards.

    Returns the number of the last transition of each target counted from 0, the discounted sum of its rewards, and the
    discount of the value after it, each ``[batch]``.
    """
    steps = np.arange(rewards.shape[1])
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), steps[-1])
    weights = np.where(steps <= lengths[:, None], gamma**steps, 0.0)
    returns = (rewards * weights).sum(axis=1).astype(np.float32)
    return lengths, returns, (gamma ** (lengths + 1.0)).astype(np.float32)
