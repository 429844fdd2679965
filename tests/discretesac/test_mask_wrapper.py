"""Masks of the states that steps lead to; the environment here is also that of tests/discretesac."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize

from sb3_softac.discretesac.branches import Branches
from sb3_softac.discretesac.masks import ActionMaskInfo, keep_last_masks, masks_of_next_states

N_STATES, TERMINAL, TIME_LIMIT = 8, 7, 6


def allowed(state, n):
    """Of three neighbouring options one is forbidden: which, depends on the state."""
    return (state + np.arange(n)) % 3 != 0


class MaskedWalk(gym.Env):
    """
    A walk through eight states that refuses forbidden actions.

    One of the states is terminal, and allows nothing (``terminal_mask=False``); after six steps there is a time limit.
    """

    def __init__(self, action_space=None, terminal_mask=False):
        self.action_space = action_space or spaces.Discrete(4)
        self.branches, self.terminal_mask = Branches(self.action_space), terminal_mask
        self.observation_space = spaces.Box(0, 1, (N_STATES,), np.float32)
        self.state, self.steps = 0, 0

    def valid(self):
        if self.state == TERMINAL:
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
        return self.observe(), float(chosen.sum()), terminated, truncated, {"given": self.steps}


class MaskableWalk(MaskedWalk):
    def action_masks(self):
        return self.valid()


class Elsewhere(VecEnvWrapper):
    """Stands for a vectorized environment with environments out of reach."""

    @property
    def unwrapped(self):
        return self

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


def walk(env, steps=60):
    """Random allowed actions: what each step reported, and the state that it led to."""
    rng = np.random.default_rng(0)
    env.reset()
    for _ in range(steps):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in get_action_masks(env)])
        _, _, dones, infos = env.step(actions)
        yield dones, infos


def test_the_walk_refuses_forbidden_actions():
    env = MaskedWalk(spaces.MultiDiscrete([2, 3]))
    for state in range(TERMINAL):
        for first in range(2):
            for second in range(3):
                env.state, env.steps = state, 0
                if env.valid()[[first, 2 + second]].all():
                    env.step(np.array([first, second]))
                else:
                    with pytest.raises(AssertionError):
                        env.step(np.array([first, second]))


@pytest.mark.parametrize("wrap", [lambda env: env, Monitor, VecNormalize], ids=["plain", "Monitor", "VecNormalize"])
def test_infos_hold_the_mask_of_the_last_state(wrap):
    if wrap is VecNormalize:
        env = VecNormalize(DummyVecEnv([MaskableWalk] * 2), norm_obs=False)
    else:
        env = DummyVecEnv([lambda: wrap(MaskableWalk())] * 2)
    assert keep_last_masks(env) is env
    ends = {"terminated": 0, "truncated": 0}
    for dones, infos in walk(env):
        for i, (done, info) in enumerate(zip(dones, infos, strict=True)):
            state = int(np.argmax(info["terminal_observation"])) if done else env.get_attr("state", i)[0]
            expected = np.zeros(4, bool) if state == TERMINAL else allowed(state, 4)
            np.testing.assert_array_equal(info["action_masks"], expected)
            assert "given" in info  # what the environment reports stays
            if done:
                ends["truncated" if info["TimeLimit.truncated"] else "terminated"] += 1
    assert min(ends.values()) >= 2


def test_wrapping_happens_once():
    env = DummyVecEnv([MaskableWalk] * 2)
    keep_last_masks(env)
    first = list(env.envs)
    keep_last_masks(env)
    assert env.envs == first and all(env.env_is_wrapped(ActionMaskInfo))
    assert not isinstance(first[0].env, ActionMaskInfo)


def test_masks_of_wrappers_are_found():
    env = keep_last_masks(DummyVecEnv([lambda: ActionMasker(Monitor(MaskedWalk()), lambda env: env.unwrapped.valid())]))
    assert all("action_masks" in infos[0] for _, infos in walk(env, 5))


def test_environments_without_masks_are_left_alone():
    env = DummyVecEnv([MaskedWalk])
    assert keep_last_masks(env) is env and not any(env.env_is_wrapped(ActionMaskInfo))


def test_environments_out_of_reach():
    with pytest.raises(ValueError, match=r"environments of this Elsewhere .*sb3_softac\.common\.masks\.ActionMaskInfo"):
        keep_last_masks(Elsewhere(DummyVecEnv([MaskableWalk])))
    wrapped = Elsewhere(DummyVecEnv([lambda: ActionMaskInfo(MaskableWalk())]))
    assert keep_last_masks(wrapped) is wrapped
    assert keep_last_masks(Elsewhere(DummyVecEnv([MaskedWalk])))


def test_masks_of_next_states():
    some, none = np.array([True, False, True]), np.zeros(3, bool)
    infos = [
        {"action_masks": some},
        {"action_masks": none, "TimeLimit.truncated": False},  # terminal: has no value
        {"action_masks": none},
        {"action_masks": some.astype(np.int8)[None], "TimeLimit.truncated": True},
        {},
    ]
    masks = masks_of_next_states(infos, np.array([False, True, True, True, True]), 3)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks, [some, ~none, ~none, some, ~none])
