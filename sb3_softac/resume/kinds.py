"""The kinds of values that plain data consists of."""

import base64
import collections
import copy
import enum
import math
import random
import re
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_softac.resume.plain import CONTAINERS, Kind, Reader, ResumeError, Writer, names_files, without_state

BIT_GENERATORS = {cls.__name__: cls for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox)}


ITEMS = re.compile(r"[|<>=]?(O|[US]\d{1,6})")  # types of arrays of objects and of strings


def write_attributes(writer: Writer, attributes: dict[str, Any], path: str) -> dict[str, Any]:
    """
    :param writer: Writer.
    :param attributes: Attributes by name.
    :param path: Name of their object.
    :return: The attributes as JSON by name.
    """
    return {name: writer.write(part, f"{path}.{name}") for name, part in attributes.items()}


def read_attributes(reader: Reader, written: dict[str, Any], live: Any, path: str, texts: bool = True) -> None:
    """
    :param reader: Reader.
    :param written: What :func:`write_attributes` returned.
    :param live: The object whose attributes are set.
    :param path: Its name.
    :param texts: Whether attributes may be text. Text that says which file is written is never read.
    :raises ResumeError: if a method would be replaced, or text, a container or another value by something of another sort.
    """
    there = vars(live)  # not by setattr: nothing else is to follow from it
    outside = reader.in_environment
    reader.in_environment |= isinstance(live, gym.Env) and not isinstance(live, gym.Wrapper)
    for name, part in written.items():
        if part == {"kept": None}:
            continue
        if name not in there and callable(getattr(type(live), name, None)):
            raise ResumeError(f"{path}.{name} is a method, not something that a checkpoint contains")
        now = there.get(name)
        value = reader.read(part, now, f"{path}.{name}")
        kinds = {_sort_of(value), _sort_of(now)} - {None}
        if names_files(name, now) or (not texts and str in kinds):
            continue
        if names_files(name, value) and (isinstance(value, str | bytes) or not reader.in_environment):
            continue
        if len(kinds) > 1:
            raise ResumeError(f"{path}.{name} is {now!r:.99} now, but {type(value).__name__} was saved")
        there[name] = value
    reader.in_environment = outside


def _sort_of(value: Any) -> type | None:
    """:return: ``str`` for text, ``list`` for all containers, ``object`` for other values; None for None."""
    if value is None:
        return None
    return str if isinstance(value, str | bytes) else list if isinstance(value, CONTAINERS) else object


def _write_object(writer: Writer, value: Any, path: str) -> Any:
    return {"class": type(value).__qualname__, "attributes": write_attributes(writer, vars(value), path)}


def _read_object(reader: Reader, content: Any, live: Any, path: str) -> Any:
    if not _is_object(live) or type(live).__qualname__ != content["class"]:
        raise ResumeError(
            f"{path} is a {type(live).__qualname__} now, but a {content['class']} was saved, and objects are not created "
            "from files. Create everything as the interrupted program did; an environment that creates objects while it "
            "runs needs the methods get_state() and set_state(state)"
        )
    read_attributes(reader, content["attributes"], live, path)
    return live


class _Plain:
    """An object that consists only of attributes."""


def _is_object(value: Any) -> bool:
    # What takes up more room than an object of a plain class holds something beyond its attributes: items, C structures
    cls = type(value)
    only_attributes = hasattr(value, "__dict__") and cls.__basicsize__ <= _Plain.__basicsize__
    has_slots = any(vars(base).get("__slots__") for base in cls.__mro__)
    others = (th.nn.Module, th.optim.Optimizer)
    return only_attributes and not has_slots and not without_state(value) and not isinstance(value, others)


def _write_items(writer: Writer, value: Any, path: str) -> Any:
    return [writer.write(item, f"{path}.{number}") for number, item in enumerate(value)]


def _read_items(reader: Reader, content: Any, live: Any, path: str) -> list[Any]:
    there = list(live) if isinstance(live, list | tuple | collections.deque) else []
    there += [None] * (len(content) - len(there))
    return [reader.read(part, now, f"{path}.{i}") for i, (part, now) in enumerate(zip(content, there, strict=False))]


def _read_tuple(reader: Reader, content: Any, live: Any, path: str) -> Any:
    items = _read_items(reader, content, live, path)
    return type(live)(*items) if hasattr(live, "_fields") else tuple(items)


def _write_deque(writer: Writer, value: Any, path: str) -> Any:
    return [value.maxlen, *_write_items(writer, value, path)]


def _read_deque(reader: Reader, content: Any, live: Any, path: str) -> Any:
    return collections.deque(_read_items(reader, content[1:], live, path), maxlen=content[0])


def _write_dict(writer: Writer, value: Any, path: str) -> Any:
    return [[writer.write(key, f"{path}.key"), writer.write(item, f"{path}.{key}")] for key, item in value.items()]


def _read_dict(reader: Reader, content: Any, live: Any, path: str) -> Any:
    there = live if isinstance(live, dict) else {}
    items = {}
    for key, item in content:
        key = reader.read(key, None, path)
        items[key] = reader.read(item, there.get(key), f"{path}.{key}")
    if type(there) is dict:
        return items
    result = copy.copy(there)  # a subclass: what it has beyond its items stays
    result.clear()
    result.update(items)
    return result


