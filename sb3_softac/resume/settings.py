"""
What a program has set before the training: what must be the same when it is started again, and what may differ.

The state of the training, and with it each number of the algorithm and of the environments, comes from the checkpoint.
Functions, texts and the arguments of callbacks come from the program.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from sb3_softac.resume.environments import ENVIRONMENT_CODECS
from sb3_softac.resume.traversal import Encoder, StartObjects, leaves_of

# Arguments that concern the program and not what is trained, or that are part of the structure
NOT_COMPARED = {
    *("self", "policy", "env", "policy_kwargs", "verbose", "device", "tensorboard_log", "monitor_wrapper"),
    *("_init_setup_model", "cuda_graphs", "buffer_size", "replay_buffer_class", "optimize_memory_usage", "use_sde"),
    *("rollout_buffer_class", "supported_action_spaces", "support_multi_env", "sde_support"),
}


class Start(StartObjects):
    """A program at the start of a training."""

    def __init__(self, model: BaseAlgorithm, callback: BaseCallback):
        super().__init__()
        self.structure = structure(model, callback)
        self.arguments = arguments(model)


def structure(model: BaseAlgorithm, callback: BaseCallback) -> dict[str, str]:
    """What a checkpoint fits only if it is the same, as texts by name."""
    assert model.env is not None
    kwargs = {name: part for name, part in model.policy_kwargs.items() if name != "optimizer_kwargs"}
    parts: dict[str, Any] = {
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        **_texts({"policy_kwargs": kwargs}),
        "networks": model.policy,
        "observation_space": model.observation_space,
        "action_space": model.action_space,
        "number of environments": model.env.num_envs,
        "environment": " of ".join(_layers(model.env)),
        "use_sde": model.use_sde,
        "callbacks": _names_of_callbacks(callback),
    }
    for name in model._get_torch_save_params()[0]:
        if isinstance(part := recursive_getattr(model, name), th.optim.Optimizer):
            parts[name] = type(part).__name__
    for name in ("replay_buffer", "rollout_buffer"):
        if getattr(model, name, None) is not None:
            parts[f"{name}_class"] = type(getattr(model, name)).__name__
    for name in ("buffer_size", "optimize_memory_usage", "n_steps" if hasattr(model, "rollout_buffer") else ""):
        if hasattr(model, name):
            parts[name] = getattr(model, name)
    return {name: str(part) for name, part in parts.items()}


def _layers(env: Any) -> Iterator[str]:
    """The classes of an environment, from the outermost wrapper on."""
    yield type(env).__name__
    if isinstance(env, VecEnvWrapper):
        yield from _layers(env.venv)
    elif isinstance(env, DummyVecEnv):
        yield " and ".join(dict.fromkeys(" of ".join(_layers(part)) for part in env.envs))
    elif not isinstance(env, VecEnv) and hasattr(env, "env") and env is not env.unwrapped:
        yield from _layers(env.env)


def inner_callbacks(callback: Any) -> list[BaseCallback]:
    """The callbacks that a callback calls."""
    inner = [*getattr(callback, "callbacks", []), getattr(callback, "callback", None)]
    return [part for part in inner if isinstance(part, BaseCallback)]


def _names_of_callbacks(callback: BaseCallback) -> str:
    names = ", ".join(map(_names_of_callbacks, inner_callbacks(callback)))
    return type(callback).__name__ + (f"({names})" if names else "")


def arguments(model: BaseAlgorithm) -> dict[str, str]:
    """The arguments of the algorithm's constructor and of those of the environments, as texts by name."""
    values = {"optimizer_kwargs": model.policy_kwargs.get("optimizer_kwargs")}
    for name in sorted(argument_names(type(model)) - NOT_COMPARED):
        values |= {name: vars(model)[attribute] for attribute in (name, f"_{name}") if attribute in vars(model)}
    for number, env in enumerate(getattr(model.env, "envs", [])):
        if getattr(env, "spec", None) is not None:
            kwargs = {name: part for name, part in env.spec.kwargs.items() if name != "render_mode"}
            values[f"environment.{number}.kwargs"] = kwargs
    return _texts(values)


def _texts(values: dict[str, Any]) -> dict[str, str]:
    encoder = Encoder(ENVIRONMENT_CODECS, StartObjects(), recording=True)
    nodes = {name: encoder.encode(value, name) for name, value in values.items()}
    return leaves_of(nodes, encoder.memory.tensors)


def argument_names(cls: type) -> set[str]:
    """The names of the arguments of a class and of those that it is derived from."""
    names: set[str] = set()
    for base in cls.__mro__[:-1]:
        try:
            names |= inspect.signature(vars(base).get("__init__", lambda: None)).parameters.keys()
        except (TypeError, ValueError):  # of C
            pass
    return names


def different_structure(saved: dict[str, str], now: dict[str, str]) -> list[str]:
    """The differences between two results of :func:`structure`, readable."""
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


def differences(saved: dict[str, str], now: dict[str, str], start: StartObjects) -> list[str]:
    """The differences between values of a checkpoint and of this program, readable, each one once."""
    found: dict[tuple[str, str | None, str | None], None] = {}
    for name in {**saved, **now}:
        if saved.get(name) != now.get(name):
            found[_short(name, start), saved.get(name), now.get(name)] = None
    return [f"{name} is {now or 'not given'}, but {saved or 'not given'} in the checkpoint" for name, saved, now in found]


def _short(name: str, start: StartObjects) -> str:
    """The name of a value without the way to it: the class of its callback, or that it belongs to an environment."""
    for end in [match.start() for match in re.finditer(r"\.", name)][::-1]:
        if isinstance(callback := start.objects.get(name[:end]), BaseCallback):
            return f"{type(callback).__name__}: {name[end + 1 :]}"
    return re.sub(r"^environment\.\d+\.(kwargs\.|env\.)*", "environment: ", name)
