"""The parts of a saved model that SB3 pickles, as JSON: spaces, classes that are known by name, and numbers."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import her
from stable_baselines3.common import buffers, torch_layers, type_aliases
from stable_baselines3.common.policies import BasePolicy

from sb3_softac.common.buffers import SoftReplayBuffer

# What is made anew by whoever loads the model, or only tells how far the last episodes have come.
LEFT_OUT = (
    *("lr_schedule", "_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer"),
)
MODULES = (th.nn.modules.activation, th.optim, torch_layers, buffers, her)
CLASSES = {cls.__name__: cls for module in MODULES for cls in vars(module).values() if isinstance(cls, type)}
CLASSES["SoftReplayBuffer"] = SoftReplayBuffer


class NotPlain(ValueError):
    """A value cannot be written as JSON."""


def to_plain(value: Any, policies: dict[str, type[BasePolicy]]) -> Any:
    """
    :param value: A value.
    :param policies: Policy classes by name.
    :return: The value as JSON.
    :raises NotPlain: if it cannot be written as JSON.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type_aliases.TrainFreq):
        return {"train_freq": [value.frequency, value.unit.value]}
    if isinstance(value, list | tuple):
        return {"list" if isinstance(value, list) else "tuple": [to_plain(item, policies) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: to_plain(item, policies) for key, item in value.items()}}
    if isinstance(value, spaces.Space):
        return {"space": _space_to_plain(value)}
    if isinstance(value, type):
        name = next((name for name, cls in {**policies, **CLASSES}.items() if cls is value), None)
        if name is not None:
            return {"class": name}
    raise NotPlain(f"{value!r} cannot be written as JSON")


def from_plain(plain: Any, policies: dict[str, type[BasePolicy]]) -> Any:
    """
    :param plain: What :func:`to_plain` returned.
    :param policies: Policy classes by name.
    :return: The value.
    :raises NotPlain: if it is not such a value.
    """
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "train_freq":
        return type_aliases.TrainFreq(content[0], type_aliases.TrainFrequencyUnit(content[1]))
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](from_plain(item, policies) for item in content)
    if kind == "dict":
        return {key: from_plain(item, policies) for key, item in content.items()}
    if kind == "space":
        return _space_from_plain(content)
    if kind == "class" and content in {**policies, **CLASSES}:
        return {**policies, **CLASSES}[content]
    raise NotPlain(f"{plain!r} is not a value that a saved model can contain")


def _space_to_plain(space: spaces.Space) -> Any:
    match space:
        case spaces.Box():
            return ["Box", *map(_bound_to_plain, (space.low, space.high)), list(space.shape), str(space.dtype)]
        case spaces.Discrete():
            return ["Discrete", int(space.n), int(space.start)]
        case spaces.MultiDiscrete():
            return ["MultiDiscrete", space.nvec.tolist(), space.start.tolist()]
        case spaces.MultiBinary():
            return ["MultiBinary", list(space.shape)]
        case spaces.Dict():
            return ["Dict", {key: _space_to_plain(part) for key, part in space.spaces.items()}]
    raise NotPlain(f"{space} cannot be written as JSON")


def _bound_to_plain(bound: np.ndarray) -> Any:
    """:return: A number if all are the same, as for pictures."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()


def _space_from_plain(plain: Any) -> spaces.Space:
    match plain:
        case ["Box", low, high, shape, dtype]:
            low, high = (np.broadcast_to(np.array(bound, dtype), shape).copy() for bound in (low, high))
            return spaces.Box(low, high, dtype=np.dtype(dtype).type)
        case ["Discrete", n, start]:
            return spaces.Discrete(n, start=start)
        case ["MultiDiscrete", nvec, start]:
            return spaces.MultiDiscrete(nvec, start=start)
        case ["MultiBinary", shape]:
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
        case ["Dict", parts]:
            return spaces.Dict({key: _space_from_plain(part) for key, part in parts.items()})
    raise NotPlain(f"{plain!r} is not a space")
