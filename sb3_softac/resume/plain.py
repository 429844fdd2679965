"""
Objects as plain data: JSON and named tensors, nothing that has to be executed to be read.

Objects are never created from a file. The saved values are restored into existing objects, which the same program has created
in the same way: numbers and containers are replaced, and random generators, tensors and attributes are set in place.
"""

import collections
import functools
import io
import logging
import math
import pathlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from stable_baselines3.common.logger import Logger

from sb3_softac.common.plain_files import leads_to_a_file

# What carries nothing from one step to the next: functions, types, settings, files, pictures and progress bars.
WITHOUT_STATE = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type, functools.partial, np.ufunc),
    *(EnvSpec, WrapperSpec, np.dtype, th.dtype, th.device, pathlib.PurePath),
    *(Logger, logging.Logger, io.IOBase),
)
# What decides where a program writes: it stays as the program has made it, whatever a file says.
TARGETS = (pathlib.PurePath, io.IOBase, Logger, logging.Logger)
# Kinds of values that may take the place of any other value. All other kinds are restored only into objects of the same kind.
VALUES = (
    *("float", "number", "bytes", "text", "list", "tuple", "set", "deque", "dict", "array", "items", "tensor", "episodes"),
    *("generator", "random_state", "random"),
)
CONTAINERS = (list, tuple, set, dict, collections.deque)
DISPLAYS = ("pygame", "matplotlib", "glfw", "OpenGL", "gymnasium.envs.mujoco.mujoco_rendering", "tqdm", "rich")


class ResumeError(RuntimeError):
    """The saved state cannot be read, or does not fit the objects that it should be restored into."""


class Kind(NamedTuple):
    """One kind of value: how to recognise, write and restore it."""

    name: str
    applies: Callable[[Any], bool]
    write: Callable[["Writer", Any, str], Any]
    """Of writer, value and path: the value as JSON."""
    read: Callable[["Reader", Any, Any, str], Any]
    """Of reader, JSON, the object that is there now (None for none) and path: the value."""


class Writer:
    """
    Turns values into JSON and tensors.

    :param kinds: Known kinds of values; the first one that applies is used.
    """

    def __init__(self, kinds: tuple[Kind, ...]):
        self.kinds = kinds
        self.tensors: dict[str, th.Tensor] = {}
        self.unknown: list[str] = []
        """Paths of values that are neither plain data nor known to have no state."""
        self.anew: list[str] = []
        """Vectorized environments whose episodes will start over, each with the reason."""
        self._seen: dict[int, tuple[int, Any]] = {}

    def write(self, value: Any, path: str) -> Any:
        """
        :param value: Any value.
        :param path: Its name, which is part of the names of its tensors.
        :return: The value as JSON.
        """
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return value
        if id(value) in self._seen:
            return {"same": self._seen[id(value)][0]}
        kind = next((kind for kind in self.kinds if kind.applies(value)), None)
        if kind is None:
            if not without_state(value):
                self.unknown.append(f"{path} ({_module(value)}.{type(value).__qualname__})")
            return {"kept": None}
        self._seen[id(value)] = len(self._seen), value  # the value is kept, so that no other gets its id
        return {kind.name: kind.write(self, value, path)}

    def tensor(self, value: th.Tensor, path: str) -> str:
        """
        :param value: A tensor.
        :param path: Its name.
        :return: The name under which it is stored.
        """
        name = path if path not in self.tensors else f"{path}#{len(self.tensors)}"
        self.tensors[name] = value.detach().cpu().clone(memory_format=th.contiguous_format)
        return name


class Reader:
    """
    Restores values.

    :param tensors: Tensors by name.
    :param kinds: Known kinds of values.
    :param device: Where tensors belong that have no present value.
    """

    def __init__(self, tensors: dict[str, th.Tensor], kinds: tuple[Kind, ...], device: th.device | str = "cpu"):
        self.tensors, self.device = tensors, device
        self.kinds = {kind.name: kind for kind in kinds}
        self.in_environment = False
        """Whether what is read belongs to an environment: there, text in containers is state, otherwise a setting."""
        self._values: list[Any] = []

    def read(self, written: Any, live: Any, path: str) -> Any:
        """
        :param written: The result of :meth:`Writer.write`.
        :param live: The present value; None if there is none.
        :param path: Its name, for errors.
        :return: The value. Objects, generators and tensors are ``live`` itself, changed.
        :raises ResumeError: if the present object is of a different kind.
        """
        return live if isinstance(live, TARGETS) else self._value(written, live, path)

    def _value(self, written: Any, live: Any, path: str) -> Any:
        if not isinstance(written, dict):
            return written
        if len(written) != 1:
            raise ResumeError(f"{path} is damaged: {sorted(written)[:9]} is not one value")
        ((name, content),) = written.items()
        if name == "kept":
            return live
        if name == "same":
            if type(content) is not int or not 0 <= content < len(self._values):
                raise ResumeError(f"{path} is damaged: it refers to a value that does not exist")
            return self._values[content]
        kind = self.kinds.get(name)
        if kind is None:
            raise ResumeError(f"{path} is damaged: {name[:99]!r} is not a kind of value")
        if name not in VALUES and name != "object" and not self._is_of(kind, live):
            raise ResumeError(f"{path} is a {type(live).__qualname__} now, but a value of the kind {name!r} was saved")
        number = len(self._values)
        self._values.append(live)  # for what refers to the object from within
        value = kind.read(self, content, live, path)
        self._values[number] = value
        return value

    def _is_of(self, kind: Kind, live: Any) -> bool:
        """:return: Whether a value like this one would be written as this kind."""
        return next((other for other in self.kinds.values() if other.applies(live)), None) is kind


def names_files(name: str, value: Any, within: tuple[int, ...] = ()) -> bool:
    """
    :param name: Name of an attribute.
    :param value: Its value.
    :param within: Identities of the containers around it.
    :return: Whether it contains text that may say which file is written.
    """
    if isinstance(value, str | bytes):
        return leads_to_a_file(name, value if isinstance(value, str) else value.decode(errors="replace"))
    if not isinstance(value, CONTAINERS) or id(value) in within:
        return False
    items = value.values() if isinstance(value, dict) else value
    return any(names_files(name, item, (*within, id(value))) for item in items)


def without_state(value: Any) -> bool:
    """
    :param value: Any value.
    :return: Whether its type is known to keep no state between steps.
    """
    return isinstance(value, WITHOUT_STATE) or _module(value).startswith(DISPLAYS)


def _module(value: Any) -> str:
    return getattr(type(value), "__module__", "")  # SWIG's types have none
