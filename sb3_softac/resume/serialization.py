"""
Objects as plain data: JSON and named tensors. Nothing has to be executed to read them.

Objects are never created from the classes that a file names. The saved values are restored into existing objects, which the
same program has created in the same way. What is still the object that it was when training started is restored in place, so
that views, closures and other references to it see the restored values; what was replaced since is replaced again.
"""

import collections
import contextlib
import enum
import functools
import hashlib
import io
import logging
import math
import pathlib
import pickle
import random
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from stable_baselines3.common.logger import Logger

from sb3_softac.files.plain_files import leads_to_a_file
from sb3_softac.resume.describe import LONGEST, describe
from sb3_softac.resume.memory import Memory


class Baseline:
    """
    The objects of a program when training starts, by path. A program that is started again finds its own under the same
    paths.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.paths: dict[int, str] = {}
        """Path by id; the objects are held in ``objects``, so that their ids are not reused."""
        self._others: list[Any] = []
        self.attributes: dict[int, dict[str, Any]] = {}
        """The attributes of each object by its id."""
        self.contents: dict[int, str] = {}
        """Digests of objects that are neither plain data nor known to have no state, by id."""
        self.texts: dict[int, dict[str, str]] = {}
        """Descriptions of attributes that are not restored, of each object by its id."""
        self.trials: dict[str, str | None] = {}
        """What the trial of restoring environments has shown, by path; None for no difference."""
        self.classes: dict[type, dict[str, str]] = {}
        """Descriptions of the attributes of the users' classes."""
        self.protected: set[int] = set()
        """Ids of the containers with text that may say which file is written."""

    def add(self, value: Any, path: str) -> None:
        if names_files(path.rpartition(".")[2], value):
            self.protected |= ids_of_containers(value)
        if self.objects.setdefault(path, value) is value:
            self.paths.setdefault(id(value), path)
        else:  # what is put together only to be saved has the path of what it is made of
            self._others.append(value)

    def path_of(self, value: Any) -> str | None:
        """Where a value was when training started; None if it was not there."""
        return self.paths.get(id(value))

    def names(self, path: str) -> tuple[str, ...]:
        """The names that say what it is for: of an attribute, and of keys in it."""
        names: list[str] = []
        while path:
            path, _, name = path.rpartition(".")
            names.append(name)
            if path in self.objects and not isinstance(self.objects[path], CONTAINERS):
                break
        return tuple(names)


# Objects that keep no state between steps: types, settings, files that are written, pictures and progress bars.
WITHOUT_STATE = (
    *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type, np.ufunc, random.SystemRandom),
    *(EnvSpec, WrapperSpec, np.dtype, th.dtype, th.device, pathlib.PurePath),
    *(Logger, logging.Logger, Baseline),
)
# These decide where a program writes, and stay as the program made them, whatever a file says.
TARGETS = (pathlib.PurePath, io.IOBase, Logger, logging.Logger)
MUTABLE = (collections.OrderedDict, dict, list, set, collections.deque)
NOTHING: Mapping[int, tuple[Any, Any]] = types.MappingProxyType({})
NOWHERE = ""  # the path of what was not there when training started
KEPT: dict[str, Any] = {"kept": None}
LOST: dict[str, Any] = {"lost": None}
DEEPEST = 100  # Python's limit would depend on what has called this, and reading takes more of it than writing
CONTAINERS = (list, tuple, set, frozenset, dict, collections.deque)
SIMPLE = (types.NoneType, bool, int, float, complex, str, bytes, enum.Enum, np.generic, np.ndarray, th.Tensor)
# Start times of SB3's Monitor and Gymnasium's RecordEpisodeStatistics; the seed that an environment has drawn if it got none
DIFFERENT_EACH_TIME = (".t_start", ".episode_start_time", "._np_random_seed")
DEFINITIONS = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
# Whose classes and functions have no attributes that users change
LIBRARIES = ("builtins", "gymnasium", "stable_baselines3", "sb3_contrib", "sb3_softac", "numpy", "torch", "mujoco", "ale_py")
DISPLAYS = ("pygame", "matplotlib", "glfw", "OpenGL", "gymnasium.envs.mujoco.mujoco_rendering", "tqdm", "rich")
VALUES = ("pygame.math", "pygame.rect")  # vectors and rectangles


