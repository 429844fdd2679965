"""Environments that the Zoo makes: those with action masks report them, all others stay as they were."""

import argparse

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3
from rl_zoo3.exp_manager import ExperimentManager
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_softac.discrete.masked_play import MasksForPredict
from sb3_softac.discrete.masks import ActionMaskInfo
from sb3_softac.zoo.registration import report_masks
from tests.zoo import masked_game  # noqa: F401  (registers the environment)


def masked(env):
    """Stands for the wrapper of a configuration."""
    return ActionMasker(env, lambda env: np.ones(2, bool))


def manager(algo, env_id, wrapper=None):
    made = ExperimentManager(argparse.Namespace(), algo, env_id, "logs")
    made.env_wrapper, made.vec_env_wrapper, made.frame_stack = wrapper, None, None
    made.normalize = False
    return made


@pytest.mark.parametrize(
    ("algo", "env_id", "wrapper", "reports"),
    [
        ("discretesac", "MaskedGame-v0", None, True),
        ("discretesac", "CartPole-v1", masked, True),
        ("discretesac", "CartPole-v1", None, False),
        ("dqn", "MaskedGame-v0", None, False),
    ],
)
@pytest.mark.parametrize("eval_env", [False, True])
def test_environments_of_a_training(algo, env_id, wrapper, reports, eval_env):
    made = manager(algo, env_id, wrapper)
    for _ in range(2):
        env = made.create_envs(2, eval_env=eval_env, no_log=True)
        assert env.env_is_wrapped(ActionMaskInfo) == [reports] * 2 and all(env.env_is_wrapped(Monitor))
        assert env.env_is_wrapped(ActionMasker) == [wrapper is not None] * 2


def test_environments_of_trials_that_run_in_threads():
    """``-optimize --n-jobs 2``: the environments of one trial are created while those of another are."""
    made, inner = manager("discretesac", "MaskedGame-v0"), []

    def wrapper(env):
        if not inner:
            inner.append(None)
            inner[0] = made.create_envs(1, no_log=True)
        return env

    made.env_wrapper = wrapper
    env = made.create_envs(2, no_log=True)
    for each in (*env.unwrapped.envs, *inner[0].unwrapped.envs):
        assert str(each).count("ActionMaskInfo") == 1


def test_what_reports_masks():
    plain = gym.make("CartPole-v1")
    assert report_masks(None, plain) is plain
    assert isinstance(report_masks(masked, plain), ActionMaskInfo)
    assert not is_wrapped(report_masks(Monitor, plain), ActionMaskInfo)


@pytest.mark.parametrize(("env_id", "knows"), [("MaskedGame-v0", True), ("CartPole-v1", False)])
def test_environments_to_play_in(env_id, knows):
    env = rl_zoo3.create_test_env(env_id, should_render=False, hyperparams={})
    assert isinstance(env, MasksForPredict if knows else DummyVecEnv)
