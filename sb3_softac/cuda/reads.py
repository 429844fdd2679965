"""
What a function reads from objects, found out by watching it, so that nobody has to keep a list.

While it is watched, an object belongs to a subclass of its class that notes every attribute that is looked up or set. Objects
that are found this way are watched from then on. Watching stops at tensors, optimizers and spaces, which are looked at as a
whole. What is read from elsewhere (globals, closures, files, clocks) is not seen.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch as th

from sb3_softac.cuda.snapshots import (
    CONSTANTS,
    CONTAINERS,
    MISSING,
    PLAIN,
    Snapshot,
    Unknown,
    elements,
    has_attributes_only,
    snapshot,
)

METHODS = (types.FunctionType, classmethod, staticmethod)
NOT_WATCHED = (*PLAIN, *CONSTANTS, th.Tensor, th.optim.Optimizer)
Place = tuple[int, str]
"""Identity of an object and name of its attribute."""


class Seen(NamedTuple):
    """The value that an attribute had."""

    value: Any
    quick: bool
    """Whether the same object is the same value: it has no elements, and its attributes are watched on their own."""
    snapshot: Snapshot


class Reads:
    """
    Attributes that a function has read from some objects, and from all that it reached from there.

    :param roots: The objects.
    :param device: Device whose tensors may have other elements next time.
    """

    def __init__(self, roots: tuple[Any, ...], device: th.device):
        self._roots, self._device = roots, device
        self._owners: dict[Place, Any] = {}
        self._set_first: set[Place] = set()
        self._watched: dict[int, tuple[Any, type]] = {}
        self._classes: dict[type, type | None] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note what is read in the meantime."""
        self._set_first = set()
        try:
            self._watch(list(self._roots))
            yield
        finally:
            watched, self._watched = self._watched, {}
            for owner, kind in watched.values():
                object.__setattr__(owner, "__class__", kind)

    def snapshots(self) -> dict[Place, Seen]:
        """:return: What all attributes that were read are now."""
        return {place: self._see(getattr(owner, place[1], MISSING)) for place, owner in self._owners.items()}

    def changed(self, before: dict[Place, Seen]) -> list[str]:
        """
        :param before: An earlier answer of :meth:`snapshots`.
        :return: Names of the attributes that are not what they were then, or of which it cannot be told.
        """
        owners = ((place, seen, self._owners[place]) for place, seen in before.items())
        changed = [place for place, seen, owner in owners if not self._is_same(getattr(owner, place[1], MISSING), seen)]
        return sorted({f"{type(self._owners[place]).__name__}.{place[1]}" for place in changed})

    def _see(self, value: Any) -> Seen:
        if isinstance(value, CONTAINERS):
            quick = not value
        else:
            quick = isinstance(value, (*PLAIN, *CONSTANTS)) or self._classes.get(type(value)) is not None
        return Seen(value, quick, self._snapshot(value))

    def _is_same(self, value: Any, seen: Seen) -> bool:
        # Nearly everything is the same object as before: no need to look into it
        if value is seen.value and seen.quick:
            return not value if isinstance(value, CONTAINERS) else True
        if type(value) is types.MethodType and type(seen.value) is types.MethodType:
            return value.__func__ is seen.value.__func__ and value.__self__ is seen.value.__self__
        return self._snapshot(value) == seen.snapshot

    def _snapshot(self, value: Any) -> Snapshot:
        return Unknown() if self._classes.get(type(value), object) is None else snapshot(value, self._device)

    def _watch(self, value: Any) -> None:
        if isinstance(value, types.MethodType):
            value = value.__self__
        if isinstance(value, CONTAINERS):
            for element in elements(value):
                self._watch(element)
        elif id(value) not in self._watched and not isinstance(value, NOT_WATCHED) and has_attributes_only(type(value)):
            kind = type(value)
            if kind is object:
                return  # has no attributes
            if kind not in self._classes:
                self._classes[kind] = self._watching_class(kind)
            watching = self._classes[kind]
            if watching is not None:
                object.__setattr__(value, "__class__", watching)
                self._watched[id(value)] = value, kind

    def _watching_class(self, kind: type) -> type | None:
        """:return: A subclass whose objects note what is read; None if there can be none."""

        def __getattribute__(owner: Any, name: str) -> Any:
            try:
                value = kind.__getattribute__(owner, name)  # type: ignore[call-arg]
            except AttributeError:
                value = self._fall_back(kind, owner, name)
                if value is MISSING:
                    raise
            self._note(kind, owner, name, value)
            return value

        def __setattr__(owner: Any, name: str, value: Any) -> None:
            if id(owner) in self._watched and (id(owner), name) not in self._owners:
                self._set_first.add((id(owner), name))
            kind.__setattr__(owner, name, value)  # type: ignore[call-arg]

        namespace = {
            "__slots__": (),
            "__module__": kind.__module__,
            "__getattribute__": __getattribute__,
            "__setattr__": __setattr__,
        }
        try:
            return type(kind)(kind.__name__, (kind,), namespace)
        except Exception:  # whatever a class does against being inherited from
            return None

    def _fall_back(self, kind: type, owner: Any, name: str) -> Any:
        """:return: What ``__getattr__`` has for an attribute, or ``MISSING``, which is noted as well."""
        try:
            return kind.__getattr__(owner, name) if hasattr(kind, "__getattr__") else self._note(kind, owner, name, MISSING)
        except AttributeError:
            return self._note(kind, owner, name, MISSING)

    def _note(self, kind: type, owner: Any, name: str, value: Any) -> Any:
        # An object that is not watched was made by the function itself
        if id(owner) in self._watched and not name.startswith("__"):
            if (id(owner), name) not in self._set_first and is_stored(kind, owner, name):
                self._owners[id(owner), name] = owner
            self._watch(value)
        return value


def is_stored(kind: type, owner: Any, name: str) -> bool:
    """
    :param kind: Class of an object.
    :param owner: The object.
    :param name: Name of an attribute.
    :return: Whether the attribute is kept as it is; False if it is computed, from others that are read then.
    """
    in_class = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    if isinstance(in_class, (*METHODS, types.MemberDescriptorType)) or not hasattr(type(in_class), "__get__"):
        return True
    return not hasattr(type(in_class), "__set__") and name in getattr(owner, "__dict__", {})