class ResumeError(ValueError):
    """The saved state cannot be read, or does not fit the objects that it should be restored into."""


class LostError(ResumeError):
    """The value could not be saved, and the program has none in its place."""


REMEDY = (
    "Objects are not created from files: create everything as the interrupted program did, or use a new"
    " folder; an environment that creates objects while it runs needs the methods get_state() and set_state(state)"
)


class Codec(NamedTuple):
    """How to recognise, write and restore one kind of value."""

    name: str
    applies: Callable[[Any], bool]
    write: Callable[["Writer", Any, str], Any]
    """Of writer, value and path: the value as JSON."""
    read: Callable[["Reader", Any, Any, str, bool], Any]
    """Of reader, JSON, the object that is there now (None for none), path, and whether to change it in place: the value."""
    plain: bool = False
    """Whether the value can be created from its JSON alone."""
    shared: bool = False
    """Whether it is always restored in place."""


class Writer:
    """Turns values into JSON and tensors."""

    def __init__(
        self, codecs: tuple[Codec, ...], baseline: Baseline | None = None, recording: bool = False, created: bool = False
    ):
        """:param created: Whether values have to be created when they are read, as what was put together only to be saved."""
        self.codecs, self.baseline, self.recording = codecs, baseline, recording
        self.memory = Memory(baseline if not recording else None)
        self.tensors = self.memory.tensors
        self.unknown: list[str] = []
        """Paths of values that are neither plain data nor known to have no state."""
        self.restarted: list[str] = []
        """Vectorized environments whose episodes will start over, each with the reason."""
        self.needs: dict[str, str] = {}
        """The classes of objects that must exist when the state is restored, by path."""
        self.classes: dict[type, None] = {}
        self.settings: dict[str, str] = {}
        """Texts of the simple values by path, to be compared with those of another program."""
        self._seen: dict[int, tuple[dict[str, Any] | None, Any]] = {}  # the values are held, so that their ids are not reused
        self._count = self._depth = 0
        self._detached = created

    def write(self, value: Any, path: str) -> Any:
        """A value as JSON; its path is part of the names of its tensors."""
        self.note_setting(value, path)
        if is_json(value):
            return value
        if self.recording and self.baseline is not None:
            self.baseline.add(value, path)
        if id(value) in self._seen:
            node = self._seen[id(value)][0]
            if node is None:
                return KEPT
            if "n" not in node:
                node["n"] = self._count
                self._count += 1
            return {"same": node["n"]}
        codec = next((codec for codec in self.codecs if codec.applies(value)), None)
        if codec is None:
            return self._keep(value, path) if without_state(value) else self._keep_unchanged(value, path)
        return self._write_node(codec, value, path)

    def _write_node(self, codec: Codec, value: Any, path: str) -> dict[str, Any]:
        node: dict[str, Any] = {}
        if self._detached and not codec.plain:
            return self.lose(f"{path} ({module_of(type(value))}.{type(value).__qualname__})")
        if self.baseline is not None and not self.recording:
            origin, name = self.baseline.path_of(value), class_name(value)
            if not codec.plain:
                template = self.baseline.objects.get(origin or path)
                if template is None or class_name(template) != name or _code_of(template) != _code_of(value):
                    return self.lose(f"{path} ({name}, created while the training runs)")
                self.needs[origin or path] = name
            if origin is not None:
                node["at"] = None if origin == path else origin
        self._seen[id(value)] = node, value
        if self._depth > DEEPEST:
            raise RecursionError
        self._depth += 1
        try:
            node[codec.name] = codec.write(self, value, path)
        finally:
            self._depth -= 1
        return node

    def lose(self, what: str) -> dict[str, Any]:
        """What stands for a value that cannot be saved."""
        self.unknown.append(what)
        return LOST

    def write_key(self, key: Any, path: str) -> Any:
        """A key or an item of a set: wholly, as one that was there when the training started, or not at all."""
        known = len(self.unknown)
        written = self.write(key, path)
        if self.baseline is not None and not self.recording and isinstance(written, dict):
            is_other = written == KEPT and self.baseline.objects.get(path) is not key
            if is_other or ("object" in written and "at" not in written):
                self.lose(f"{path} ({class_name(key)}, created while the training runs)")
        return written if len(self.unknown) == known else LOST

    def _keep(self, value: Any, path: str) -> dict[str, Any]:
        """Where a function or class was when training started; None if it was here."""
        if self.baseline is None or self.recording or not isinstance(value, DEFINITIONS):
            return KEPT
        if isinstance(value, types.FunctionType):
            self.needs[path] = "function"
        if self.baseline.objects.get(path) is value:
            return KEPT
        origin = self.baseline.path_of(value)
        if origin is None:
            return self.lose(f"{path} (it has become {getattr(value, '__qualname__', value)} while the training ran)")
        return {"kept": origin}

    def _keep_unchanged(self, value: Any, path: str) -> dict[str, Any]:
        """An object of any other kind stays as the program creates it, provided it has not changed since the start."""
        digest = None if self.baseline is None else _digest(value)
        if self.baseline is not None and self.recording and digest is not None:
            self.baseline.contents[id(value)] = digest
        elif digest is None or self.baseline is None or self.baseline.contents.get(id(value)) != digest:
            return self.lose(f"{path} ({module_of(type(value))}.{type(value).__qualname__})")
        origin = self.baseline.path_of(value)
        return {"kept": None if origin == path else origin}

    def note_setting(self, value: Any, path: str) -> None:
        is_setting = self.baseline is not None and isinstance(value, SIMPLE) and not path.endswith(DIFFERENT_EACH_TIME)
        if is_setting and not names_files(path.rpartition(".")[2], value):
            self.settings |= describe(value, path)

    def note_classes(self, value: Any) -> None:
        self.classes.update((cls, None) for cls in type(value).__mro__ if module_of(cls).split(".")[0] not in LIBRARIES)

    def leave(self, value: Any) -> None:
        self._seen[id(value)] = None, value

    def write_data(self, value: Any, path: str) -> Any:
        """:meth:`write` of what was put together only to be saved, for :meth:`Reader.read_data`."""
        before = self.baseline, self.memory.baseline, self._detached
        self.baseline, self.memory.baseline, self._detached = None, None, self._detached or self.baseline is not None
        try:
            return self.write(value, path)
        finally:
            self.baseline, self.memory.baseline, self._detached = before


