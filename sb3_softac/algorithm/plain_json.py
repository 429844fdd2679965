"""
The parts of a saved model that SB3 pickles, as JSON: spaces, schedules, noise, classes that are known by name, and numbers.
"""

import importlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import her
from stable_baselines3.common import buffers, noise, torch_layers, type_aliases, utils
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_softac.checks import shown
from sb3_softac.replay.buffer import SoftReplayBuffer

# Attributes that are rebuilt when a model is loaded, or that only describe the last episodes.
LEFT_OUT = ("lr_schedule", "_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer")
MODULES = (th.nn.modules.activation, th.optim, torch_layers, buffers, her)
CLASSES = {cls.__name__: cls for module in MODULES for cls in vars(module).values() if isinstance(cls, type)}
CLASSES |= {cls.__name__: cls for cls in (SoftReplayBuffer, RMSpropTFLike)}
CLASSES_OF_OBJECTS = (
    *(utils.ConstantSchedule, utils.LinearSchedule, utils.FloatSchedule),
    *(noise.NormalActionNoise, noise.OrnsteinUhlenbeckActionNoise, noise.VectorizedActionNoise),
)
OBJECTS: dict[str, Any] = {cls.__name__: cls for cls in CLASSES_OF_OBJECTS}
"""Objects that consist of their attributes."""
OF_THE_ZOO = "SimpleLinearSchedule"  # of rl_zoo3.utils, which is imported only if a model has one


class NotPlain(ValueError):
    """A value cannot be written as JSON."""


def to_plain(value: Any, policies: dict[str, type[BasePolicy]]) -> Any:
    """The value as JSON; NotPlain if it has no such form."""
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
        return _class_to_plain(value, policies)
    if isinstance(value, np.ndarray | np.number | np.bool_) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return {"array": [value.dtype.str, list(value.shape), value.ravel().tolist(), isinstance(value, np.ndarray)]}
    if isinstance(value, GoalSelectionStrategy):
        return {"goal_selection_strategy": value.name}
    if type(value) in OBJECTS.values() or (type(value).__module__, type(value).__name__) == ("rl_zoo3.utils", OF_THE_ZOO):
        return {"object": [type(value).__name__, {name: to_plain(part, policies) for name, part in vars(value).items()}]}
    raise NotPlain(f"{shown(value)} cannot be written as JSON")


def _class_to_plain(value: type, policies: dict[str, type[BasePolicy]]) -> Any:
    for name, cls in {**policies, **CLASSES}.items():
        if cls is value:
            return {"class": name}
    if issubclass(value, np.number | np.bool_):
        return {"dtype": np.dtype(value).str}
    raise NotPlain(f"{value!r} cannot be written as JSON")


def from_plain(plain: Any, policies: dict[str, type[BasePolicy]]) -> Any:
    """The value that :func:`to_plain` turned into JSON."""
    if not isinstance(plain, dict):
        return plain
    if len(plain) != 1:
        raise NotPlain(f"{plain!r:.99} is not a value that a saved model can contain")
    ((kind, content),) = plain.items()
    match kind, content:
        case (("list" | "tuple"), list()):
            return {"list": list, "tuple": tuple}[kind](from_plain(item, policies) for item in content)
        case "dict", dict():
            return {key: from_plain(item, policies) for key, item in content.items()}
        case "class", str() if content in {**policies, **CLASSES}:
            return {**policies, **CLASSES}[content]
        case "object", [str(name), dict(attributes)] if name in OBJECTS or name == OF_THE_ZOO:
            return _object_from_plain(name, {key: from_plain(part, policies) for key, part in attributes.items()})
    return _leaf_from_plain(kind, content)


def _leaf_from_plain(kind: str, content: Any) -> Any:
    match kind, content:
        case "space", _:
            return _space_from_plain(content)
        case "train_freq", [frequency, unit]:
            return type_aliases.TrainFreq(frequency, type_aliases.TrainFrequencyUnit(unit))
        case "array", [dtype, shape, list(items), is_array]:
            array = np.array(items, _numbers(dtype)).reshape(shape)
            return array if is_array else array[()]
        case "dtype", str():
            return _numbers(content).type
        case "goal_selection_strategy", str() if content in GoalSelectionStrategy.__members__:
            return GoalSelectionStrategy[content]
    raise NotPlain(f"{ ({kind: content})!r:.99} is not a value that a saved model can contain")


