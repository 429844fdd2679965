"""A model small enough for tests, and what its replay buffer must hold after a masked walk."""

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_softac import DiscreteSAC
from tests.discrete.masked_walk import TERMINAL, allowed

SMALL = dict(policy_kwargs=dict(net_arch=[16]), batch_size=16, learning_starts=40, buffer_size=600, seed=0, device="cpu")
SPACES = [spaces.Discrete(4), spaces.Discrete(4, start=3), spaces.MultiDiscrete([2, 3], start=[1, -1]), spaces.MultiBinary(3)]


def make_model(env, **kwargs) -> DiscreteSAC:
    return DiscreteSAC("MlpPolicy", env, **{**SMALL, **kwargs})


def check_stored_masks(model, known_at_time_limits=True):
    """
    Compare the masks in the replay buffer with those of the states in it.

    :param known_at_time_limits: Whether the masks of last states are known; else everything counts as allowed there.
    :return: Number of terminations and of time limits.
    """
    buffer, n = model.replay_buffer, model.branches.n
    assert buffer.size() > 0
    rows = slice(buffer.size())
    states, next_states = (store[rows].argmax(axis=-1) for store in (buffer.observations, buffer.next_observations))
    dones, timeouts = buffer.dones[rows], buffer.timeouts[rows]
    masks, next_masks = (buffer.extras[name][rows] for name in ("action_masks", "next_action_masks"))
    for where in np.ndindex(states.shape):
        np.testing.assert_array_equal(masks[where], allowed(states[where], n))
        terminated = dones[where] and not timeouts[where]
        assert terminated == (next_states[where] == TERMINAL)
        everything = terminated or (dones[where] and not known_at_time_limits)
        np.testing.assert_array_equal(next_masks[where], np.ones(n, bool) if everything else allowed(next_states[where], n))
    chosen = model.branches.select(th.as_tensor(masks.astype(np.float32)), th.as_tensor(buffer.actions[rows]).long())
    assert (chosen == len(model.branches.sizes)).all()
    return int((dones & ~timeouts).sum()), int(timeouts.sum())