class Reader:
    def __init__(
        self,
        tensors: dict[str, th.Tensor],
        codecs: tuple[Codec, ...],
        device: th.device | str = "cpu",
        baseline: Baseline | None = None,
    ):
        self.tensors, self.device, self.baseline = tensors, device, baseline
        self.codecs = {codec.name: codec for codec in codecs}
        self.blocks: dict[str, np.ndarray] = {}
        self.changes: list[Callable[[], Any]] = []
        """What is to be done to live objects once everything has been read and nothing was wrong with it."""
        self.restarted: list[str] = []
        """Vectorized environments whose episodes will start over, each with the reason."""
        self._planned: dict[int, tuple[Any, Any]] = {}
        """By id of a container: the container, and what it is going to contain."""
        self._protected = set() if baseline is None else set(baseline.protected)
        self._names: tuple[str, ...] = ()
        """Of what is being read: of the attribute, and of keys in it."""
        self._is_data = False
        """Whether what is being read was put together only to be saved."""
        self._is_discarded = False
        """Whether what is being read is part of a container that stays as it is."""
        self._values: dict[int | None, Any] = {}
        self._number: int | None = None
        self._used: set[int] = set()

    def read(self, written: Any, live: Any, path: str) -> Any:
        """
        The value. Objects that have not been replaced during the training are ``live`` itself, changed. Text that may say
        which file is written is never read: what the program has in its place stays.
        """
        return live if isinstance(live, TARGETS) else self._admit(self._value(written, live, path), live, path)

    def read_attribute(self, written: Any, live: Any, path: str, name: str) -> Any:
        """:meth:`read` of an attribute or variable with a name, which may say that its text leads to a file."""
        if names_files(name, live):
            self._protected |= ids_of_containers(live)
        with self._reading(names=(name,), is_data=False, is_discarded=False):
            return self.read(written, live, path)

    def read_item(self, written: Any, live: Any, path: str, key: Any) -> Any:
        """:meth:`read` of an item of a dictionary."""
        with self._reading(names=(*self._names, key) if self._names and isinstance(key, str) else self._names):
            return self.read(written, live, path)

    def read_key(self, written: Any, path: str, **context: Any) -> Any:
        """:meth:`read` of a key or an item of a set: the one that the program has at this place, or one of its kind."""
        live = None if self.baseline is None or written == LOST else self.baseline.objects.get(path)
        with self._reading(**context):
            return self.read(written, live, path)

    def read_data(self, written: Any, path: str) -> Any:
        """:meth:`read` of what was put together only to be saved: a new value, in which text may be anything."""
        with self._reading(names=(), is_data=True):
            return self.read(written, None, path)

    @contextlib.contextmanager
    def _reading(self, **context: Any) -> Iterator[None]:
        context = {f"_{name}": value for name, value in context.items()}
        outside = {name: getattr(self, name) for name in context}
        vars(self).update(context)
        try:
            yield
        finally:
            vars(self).update(outside)

    def change(self, function: Callable[..., Any], *args: Any) -> None:
        """Change something when everything has been read; what was put together only to be saved, at once."""
        if self._is_data:
            function(*args)
        else:
            self.changes.append(functools.partial(function, *args))

    def refill(self, container: Any, items: Any, fill: Callable[[Any, Any], Any]) -> Any:
        """Change what a container contains, unless it stays as it is, by the methods of its base: a user's may do more."""
        if not self.stays(container):
            base: Any = next((cls for cls in MUTABLE if isinstance(container, cls)), None)
            if base is not None:
                self.change(base.clear, container)
            self.change(fill, container, items)
            self._planned[id(container)] = container, items
        return container

    def apply(self) -> None:
        """Change the live objects."""
        for change in self.changes:
            change()
        self.changes.clear()

    def stays(self, container: Any) -> bool:
        """Whether a container stays as the program has made it, because it says which files are written."""
        return id(container) in self._protected

    def _admit(self, value: Any, live: Any, path: str) -> Any:
        """The value, or the live one if the value may say which file is written."""
        is_new = value is not live and not self.stays(value) and not self._is_discarded
        if not is_new or not any(names_files(name, value, planned=self._planned) for name in self._names):
            return value
        if isinstance(live, str | bytes) and isinstance(value, str | bytes):
            return live
        raise LostError(f"{path} may say which file is written, which a checkpoint must not decide")

    def _value(self, written: Any, live: Any, path: str) -> Any:
        if not isinstance(written, dict):
            return written
        names = [name for name in written if name not in ("at", "n")]
        if len(names) != 1:
            raise ResumeError(f"{path} is damaged: {sorted(written)[:9]} is not one value")
        (name,), content = names, written[names[0]]
        if name == "lost" and live is None:
            raise LostError(f"{path} could not be saved")
        if name in ("kept", "lost"):  # as this program has created it
            return live if self.baseline is None or content is None else self.baseline.objects.get(content, live)
        if name == "same":
            return self._values.get(content, live)  # missing where the program's own settings are used
        if name not in self.codecs:
            raise ResumeError(f"{path} is damaged: {name[:99]!r} is not a kind of value")
        origin = written["at"] if "at" in written and not self._is_data else NOWHERE
        return self._read_node(self.codecs[name], content, live, path, origin, written.get("n"))

    def _read_node(self, codec: Codec, content: Any, live: Any, path: str, origin: str | None, number: int | None) -> Any:
        names, in_place = self._names, codec.shared
        if self.baseline is None:
            in_place |= id(live) not in self._used
        elif origin != NOWHERE:
            live = self.baseline.objects.get(origin or path, live)
            names += self.baseline.names(origin) if names and origin else ()
            # Nothing changes within a container that stays, except the objects in it
            in_place |= not self._is_discarded or self.stays(live) or not _is_container(live)
        if not codec.plain and not self._is_of(codec, live):
            raise ResumeError(f"{path} is {_called(live)} now, but {_saved_class(codec.name, content)} was saved. {REMEDY}")
        if live is not None:
            self._used.add(id(live))
        self._number = number
        self._values[number] = live
        with self._reading(names=names, is_discarded=self._is_discarded or (in_place and self.stays(live))):
            self._values[number] = codec.read(self, content, live, path, in_place)
        return self._values[number]

    def _is_of(self, codec: Codec, live: Any) -> bool:
        """Whether a value like this one would be written as this kind."""
        return next((other for other in self.codecs.values() if other.applies(live)), None) is codec

    def announce(self, value: Any) -> Any:
        self._values[self._number] = value
        return value


