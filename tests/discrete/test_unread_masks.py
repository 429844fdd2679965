"""Masks under names that nobody reads: one warning that says which name is read, and none where masks are read."""

import warnings
from unittest.mock import MagicMock

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecMonitor

from sb3_softac import DiscreteSAC, SoftAC_v1
from tests.toys import RandomEnv

MASK = np.array([True, False, True])
SMALL = dict(learning_starts=100, buffer_size=50, policy_kwargs=dict(net_arch=[4]), device="cpu", seed=0)


class Game(RandomEnv):
    """Has what ``infos`` and ``members`` say."""

    def __init__(self, infos=None, members=None, obs=None, actions=None, only_in_steps=False):
        super().__init__(obs or spaces.Box(-1.0, 1.0, (2,)), actions or spaces.Discrete(3))
        self.infos, self.only_in_steps = infos or {}, only_in_steps
        for name, member in (members or {}).items():
            setattr(self, name, member)

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return obs, info if self.only_in_steps else {**info, **self.infos}

    def step(self, action):
        *result, info = super().step(action)
        return *result, {**info, **self.infos}


class WithProperty(Game):
    @property
    def valid_actions(self):
        raise ZeroDivisionError("nobody may ask before the first reset")


def mask():
    return MASK


def warnings_of(env, algorithm=DiscreteSAC, policy="MlpPolicy", again=True):
    model = algorithm(policy, env, **SMALL)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(3)
        if again:
            model.learn(3)
    return [str(warning.message) for warning in caught]


UNREAD = {
    "a method": (lambda: Game(members=dict(action_mask=mask)), "attribute or method 'action_mask'"),
    "a property": (WithProperty, "attribute or method 'valid_actions'"),
    "camel case": (lambda: Game(members=dict(getValidMoves=mask)), "'getValidMoves'"),
    "a private one": (lambda: Game(members=dict(_invalid_action_mask=mask)), "'_invalid_action_mask'"),
    "below a wrapper": (lambda: gym.wrappers.TimeLimit(Game(members=dict(action_mask=mask)), 5), "'action_mask'"),
    "in the info": (lambda: Game(dict(action_mask=MASK)), "an entry 'action_mask' of the info"),
    "only in the infos of steps": (lambda: Game(dict(action_mask=MASK), only_in_steps=True), "'action_mask' of the info"),
    "just mask, a method": (lambda: Game(members=dict(mask=mask)), "attribute or method 'mask'"),
    "just masks, an attribute": (lambda: Game(members=dict(masks=MASK.tolist())), "attribute or method 'masks'"),
    "just mask, in the info": (lambda: Game(dict(mask=MASK.astype(float))), "an entry 'mask' of the info"),
    "Taxi": (lambda: gym.make(max(name for name in gym.registry if name.startswith("Taxi-v"))), "'action_mask'"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_one_warning(kind):
    make, what = UNREAD[kind]
    (message,) = warnings_of(make())
    assert what in message and "no method action_masks()" in message and "ActionMasker(env, function)" in message


@pytest.mark.parametrize("name", ["action_mask", "mask"])
def test_masks_in_observations(name):
    space = spaces.Dict({"observation": spaces.Box(-1.0, 1.0, (2,)), name: spaces.MultiBinary(3)})
    (message,) = warnings_of(Game(obs=space), policy="MultiInputPolicy")
    assert f"has an observation {name!r}" in message


class Frames(VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


class WithMask(Frames):
    def action_mask(self):
        return np.stack([MASK] * self.num_envs)


def test_vectorized_environments():
    make = UNREAD["a method"][0]
    assert len(warnings_of(VecMonitor(DummyVecEnv([make, make])))) == 1
    assert len(warnings_of(WithMask(DummyVecEnv([Game, Game])))) == 1
    env = SubprocVecEnv([make, make], "fork")
    assert len(warnings_of(VecMonitor(env))) == 1
    env.close()


SILENT = {
    "nothing": Game,
    "masks are read": lambda: ActionMasker(Game(dict(action_mask=MASK), dict(action_mask=mask)), lambda env: MASK),
    "a count": lambda: Game(dict(invalid_actions=3, legal_actions="all")),
    "other words": lambda: Game(dict(actions=[1], action_meanings=["a"]), dict(action_names=["a"])),
    "masks of images": lambda: Game(dict(mask=np.ones((4, 4)), masks=[[0, 1], [0, 1, 1]]), dict(mask=np.zeros((4, 4), bool))),
    "a function that masks": lambda: Game(members=dict(mask=lambda obs: obs, get_masks=[0.5, 1.0, 0.0])),
}


@pytest.mark.parametrize("kind", SILENT)
def test_no_warning(kind):
    assert warnings_of(SILENT[kind]()) == []


def test_no_warning_where_masks_are_read_in_other_processes():
    env = SubprocVecEnv([SILENT["masks are read"]] * 2, "fork")
    assert not [message for message in warnings_of(env, again=False) if "no method" in message]
    env.close()


def test_masks_that_are_no_method():
    model = DiscreteSAC("MlpPolicy", Game(members=dict(action_masks=MASK)), **SMALL)
    with pytest.raises(ValueError, match=r"action_masks must be a method that returns the mask, but .*ndarray.* not callable"):
        model.learn(3)


def test_no_warning_for_continuous_actions():
    env = Game(dict(action_mask=MASK), dict(action_mask=mask), actions=spaces.Box(-1.0, 1.0, (1,)))
    assert warnings_of(env, SoftAC_v1) == []


class Simulator(RandomEnv):
    """Its robot refers to it, and is called ``env``."""

    @property
    def env(self):
        return self


def test_environments_that_refer_to_one_another():
    DiscreteSAC("MlpPolicy", Simulator(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3)), **SMALL).learn(10)


class NotStarted(Game):
    @property
    def env(self):
        raise RuntimeError("not started")


def test_what_is_no_environment_is_not_searched():
    for game in (NotStarted(), Game(members={"env": MagicMock()})):
        DiscreteSAC("MlpPolicy", game, **SMALL).learn(3)