def _write_array(writer: Writer, value: np.ndarray, path: str) -> Any:
    return writer.tensor(th.from_numpy(np.array(value, order="C")), path)


def _read_array(reader: Reader, content: Any, live: Any, path: str) -> np.ndarray:
    return reader.tensors[content].numpy().copy()


def _write_items_array(writer: Writer, value: np.ndarray, path: str) -> Any:
    return [value.dtype.str, list(value.shape), _write_items(writer, value.ravel().tolist(), path)]


def _read_items_array(reader: Reader, content: Any, live: Any, path: str) -> np.ndarray:
    dtype, shape, items = content
    if math.prod(shape) != len(items) or not ITEMS.fullmatch(dtype):
        raise ResumeError(f"{path} is damaged: {len(items)} items of {dtype} are not an array of the shape {shape}")
    result = np.empty(math.prod(shape), dtype=dtype)
    for number, item in enumerate(_read_items(reader, items, None, path)):
        result[number] = item
    return result.reshape(shape)


def _read_tensor(reader: Reader, content: Any, live: Any, path: str) -> th.Tensor:
    saved = reader.tensors[content]
    if not isinstance(live, th.Tensor) or live.shape != saved.shape or live.dtype != saved.dtype:
        return saved.to(reader.device, copy=True)
    with th.no_grad():
        live.copy_(saved)
    return live


def _read_generator(reader: Reader, content: Any, live: Any, path: str) -> np.random.Generator:
    state = reader.read(content, None, path)
    if not isinstance(live, np.random.Generator) or type(live.bit_generator).__name__ != state["bit_generator"]:
        live = np.random.Generator(BIT_GENERATORS[state["bit_generator"]]())
    live.bit_generator.state = state
    return live


def _read_random_state(reader: Reader, content: Any, live: Any, path: str) -> np.random.RandomState:
    live = live if isinstance(live, np.random.RandomState) else np.random.RandomState()
    live.set_state(reader.read(content, None, path))
    return live


def _read_random(reader: Reader, content: Any, live: Any, path: str) -> random.Random:
    live = live if isinstance(live, random.Random) else random.Random()
    live.setstate(reader.read(content, None, path))
    return live


def _parts(space: Any) -> list[Any]:
    return list(space.spaces.values() if isinstance(space, spaces.Dict) else getattr(space, "spaces", ()))


def _write_space(writer: Writer, value: spaces.Space, path: str) -> Any:
    return [writer.write(value._np_random, path), *_write_items(writer, _parts(value), path)]


def _read_space(reader: Reader, content: Any, live: Any, path: str) -> Any:
    live._np_random = reader.read(content[0], live._np_random, path)
    _read_items(reader, content[1:], _parts(live), path)
    return live


KINDS = (
    Kind("float", lambda v: type(v) is float, lambda w, v, p: repr(v), lambda r, c, live, p: float(c)),
    Kind("enum", lambda v: isinstance(v, enum.Enum), lambda w, v, p: v.name, lambda r, c, live, p: type(live)[c]),
    Kind(
        "number",
        lambda v: isinstance(v, np.bool_ | np.number) and v.dtype.kind in "biuf",
        lambda w, v, p: [v.dtype.str, w.write(v.item(), p)],
        lambda r, c, live, p: np.dtype(c[0]).type(r.read(c[1], None, p)),
    ),
    Kind(
        "bytes",
        lambda v: type(v) is bytes,
        lambda w, v, p: base64.b64encode(v).decode(),
        lambda r, c, live, p: base64.b64decode(c),
    ),
    Kind("text", lambda v: isinstance(v, np.str_), lambda w, v, p: str(v), lambda r, c, live, p: np.str_(c)),
    Kind("list", lambda v: type(v) is list, _write_items, _read_items),
    Kind("tuple", lambda v: isinstance(v, tuple), _write_items, _read_tuple),
    Kind("set", lambda v: type(v) is set, _write_items, lambda r, c, live, p: set(_read_items(r, c, None, p))),
    Kind("deque", lambda v: isinstance(v, collections.deque), _write_deque, _read_deque),
    Kind("dict", lambda v: isinstance(v, dict), _write_dict, _read_dict),
    Kind("array", lambda v: type(v) is np.ndarray and v.dtype.kind in "biuf", _write_array, _read_array),
    Kind("items", lambda v: type(v) is np.ndarray and v.dtype.kind in "OUS", _write_items_array, _read_items_array),
    Kind("tensor", lambda v: isinstance(v, th.Tensor), lambda w, v, p: w.tensor(v, p), _read_tensor),
    Kind(
        "generator",
        lambda v: isinstance(v, np.random.Generator),
        lambda w, v, p: w.write(v.bit_generator.state, p),
        _read_generator,
    ),
    Kind(
        "random_state",
        lambda v: isinstance(v, np.random.RandomState),
        lambda w, v, p: w.write(v.get_state(legacy=False), p),
        _read_random_state,
    ),
    Kind("random", lambda v: isinstance(v, random.Random), lambda w, v, p: w.write(v.getstate(), p), _read_random),
    Kind("space", lambda v: isinstance(v, spaces.Space), _write_space, _read_space),
    Kind("object", _is_object, _write_object, _read_object),
)