def names_files(name: str, value: Any, within: tuple[int, ...] = (), planned: Mapping[int, tuple[Any, Any]] = NOTHING) -> bool:
    """Whether an attribute with this name and value contains text that may say which file is written."""
    if isinstance(value, str | bytes):
        return leads_to_a_file(name, value if isinstance(value, str) else value.decode(errors="replace"))
    if not _is_container(value) or id(value) in within:
        return False
    if len(within) > DEEPEST:
        return True
    _, content = planned.get(id(value), (value, value))
    within = (*within, id(value))
    return any(
        names_files(name, item, within, planned) or (isinstance(key, str) and names_files(key, item, within, planned))
        for key, item in _items(content)
    )


def ids_of_containers(value: Any) -> set[int]:
    """The identities of a container and of those within it."""
    found: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if _is_container(part) and id(part) not in found:
            found.add(id(part))
            waiting.extend(item for _, item in _items(part))
    return found


def _is_container(value: Any) -> bool:
    return isinstance(value, CONTAINERS) or (isinstance(value, np.ndarray) and value.dtype.kind in "OU")


def _items(container: Any) -> Iterable[tuple[Any, Any]]:
    """The items, each with its key in a dictionary or None."""
    if isinstance(container, dict):
        return dict.items(container)
    return ((None, item) for item in (container.ravel().tolist() if isinstance(container, np.ndarray) else container))


