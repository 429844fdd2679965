"""
Action masks in the environments that RL Zoo creates, for training and evaluation, and for its scripts that run trained agents.
"""

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

from sb3_softac.discrete.masked_play import MasksForPredict
from sb3_softac.discrete.masks import ActionMaskInfo, has_masks
from sb3_softac.zoo.wrapping import wrap_once

MASKED_ALGORITHMS = ("discretesac",)
"""Zoo ids of the algorithms that support action masks."""


def report_masks(wrapper: Callable[[gym.Env], gym.Env] | None, env: gym.Env) -> gym.Env:
    """
    :param wrapper: The wrapper from the hyperparameters, if any.
    :param env: Environment.
    :return: The environment in that wrapper; if it has masks, it reports them in its info.
    """
    wrapped = env if wrapper is None else wrapper(env)
    return ActionMaskInfo(wrapped) if wrapped.has_wrapper_attr("action_masks") else wrapped


def mask_training(manager: Any) -> None:
    """
    Make training environments report the masks of their last states, also from other processes.

    :param manager: The Zoo's ``ExperimentManager``.
    """
    wrap_once(manager, "create_envs", _create_masked_envs)


def _create_masked_envs(original: Any, self: Any, *args: Any, **kwargs: Any) -> VecEnv:
    if self.algo not in MASKED_ALGORITHMS:
        return original(self, *args, **kwargs)
    chosen = self.env_wrapper
    self.env_wrapper = functools.partial(report_masks, chosen)
    try:
        return original(self, *args, **kwargs)
    finally:
        self.env_wrapper = chosen


def mask_play(utils: ModuleType) -> None:
    """
    Make ``enjoy``, ``record_video`` and ``push_to_hub`` use masks: they call ``predict`` without masks.

    :param utils: The module ``rl_zoo3.utils``. The package ``rl_zoo3``, which also exports the function, is changed too.
    """
    original = utils.create_test_env
    wrap_once(utils, "create_test_env", _masks_for_predict)
    package = sys.modules[utils.__name__.partition(".")[0]]
    if getattr(package, "create_test_env", None) is original:
        package.__dict__["create_test_env"] = utils.create_test_env


def _masks_for_predict(original: Any, *args: Any, **kwargs: Any) -> VecEnv:
    env = original(*args, **kwargs)
    return MasksForPredict(env) if has_masks(env) else env
