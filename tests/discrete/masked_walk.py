"""Environments with action masks that refuse forbidden actions, and what a replay buffer must hold after a walk."""

from functools import partial

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.vec_env import VecEnvWrapper

from sb3_softac import DiscreteSAC
from sb3_softac.discrete.branches import Branches
from tests import toys

SPACES = [spaces.Discrete(4), spaces.Discrete(4, start=3), spaces.MultiDiscrete([2, 3], start=[1, -1]), spaces.MultiBinary(3)]
make_model = partial(toys.make_model, DiscreteSAC, buffer_size=600, learning_starts=40)

N_STATES, TERMINAL, TIME_LIMIT = 8, 7, 6


def allowed(state, n):
    """Of three neighbouring options one is forbidden: which, depends on the state."""
    return (state + np.arange(n)) % 3 != 0


class MaskedWalk(gym.Env):
    """
    A walk through eight states that refuses forbidden actions.

    One of the states is terminal: as in many games, asking for its mask is an error (``terminal_mask=None``). After six steps
    there is a time limit. The environment has something of its own in its infos under sb3-contrib's name.
    """

    def __init__(self, action_space=None, terminal_mask=None):
        self.action_space = action_space or spaces.Discrete(4)
        self.branches, self.terminal_mask = Branches(self.action_space), terminal_mask
        self.observation_space = spaces.Box(0, 1, (N_STATES,), np.float32)
        self.state, self.steps = 0, 0

    def valid(self):
        if self.state == TERMINAL:
            assert self.terminal_mask is not None, "The game is over: nobody is to move"
            return np.full(self.branches.n, self.terminal_mask)
        return allowed(self.state, self.branches.n)

    def observe(self):
        return np.eye(N_STATES, dtype=np.float32)[self.state]

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps = int(self.np_random.integers(TERMINAL)), 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action) or self.action_space.contains(int(action)), action
        chosen = np.atleast_1d(action) - self.branches.start
        assert self.valid()[np.cumsum([0, *self.branches.sizes[:-1]]) + chosen].all(), f"{action} in state {self.state}"
        self.state = (5 * self.state + 3 * int(chosen.sum()) + 1) % N_STATES
        self.steps += 1
        terminated, truncated = self.state == TERMINAL, self.steps == TIME_LIMIT
        return self.observe(), float(chosen.sum()), terminated, truncated, {"action_masks": "mine"}


class MaskableWalk(MaskedWalk):
    def action_masks(self):
        return self.valid()


class MasksOfWrapper(VecEnvWrapper):
    """Knows the masks of environments that do not know them."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()

    def has_attr(self, attr_name):
        return attr_name == "action_masks" or self.venv.has_attr(attr_name)

    def env_method(self, method_name, *method_args, indices=None, **method_kwargs):
        method_name = "valid" if method_name == "action_masks" else method_name
        return self.venv.env_method(method_name, *method_args, indices=indices, **method_kwargs)


def walk(env, steps=60):
    """Random allowed actions: what each step reported, and the state that it led to."""
    rng = np.random.default_rng(0)
    env.reset()
    for _ in range(steps):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in get_action_masks(env)])
        _, _, dones, infos = env.step(actions)
        yield dones, infos


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
