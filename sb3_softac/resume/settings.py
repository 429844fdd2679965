"""
What a program has set before the training: what must be the same when it is started again, and what may differ.

The state of the training, and with it each number of the algorithm and of the environments, comes from the checkpoint.
Functions, texts and the arguments of callbacks come from the program.
"""

import inspect
import re
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_softac.algorithm.callbacks import inner_callbacks
from sb3_softac.resume.describe import describe
from sb3_softac.resume.serialization import Baseline
from sb3_softac.resume.vec_envs import layers

# Arguments that concern the program and not what is trained, or that are part of the structure
OTHERS = {
    *("self", "policy", "env", "policy_kwargs", "verbose", "device", "tensorboard_log", "monitor_wrapper"),
    *("_init_setup_model", "cuda_graphs", "buffer_size", "replay_buffer_class", "optimize_memory_usage", "use_sde"),
    *("rollout_buffer_class", "supported_action_spaces", "support_multi_env", "sde_support"),
}
BEFORE = "steps before this call of learn"


class Start:
    """A program at the start of a training."""

    def __init__(self, model: BaseAlgorithm, callback: BaseCallback):
        self.baseline = Baseline()
        self.parameters = set(model.get_parameters())
        """The objects that have parameters; a checkpoint can be resumed only if it has the same."""
        self.structure = structure(model, callback)
        self.arguments = arguments(model)
        self.environment: dict[str, str] = {}
        """Texts of the simple values in the environments that have not changed since, by name."""


def structure(model: BaseAlgorithm, callback: BaseCallback) -> dict[str, str]:
    """What a checkpoint fits only if it is the same, as texts by name."""
    assert model.env is not None
    kwargs = {name: part for name, part in model.policy_kwargs.items() if name != "optimizer_kwargs"}
    parts: dict[str, Any] = {
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        **describe(kwargs, "policy_kwargs"),
        "networks": str(model.policy),
        "observation_space": str(model.observation_space),
        "action_space": str(model.action_space),
        "number of environments": model.env.num_envs,
        "environment": _chain(model.env),
        "use_sde": model.use_sde,
        "callbacks": _callbacks(callback),
        BEFORE: model._num_timesteps_at_start,
    }
    for name in model._get_torch_save_params()[0]:
        part = recursive_getattr(model, name)
        if isinstance(part, th.optim.Optimizer):
            parts[name] = type(part).__name__
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        parts |= {"buffer_size": model.buffer_size, "replay_buffer_class": type(buffer).__name__}  # type: ignore[attr-defined]
        parts["optimize_memory_usage"] = model.optimize_memory_usage  # type: ignore[attr-defined]
    if hasattr(model, "rollout_buffer"):
        parts |= {"n_steps": model.n_steps, "rollout_buffer_class": type(model.rollout_buffer).__name__}  # type: ignore[attr-defined]
    return {name: str(part) for name, part in parts.items()}


def _chain(venv: VecEnv) -> str:
    names = [type(layer).__name__ for layer in layers(venv)]
    if isinstance(venv.unwrapped, DummyVecEnv):
        names.append(" and ".join(dict.fromkeys(map(_wrappers, venv.unwrapped.envs))))
    return " of ".join(names)


def _wrappers(env: Any) -> str:
    is_wrapper = hasattr(env, "env") and env is not env.unwrapped
    return type(env).__name__ + (f" of {_wrappers(env.env)}" if is_wrapper else "")


def _callbacks(callback: Any, within: tuple[Any, ...] = ()) -> str:
    within = (*within, callback)
    names = [_callbacks(inner, within) for inner in inner_callbacks(callback) if inner not in within]
    return type(callback).__name__ + (f"({', '.join(names)})" if names else "")


def arguments(model: BaseAlgorithm) -> dict[str, str]:
    """The arguments of the algorithm's constructor, as texts by name."""
    texts = describe(model.policy_kwargs.get("optimizer_kwargs"), "optimizer_kwargs")
    for name in sorted(argument_names(type(model)) - OTHERS):
        for attribute in (name, f"_{name}"):
            if attribute in vars(model):
                texts |= describe(vars(model)[attribute], name)
    for number, env in enumerate(getattr(model.env, "envs", [])):
        if getattr(env, "spec", None) is not None:
            kwargs = {name: part for name, part in env.spec.kwargs.items() if name != "render_mode"}
            texts |= describe(kwargs, f"environment.environment{number}.kwargs")
    return texts


def argument_names(cls: type) -> set[str]:
    """The names of the arguments of a class and of those that it is derived from."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    return {name for constructor in constructors for name in _parameters(constructor)}


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def different_structure(saved: dict[str, str], now: dict[str, str]) -> list[str]:
    saved = {BEFORE: "0"} | saved  # which earlier versions did not save
    if saved.get("algorithm") != now["algorithm"]:  # all the rest follows
        saved, now = {"algorithm": saved.get("algorithm", "none")}, {"algorithm": now["algorithm"]}
    differences = [
        f"{name}: {_shown(now.get(name), saved.get(name))} now, but {_shown(saved.get(name), now.get(name))} in the checkpoint"
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    ]
    return [text for text in differences if len(differences) == 1 or not text.startswith("networks:")] or differences


def _shown(text: str | None, other: str | None) -> str:
    """A text; of a long one, the first line that differs from the other."""
    if text is None:
        return "not given"
    lines, others = text.splitlines(), set((other or "").splitlines())
    return next((line.strip() for line in lines if line not in others), text) if len(lines) > 1 else text


def differences(saved: dict[str, str], now: dict[str, str]) -> list[str]:
    """The differences between two descriptions, readable, each one once."""
    found: dict[tuple[str, str | None, str | None], None] = {}
    for name in {**saved, **now}:
        if saved.get(name) != now.get(name):
            short = re.sub(r"^environment\.environment\d+\.(kwargs\.|env\.)*", "environment: ", name)
            found[short, saved.get(name), now.get(name)] = None
    return [f"{name} is {now or 'not given'}, but {saved or 'not given'} in the checkpoint" for name, saved, now in found]
