"""Values as they are now, in a form that can be compared later."""

import collections
import enum
import functools
import types
import typing
import weakref
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType, range, th.dtype, th.device)
# What does not change, or only by being replaced
CONSTANTS = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.GenericAlias,
    functools.partial,
    weakref.ref,
    enum.Enum,
    spaces.Space,
    th.Generator,
    th.layout,
    th.memory_format,
)
CONTAINERS = (dict, types.MappingProxyType, list, tuple, collections.deque, set, frozenset)
MAX_BYTES = 10_000  # of an array whose values are compared
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class written in Python
MISSING = object()
Snapshot = Any


class Same:
    """
    Equal to nothing but the same object; keeps it from being removed, so that no other takes its place.

    :param value: The object.
    """

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Unknown:
    """A value that may change without a trace: equal to nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def has_attributes_only(kind: type) -> bool:
    """
    :param kind: Class of an object.
    :return: Whether all that the object keeps is in its attributes, as of one whose class is written in Python.
    """
    return all(base in (object, typing.Generic) or base.__flags__ & HEAP_TYPE for base in kind.__mro__)


def elements(container: Any) -> list[Any]:
    """
    :param container: One of the ``CONTAINERS``.
    :return: Its elements; the values of a dictionary.
    """
    return list(container.values() if isinstance(container, dict | types.MappingProxyType) else container)


def snapshot(value: Any, device: th.device) -> Snapshot:
    """
    :param value: Any value.
    :param device: Device whose tensors are known by their place in memory; those elsewhere are read by the host.
    :return: What is equal to a later snapshot if, and only if, the value is the same then. Objects are the same if they are
        identical: their attributes are values of their own.
    """
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, th.Tensor):
        return _tensor_snapshot(value, device)
    if isinstance(value, th.optim.Optimizer):
        return _optimizer_snapshot(value, device)
    if isinstance(value, np.ndarray | np.generic):
        known = value.nbytes <= MAX_BYTES and not value.dtype.hasobject
        return (value.dtype.str, value.shape, value.tobytes()) if known else Unknown()
    if isinstance(value, CONTAINERS):
        return _container_snapshot(value, device)
    if isinstance(value, types.MethodType):
        return Same(value.__func__), Same(value.__self__)
    constant = value is MISSING or isinstance(value, CONSTANTS)
    return Same(value) if constant or has_attributes_only(type(value)) else Unknown()


def _container_snapshot(container: Any, device: th.device) -> Snapshot:
    parts = tuple(snapshot(element, device) for element in elements(container))
    if isinstance(container, dict | types.MappingProxyType):
        return Same(type(container)), tuple(Same(key) if isinstance(key, th.Tensor) else key for key in container), parts
    return Same(type(container)), frozenset(parts) if isinstance(container, set | frozenset) else parts


def _tensor_snapshot(tensor: th.Tensor, device: th.device) -> Snapshot:
    kind = Same(type(tensor)), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad
    if tensor.device.type == device.type:
        return *kind, tensor.data_ptr()
    known = tensor.nbytes <= MAX_BYTES
    return (*kind, tuple(tensor.detach().cpu().flatten().tolist())) if known else Unknown()


def _optimizer_snapshot(optimizer: th.optim.Optimizer, device: th.device) -> Snapshot:
    """:return: All of an optimizer but its learning rates, which graphs read anew."""
    groups = [{name: value for name, value in group.items() if name != "lr"} for group in optimizer.param_groups]
    return Same(optimizer), snapshot([groups, list(optimizer.state.values())], device)
