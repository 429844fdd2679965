"""What RL Zoo gets when it is imported: algorithms, hyperparameters, masks, and what environment variables ask for."""

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

import sb3_softac
from sb3_softac.discrete.masked_play import MasksForPredict
from sb3_softac.discrete.masks import ActionMaskInfo, has_masks
from sb3_softac.files.plain_files import safe_load_is_on
from sb3_softac.zoo import checkpoints, safe
from sb3_softac.zoo.algorithms import ALGORITHMS, hyperparameter_file, presets
from sb3_softac.zoo.patches import wrap
from sb3_softac.zoo.vec_normalize import save_twins


def add_to(module: str) -> None:
    """Add the algorithms to a module of RL Zoo that has been imported. Entries of the Zoo itself are kept."""
    if module == "rl_zoo3.utils":
        if safe_load_is_on():
            safe.make_safe()
        for algo, cls in ALGORITHMS.items():  # one that cannot be imported does not affect the others
            with _failure_reported(f"register {algo} with RL Zoo"):
                resolve_name("rl_zoo3.utils:ALGOS").setdefault(algo, getattr(sb3_softac, cls))
        with _failure_reported("make RL Zoo's scripts use action masks"):
            wrap("rl_zoo3.utils:create_test_env", _masks_for_predict)
    elif module == "rl_zoo3.hyperparams_opt":
        from rl_zoo3 import hyperparams_opt

        from sb3_softac.zoo import samplers

        for algo in ALGORITHMS:
            hyperparams_opt.HYPERPARAMS_SAMPLER.setdefault(algo, functools.partial(samplers.sample, algo))
            hyperparams_opt.HYPERPARAMS_CONVERTER.setdefault(algo, samplers.convert)
    else:
        if safe_load_is_on():
            safe.make_experiments_safe()
        wrap("rl_zoo3.exp_manager:ExperimentManager.__init__", _use_own_hyperparameters)
        with _failure_reported("make RL Zoo's environments report action masks"):
            wrap("rl_zoo3.exp_manager:ExperimentManager.create_envs", _create_envs)
        with _failure_reported("make RL Zoo's training runs resumable"):
            if checkpoints.EVERY in os.environ:
                checkpoints.make_resumable()


@contextmanager
def _failure_reported(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        warnings.warn(f"sb3_softac could not {what}: {error!r}", stacklevel=2)


def _use_own_hyperparameters(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Read our YAML file if no other one is given. Presets are found by name, unless the working directory has that file."""
    bound = inspect.signature(original).bind(self, *args, **kwargs)
    if (algo := bound.arguments["algo"]) in ALGORITHMS:
        own, given = hyperparameter_file(algo), bound.arguments.get("config") or ""
        is_preset = given in presets() and not os.path.exists(given)
        bound.arguments["config"] = str(own.parent / "presets" / given) if is_preset else given or str(own)
    original(*bound.args, **bound.kwargs)


def _create_envs(original: Any, self: Any, *args: Any, **kwargs: Any) -> VecEnv:
    """Environments of a training with one of our algorithms."""
    if self.algo not in ALGORITHMS:
        return original(self, *args, **kwargs)
    if getattr(self.env_wrapper, "func", None) is not report_masks:  # it stays: the trials of a search may run in threads
        self.env_wrapper = functools.partial(report_masks, self.env_wrapper)
    return save_twins(original(self, *args, **kwargs))


def report_masks(wrapper: Callable[[gym.Env], gym.Env] | None, env: gym.Env) -> gym.Env:
    """Wrap an environment; if it has masks, it reports those of its last states, also from other processes."""
    wrapped = env if wrapper is None else wrapper(env)
    return ActionMaskInfo(wrapped) if wrapped.has_wrapper_attr("action_masks") else wrapped


def _masks_for_predict(original: Any, *args: Any, **kwargs: Any) -> VecEnv:
    """Environments of ``enjoy``, ``record_video`` and ``push_to_hub``, which call ``predict`` without masks."""
    env = save_twins(original(*args, **kwargs))
    return MasksForPredict(env) if has_masks(env) else env