def _numbers(dtype: Any) -> np.dtype:
    """:return: A numeric dtype; other dtypes may hold arbitrary objects, or have any length."""
    result = np.dtype(dtype) if isinstance(dtype, str) and len(dtype) < 10 else np.dtype(object)
    if result.kind not in "biuf":
        raise NotPlain(f"{dtype!r:.99} is not a numeric dtype")
    return result


def _object_from_plain(name: str, attributes: dict[str, Any]) -> Any:
    cls = OBJECTS[name] if name in OBJECTS else getattr(importlib.import_module("rl_zoo3.utils"), OF_THE_ZOO)
    if taken := sorted(attribute for attribute in attributes if hasattr(cls, attribute)):
        raise NotPlain(f"{taken} belong to the class {name}, and would be replaced")
    result = cls.__new__(cls)
    vars(result).update(attributes)
    return result


def spaces_in(plain: Any) -> Iterator[Any]:
    """All spaces in a JSON value from anywhere, however deep."""
    if isinstance(plain, list):
        parts: Iterable[Any] = plain
    elif not isinstance(plain, dict):
        return
    elif isinstance(plain.get("dict"), dict):  # whose keys may be any
        parts = plain["dict"].values()
    elif "space" in plain:
        yield plain["space"]
        return
    else:
        parts = plain.values()
    for part in parts:
        yield from spaces_in(part)


def declared_size(plain: Any) -> int:
    """Number of elements of a space as JSON; of a discrete space, of its values."""
    match plain:
        case ["Box", _, _, list(shape), _]:
            return math.prod(map(_count, shape))
        case ["Discrete", n, _, *_]:
            return _count(n)
        case ["MultiDiscrete", list(nvec), _, *_]:
            return sum(map(_count, np.ravel(nvec).tolist()))
        case ["MultiBinary", list(shape)]:
            return math.prod(map(_count, shape))
        case ["Dict", dict(parts)]:
            return sum(map(declared_size, parts.values()))
    raise NotPlain(f"{plain!r:.99} is not a space")


def _count(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise NotPlain(f"{number!r:.99} is not a number of elements")
    return number


def _space_to_plain(space: spaces.Space) -> Any:
    match space:
        case spaces.Box():
            return ["Box", *map(_bound_to_plain, (space.low, space.high)), list(space.shape), str(space.dtype)]
        case spaces.Discrete():
            return ["Discrete", int(space.n), int(space.start), *_dtype_to_plain(space)]
        case spaces.MultiDiscrete():
            return ["MultiDiscrete", space.nvec.tolist(), space.start.tolist(), *_dtype_to_plain(space)]
        case spaces.MultiBinary():
            return ["MultiBinary", list(space.shape)]
        case spaces.Dict():
            return ["Dict", {key: _space_to_plain(part) for key, part in space.spaces.items()}]
    raise NotPlain(f"{space} cannot be written as JSON")


def _dtype_to_plain(space: spaces.Space) -> list[str]:
    """:return: The dtype of the values, unless it is the usual one: older versions of Gymnasium know no other."""
    return [] if space.dtype == np.int64 else [str(space.dtype)]


def _bound_to_plain(bound: np.ndarray) -> Any:
    """:return: A number if all are the same, as for pictures."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()


def _dtype_from_plain(plain: list[Any]) -> dict[str, Any]:
    return {"dtype": _numbers(plain[0]).type} if plain else {}


def _space_from_plain(plain: Any) -> spaces.Space:
    match plain:
        case ["Box", low, high, shape, dtype]:
            dtype = _numbers(dtype)
            low, high = (np.broadcast_to(np.array(bound, dtype), shape).copy() for bound in (low, high))
            return spaces.Box(low, high, dtype=dtype.type)
        case ["Discrete", n, start, *dtype] if len(dtype) <= 1:
            return spaces.Discrete(n, start=start, **_dtype_from_plain(dtype))
        case ["MultiDiscrete", nvec, start, *dtype] if len(dtype) <= 1:
            return spaces.MultiDiscrete(nvec, start=start, **_dtype_from_plain(dtype))
        case ["MultiBinary", shape]:
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
        case ["Dict", parts]:
            return spaces.Dict({key: _space_from_plain(part) for key, part in parts.items()})
    raise NotPlain(f"{plain!r} is not a space")
