"""Masks of the states that steps lead to."""

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_softac.discrete.branches import Branches
from sb3_softac.discrete.masks import (
    MASK_KEY,
    ActionMaskInfo,
    ask_masks,
    dead_ends,
    has_masks,
    keep_last_masks,
    masks_of_next_states,
)
from tests.discrete.masked_walk import TERMINAL, MaskableWalk, MaskedWalk, MasksOfWrapper, allowed, walk


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


def test_infos_hold_the_mask_of_the_last_state():
    env = VecNormalize(DummyVecEnv([MaskableWalk, lambda: Monitor(MaskableWalk())]), norm_obs=False)
    assert keep_last_masks(env) is env
    ends = {"terminated": 0, "truncated": 0}
    for dones, infos in walk(env):
        for i, (done, info) in enumerate(zip(dones, infos, strict=True)):
            state = int(np.argmax(info["terminal_observation"])) if done else env.get_attr("state", i)[0]
            if state == TERMINAL:
                assert MASK_KEY not in info
            else:
                np.testing.assert_array_equal(info[MASK_KEY], allowed(state, 4))
            assert info["action_masks"] == "mine"  # what the environment reports stays
            if done:
                ends["truncated" if info["TimeLimit.truncated"] else "terminated"] += 1
    assert min(ends.values()) >= 2


class OneArray(MaskableWalk):
    """Always returns the same array, changed in place."""

    def action_masks(self):
        self.array = getattr(self, "array", np.zeros(4, bool))
        self.array[:] = self.valid()
        return self.array

    def reset(self, **kwargs):
        result = super().reset(**kwargs)
        self.action_masks()
        return result


def test_the_reported_mask_survives_the_reset():
    env, compared = keep_last_masks(DummyVecEnv([OneArray])), 0
    for dones, infos in walk(env):
        if dones[0] and infos[0]["TimeLimit.truncated"]:
            state = int(np.argmax(infos[0]["terminal_observation"]))
            np.testing.assert_array_equal(infos[0][MASK_KEY], allowed(state, 4))
            compared += state % 3 != env.get_attr("state")[0] % 3
    assert compared >= 2


def test_the_asked_masks_survive_the_next_step():
    env = DummyVecEnv([OneArray])
    env.reset()
    masks = ask_masks(env, Branches(env.action_space))
    before = masks.copy()
    env.envs[0].array[:] = ~env.envs[0].array
    np.testing.assert_array_equal(masks, before)


def test_wrapping_happens_once():
    env = DummyVecEnv([MaskableWalk, lambda: ActionMaskInfo(MaskableWalk())])
    keep_last_masks(env)
    first = list(env.envs)
    keep_last_masks(env)
    assert env.envs == first and all(env.env_is_wrapped(ActionMaskInfo))
    assert not any(isinstance(single.env, ActionMaskInfo) for single in first)


def test_masks_of_wrappers_are_found():
    env = keep_last_masks(DummyVecEnv([lambda: ActionMasker(Monitor(MaskedWalk()), lambda env: env.unwrapped.valid())]))
    assert sum(MASK_KEY in infos[0] for _, infos in walk(env, 5)) >= 3


def test_environments_without_masks_are_left_alone():
    env = DummyVecEnv([MaskedWalk])
    assert keep_last_masks(env) is env and not any(env.env_is_wrapped(ActionMaskInfo))
    env = ActionMaskInfo(MaskedWalk())
    env.reset()
    action = np.flatnonzero(env.unwrapped.valid())[0]
    assert MASK_KEY not in env.step(action)[-1]


def test_masks_of_a_vectorized_wrapper():
    """They are not those of the single environments, even if these have some too."""
    for single in (MaskedWalk, MaskableWalk):
        env = MasksOfWrapper(DummyVecEnv([single] * 2))
        assert has_masks(env) and keep_last_masks(env) is env
        assert not any(env.env_is_wrapped(ActionMaskInfo))


@pytest.mark.parametrize("vec_env", [DummyVecEnv, lambda envs: SubprocVecEnv(envs, "fork")], ids=["Dummy", "Subproc"])
def test_masks_of_some_environments_only(vec_env):
    env = VecNormalize(vec_env([MaskedWalk, lambda: Monitor(MaskableWalk())]))
    try:
        with pytest.raises(ValueError, match=r"environments \[1\] of 2 have a method action_masks\(\), the others do not"):
            keep_last_masks(env)
    finally:
        env.close()


def test_dead_ends():
    """States before a time limit that allow no action in one of the branches."""
    branches, limit = Branches(spaces.MultiDiscrete([2, 2])), {"TimeLimit.truncated": True}
    infos = [
        {MASK_KEY: np.array([0, 0, 1, 1]), **limit},
        {MASK_KEY: np.array([0, 1, 1, 0]), **limit},
        {MASK_KEY: np.zeros(4)},
        limit,
        {MASK_KEY: np.zeros((1, 4), bool), **limit},
    ]
    assert dead_ends(infos, np.array([True, True, True, True, True]), branches) == [0, 4]
    assert dead_ends(infos, np.zeros(5, bool), branches) == []


class Asked:
    """Stands for a vectorized environment: answers with the masks that it was given."""

    def __init__(self, masks):
        self.masks = masks

    def env_method(self, name):
        assert name == "action_masks"
        return self.masks


def test_masks_of_next_states():
    some, others, none = np.array([True, False, True]), np.array([False, True, True]), np.zeros(3, bool)
    limit, branches = {"TimeLimit.truncated": True}, Branches(spaces.Discrete(3))
    infos = [
        {MASK_KEY: some},
        {MASK_KEY: none, "TimeLimit.truncated": False},  # terminal: has no value
        {},
        {MASK_KEY: some.astype(np.int8)[None], **limit},
    ]
    dones = np.array([False, True, True, True])
    masks, missing = masks_of_next_states(Asked(None), infos, dones, branches)
    np.testing.assert_array_equal(masks, [some, ~none, ~none, some])
    assert masks.dtype == bool and not missing
    # Nothing reported: those of running episodes are asked, the others are missing
    masks, missing = masks_of_next_states(Asked([some, others, others]), [{}, {}, limit], np.array([0, 1, 1], bool), branches)
    np.testing.assert_array_equal(masks, [some, ~none, ~none])
    assert missing


def test_the_wrapper_answers_for_running_episodes():
    """What its single environments say by themselves does not count."""
    env = MasksOfWrapper(DummyVecEnv([lambda: ActionMaskInfo(MaskableWalk())]))
    env.reset()
    infos = [{MASK_KEY: ~env.env_method("valid")[0]}]
    masks, missing = masks_of_next_states(env, infos, np.array([False]), Branches(env.action_space))
    np.testing.assert_array_equal(masks, env.env_method("valid"))
    assert not missing