def check_needs(needs: dict[str, str], baseline: Baseline) -> None:
    for path, name in needs.items():
        live = baseline.objects.get(path)
        if class_name(live) != name and not (name == "function" and isinstance(live, types.FunctionType)):
            raise ResumeError(f"{path} is {_called(live)} now, but a {name} was saved. {REMEDY}")


def _digest(value: Any) -> str | None:
    """That of the content; None if it is not known."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # whatever an object does that cannot be pickled
        return None


def is_json(value: Any) -> bool:
    """Whether JSON has the value."""
    if type(value) is int:
        return value.bit_length() <= LONGEST
    return value is None or type(value) in (bool, str) or (type(value) is float and math.isfinite(value))


def without_state(value: Any) -> bool:
    """Whether the type of a value is known to keep no state between steps."""
    if isinstance(value, io.IOBase):
        return value.closed or not value.readable()  # the position in a file that is read is a state
    module = module_of(type(value))
    is_display = any(f"{module}.".startswith(f"{display}.") for display in DISPLAYS) and module not in VALUES
    return isinstance(value, WITHOUT_STATE) or is_display


def class_name(value: Any) -> str:
    """The qualified name of its class; of a function, its own."""
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__}({', '.join(value.__code__.co_freevars)})"
    return type(value).__qualname__


def _code_of(value: Any) -> Any:
    """What a function does; of a method that is written in C, its name."""
    if isinstance(value, types.FunctionType):
        return value.__code__
    return value.__name__ if isinstance(value, types.BuiltinFunctionType) else None


def _called(live: Any) -> str:
    return "nothing" if live is None else f"a {class_name(live)}"


def _saved_class(kind: str, content: Any) -> str:
    return f"a {content['class']}" if isinstance(content, dict) and "class" in content else f"a value of the kind {kind!r}"


def module_of(cls: type) -> str:
    """Name of the module that a class is from; an empty text for SWIG's types, which name none."""
    return getattr(cls, "__module__", "")
