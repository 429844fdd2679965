"""Action masks in the environments that RL Zoo makes: for training and evaluation, and for its scripts that play."""

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

from sb3_softac.discretesac.masked_play import MasksForPredict
from sb3_softac.discretesac.masks import ActionMaskInfo, has_masks

MASKED_ALGORITHMS = ("discretesac",)
"""Zoo ids of the algorithms that know action masks."""


def report_masks(wrapper: Callable[[gym.Env], gym.Env] | None, env: gym.Env) -> gym.Env:
    """
    :param wrapper: The wrapper that the hyperparameters ask for, if any.
    :param env: Environment.
    :return: The environment in that wrapper; if it has masks, it reports them in its info.
    """
    wrapped = env if wrapper is None else wrapper(env)
    return ActionMaskInfo(wrapped) if wrapped.has_wrapper_attr("action_masks") else wrapped


def mask_training(manager: Any) -> None:
    """
    Have the environments of a training report the masks of their last states, also from other processes.

    :param manager: The Zoo's ``ExperimentManager``.
    """
    original = manager.create_envs
    if hasattr(original, "_reports_masks"):
        return

    @functools.wraps(original)
    def create_envs(self: Any, *args: Any, **kwargs: Any) -> VecEnv:
        if self.algo not in MASKED_ALGORITHMS:
            return original(self, *args, **kwargs)
        chosen = self.env_wrapper
        self.env_wrapper = functools.partial(report_masks, chosen)
        try:
            return original(self, *args, **kwargs)
        finally:
            self.env_wrapper = chosen

    create_envs._reports_masks = True  # type: ignore[attr-defined]
    manager.create_envs = create_envs


def mask_play(utils: ModuleType) -> None:
    """
    Have ``enjoy``, ``record_video`` and ``push_to_hub`` respect masks: they call ``predict`` without any.

    :param utils: The module ``rl_zoo3.utils``. The package, which has the function under its own name too, follows.
    """
    original = utils.create_test_env
    if hasattr(original, "_knows_masks"):
        return

    @functools.wraps(original)
    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        env = original(*args, **kwargs)
        return MasksForPredict(env) if has_masks(env) else env

    create_test_env._knows_masks = True  # type: ignore[attr-defined]
    for module in (utils, sys.modules[utils.__name__.partition(".")[0]]):
        if getattr(module, "create_test_env", None) is original:
            module.__dict__["create_test_env"] = create_test_env
