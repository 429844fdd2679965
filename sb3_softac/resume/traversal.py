"""
Objects as plain data: JSON and named tensors, nothing that has to be executed to be read.

Objects are never created from the classes that a file names. The saved values are restored into existing objects, which the
same program has created in the same way. What is still the object that it was when training started is restored in place, so
that views, closures and other references to it see the restored values; what was replaced since is replaced again.

A value is a node ``{codec: content}``; numbers, text, true, false and null stand for themselves. Next to the codec's name stand
``at``, the path of the object when training started (null: this path), and ``n``, the number by which ``{"same": n}`` refers to it.
"""

import collections
import hashlib
import io
import logging
import math
import pathlib
import pickle
import random
import types
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from sb3_softac.files.plain_files import leads_to_a_file
from sb3_softac.resume.arrays import Memory

DEFINITIONS = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
# What decides where a program writes: it stays as the program has made it, whatever a file says.
TARGETS = (pathlib.PurePath, io.IOBase, Logger, logging.Logger)
# Whose classes and functions have no attributes that users change
LIBRARIES = ("builtins", "gymnasium", "stable_baselines3", "sb3_contrib", "sb3_softac", "numpy", "torch", "mujoco", "ale_py")
DISPLAYS = ("pygame", "matplotlib", "glfw", "OpenGL", "gymnasium.envs.mujoco.mujoco_rendering", "tqdm", "rich")
REMEDY = (
    "Objects are not created from files: create everything as the interrupted program did, or use a new"
    " folder; an environment that creates objects while it runs needs the methods get_state() and set_state(state)"
)
SHORT = 8
"""Number of elements up to which the values of an array are shown."""


class ResumeError(ValueError):
    """The saved state cannot be read, or does not fit the objects that it should be restored into."""


class LostError(ResumeError):
    """A value cannot be saved, or was not, and the program has none in its place."""


class StartObjects:
    """The objects of a program when training starts, by path. A program that is started again has its own at the same paths."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.paths: dict[int, str] = {}
        """Path by id. All objects are held, so that no other gets their id."""
        self.held: list[Any] = []
        self.attributes: dict[int, dict[str, tuple[Any, str | None]]] = {}
        """By id of an object: its attributes, with a text of those that may name a file."""
        self.pickles: dict[int, str | None] = {}
        """Digests of the objects that no codec knows, by id."""
        self.classes: dict[str, tuple[type, dict[str, str]]] = {}
        """The users' classes by name, with their attributes as texts."""
        self.settings: dict[str, str] = {}
        """Values that may differ in a program that is started again, as texts."""
        self.trials: dict[str, str | None] = {}
        """Of restoring environments, by path: what differed."""

    def add(self, value: Any, path: str) -> None:
        self.held.append(value)
        if self.objects.setdefault(path, value) is value:
            self.paths.setdefault(id(value), path)

    def replace_settings(self, path: str, texts: dict[str, str]) -> None:
        """The values below a path that the program has are those of a checkpoint."""
        self.settings = {name: text for name, text in self.settings.items() if not name.startswith(f"{path}.")} | texts


class Codec(NamedTuple):
    """How one kind of value is recognised, encoded and restored."""

    name: str
    applies: Callable[[Any], bool]
    encode: Callable[["Encoder", Any, str], Any]
    """Of encoder, value and path: the content of its node."""
    decode: Callable[["Decoder", Any, Any, str, bool], Any]
    """Of decoder, content, the live value or None, path, and whether to change the live value: the value."""
    creates: tuple[type, ...] = ()
    """The types whose values can be created from their content alone."""
    in_place: bool = False
    """Whether it is always restored in place."""


class Fresh(NamedTuple):
    """A value that is put together only to be saved: nobody else refers to it."""

    value: Any


class Encoder:
    """Turns values into nodes; while it is recording, it notes the objects at the start instead of comparing with them."""

    def __init__(self, codecs: tuple[Codec, ...], start: StartObjects, recording: bool = False):
        self.codecs, self.start, self.recording = codecs, start, recording
        self.memory = Memory(copying=not recording)
        self.lost: list[str] = []
        """What cannot be saved, with the reason."""
        self.restarted: list[str] = []
        """Vectorized environments whose episodes will start over, with the reason."""
        self.needs: dict[str, str] = {}
        """The classes of objects that must exist when the state is restored, by path."""
        self.classes: dict[type, None] = {}
        self.settings: dict[str, str] = {}
        """Values that have not changed since the start, as texts by name."""
        self._nodes: dict[int, tuple[dict[str, Any] | None, Any]] = {}  # the values are held: no other gets their id
        self._count = 0
        self.is_fresh = False

    def encode(self, value: Any, path: str) -> Any:
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return value
        if type(value) is Fresh:
            outside, self.is_fresh = self.is_fresh, True
            node = self.encode(value.value, path)
            self.is_fresh = outside
            return node
        if self.recording and not self.is_fresh:
            self.start.add(value, path)
        if id(value) in self._nodes:
            node = self._nodes[id(value)][0]
            if node is None:
                return {"kept": None}
            if "n" not in node:
                node["n"], self._count = self._count, self._count + 1
            return {"same": node["n"]}
        codec = next((codec for codec in self.codecs if codec.applies(value)), None)
        try:
            return self._keep(value, path) if codec is None else self._node(codec, value, path)
        except LostError as error:
            self.lost.append(f"{path} ({error})")
            return {"lost": None}

    def _node(self, codec: Codec, value: Any, path: str) -> dict[str, Any]:
        node: dict[str, Any] = {}
        can_be_created = type(value) in codec.creates
        if self.is_fresh and not can_be_created:
            raise LostError(full_name(type(value)))
        if not self.recording and not self.is_fresh:
            origin, name = self.start.paths.get(id(value)), class_name(value)
            if not can_be_created:
                template = self.start.objects.get(origin or path)
                if template is None or class_name(template) != name:
                    raise LostError(f"{name}, created while the training runs")
                self.needs[origin or path] = name
            if origin is not None:
                node["at"] = None if origin == path else origin
        self._nodes[id(value)] = node, value
        node[codec.name] = codec.encode(self, value, path)
        return node

    def _keep(self, value: Any, path: str) -> dict[str, Any]:
        """What no codec knows stays as the program creates it, if it is and contains what it did at the start."""
        known, text = is_stateless(value), {"is": describe(value)} if isinstance(value, DEFINITIONS) else {}
        if known and (self.recording or self.is_fresh or not isinstance(value, DEFINITIONS)):
            return {"kept": None} | text
        digest = None if known else _digest_of_pickle(value)
        if self.recording and not self.is_fresh:
            self.start.pickles[id(value)] = digest
            return {"kept": None}
        if not known and (digest is None or self.is_fresh or self.start.pickles.get(id(value)) != digest):
            raise LostError(full_name(type(value)))
        if isinstance(value, types.FunctionType):
            self.needs[path] = "function"
        origin = path if self.start.objects.get(path) is value else self.start.paths.get(id(value))
        if origin is None:
            raise LostError(f"it has become {getattr(value, '__qualname__', value)} while the training ran")
        return {"kept": None if origin == path else origin} | text

    def leave(self, value: Any) -> None:
        """Do not save an object that is restored otherwise."""
        self._nodes[id(value)] = None, value

    def note_classes(self, value: Any) -> None:
        """The classes of an object, except those of libraries, may have attributes that change."""
        self.classes.update((cls, None) for cls in type(value).__mro__ if module_of(cls).split(".")[0] not in LIBRARIES)

    def note_settings(self, texts: dict[str, str]) -> None:
        """Note values that may differ in a program that is started again, as far as they have not changed since the start."""
        if self.recording:
            self.start.settings |= texts
        self.settings |= {name: text for name, text in texts.items() if self.start.settings.get(name) == text}

    def document(self, nodes: dict[str, Any]) -> dict[str, Any]:
        """What the encoder has made of some values, with all that is needed to restore them."""
        classes = self.encode_classes()
        self.lost.extend(self.memory.connect(self.start.paths))
        return {"nodes": nodes, "classes": classes, "needs": self.needs, "settings": self.settings}

    def encode_classes(self) -> dict[str, Any]:
        """The attributes of the classes of objects that have changed since the start."""
        written: dict[str, Any] = {}
        done: set[type] = set()
        while classes := [cls for cls in self.classes if cls not in done]:
            for cls in classes:
                done.add(cls)
                name, n_lost = f"{cls.__module__}.{cls.__qualname__}", len(self.lost)
                content = encode_attributes(self, cls, _class_attributes(cls), name)
                texts = leaves_of(content["attributes"], self.memory.tensors)
                if self.recording:
                    self.start.classes[name] = cls, texts
                if self.start.classes.get(name, (cls, texts)) != (cls, texts):
                    written[name] = content
                else:  # whatever else it contains has not changed either
                    del self.lost[n_lost:]
        return written


class Decoder:
    """Restores values from nodes."""

    def __init__(
        self, codecs: tuple[Codec, ...], start: StartObjects, tensors: dict[str, th.Tensor], device: th.device | str = "cpu"
    ):
        self.codecs, self.start, self.tensors, self.device = {codec.name: codec for codec in codecs}, start, tensors, device
        self.blocks: dict[str, np.ndarray] = {}
        """Memory that several arrays share."""
        self.restarted: list[str] = []
        """Vectorized environments whose episodes will start over, with the reason."""
        self._values: dict[Any, Any] = {}
        self._number: int | None = None

    def decode(self, node: Any, live: Any, path: str) -> Any:
        """Restore a value; an object that has not been replaced during the training is ``live`` itself, changed."""
        if isinstance(live, TARGETS):
            return live
        if not isinstance(node, dict):
            return node
        names = [name for name in node if name not in ("at", "n", "is")]
        if len(names) != 1:
            raise ResumeError(f"{path} is damaged: {sorted(node)[:9]} is not one value")
        name, content = names[0], node[names[0]]
        if name in ("kept", "lost"):
            if name == "lost" and live is None:
                raise LostError(f"{path} could not be saved")
            return live if content is None else self.start.objects.get(content, live)
        if name == "same":
            return self._values.get(content, live)  # there is none if the program's own settings are used instead
        if name not in self.codecs:
            raise ResumeError(f"{path} is damaged: {name[:99]!r} is not a kind of value")
        codec = self.codecs[name]
        if "at" in node:
            live = self.start.objects.get(node["at"] or path, live)
        saved = content.get("class") if isinstance(content, dict) else None
        can_be_created = bool(codec.creates) if saved is None else saved in {cls.__name__ for cls in codec.creates}
        if not can_be_created and not self._fits(codec, live, saved):
            raise ResumeError(f"{path} is {_called(live)} now, but a {saved or name} was saved. {REMEDY}")
        self._number = number = node.get("n")
        self._values[number] = live
        self._values[number] = codec.decode(self, content, live, path, "at" in node or codec.in_place)
        return self._values[number]

    def _fits(self, codec: Codec, live: Any, saved: str | None) -> bool:
        """Whether an object would be saved by this codec, and is of the saved class."""
        same_class = saved is None or class_name(live) == saved
        return same_class and next((other for other in self.codecs.values() if other.applies(live)), None) is codec

    def announce(self, value: Any) -> Any:
        """Tell which object is being restored, before its parts are, which may refer to it."""
        self._values[self._number] = value
        return value

    def decode_classes(self, written: dict[str, Any]) -> None:
        for name, content in written.items():
            if name not in self.start.classes:
                raise ResumeError(f"The class {name} is not there: create everything as the interrupted program did")
            cls = self.start.classes[name][0]
            decode_attributes(self, content, cls, name, _class_attributes(cls))


# Attributes


def encode_attributes(encoder: Encoder, value: Any, attributes: dict[str, Any], path: str, texts: bool = True) -> Any:
    """
    Text that has not changed is a setting: that of the program that resumes holds. Other text is saved if ``texts`` says so and
    if it cannot be the name of a file.
    """
    now = {name: (part, repr(part) if names_files(name, part) else None) for name, part in attributes.items()}
    before = encoder.start.attributes.get(id(value), {})
    nodes = {}
    for name, (part, text) in now.items():
        old, old_text = before.get(name, (None, None))
        if encoder.recording:
            nodes[name] = encoder.encode(part, f"{path}.{name}")
        elif text is None and _is_text(part) and type(part) is type(old) and part == old:
            nodes[name] = {"kept": None, "is": repr(part)}
        elif text is not None and text == old_text and _is_only_text(part):
            pass
        elif text is not None or (_is_text(part) and not texts):
            encoder.lost.append(f"{path}.{name} (text that may name a file, or that is expected to be a setting)")
        elif part is not None and old is not None and _is_text(part) != _is_text(old):
            encoder.lost.append(f"{path}.{name} (it has become {type(part).__name__} from {type(old).__name__})")
        else:
            nodes[name] = encoder.encode(part, f"{path}.{name}")
    gone = [name for name in before if name not in attributes]
    if encoder.recording:
        encoder.start.attributes[id(value)] = now
        encoder.start.held.append(value)
    return {"attributes": nodes} | ({"gone": gone} if gone else {})


def decode_attributes(
    decoder: Decoder, content: Any, live: Any, path: str, there: dict[str, Any], texts: bool = True, left_out: Any = ()
) -> None:
    """Restore what :func:`encode_attributes` would save of an object with the attributes ``there``, and nothing else."""
    cls = live if isinstance(live, type) else type(live)
    for name, node in content["attributes"].items():
        now = there.get(name)
        if name in left_out or (isinstance(node, str) and not texts):
            raise ResumeError(f"{path}.{name} is not something that a checkpoint contains: the checkpoint was changed")
        if name not in there and callable(getattr(cls, name, None)):
            raise ResumeError(f"{path}.{name} is a method, not something that a checkpoint contains")
        if names_files(name, now) or (_is_text(now) and not texts):
            continue
        try:
            value = decoder.decode(node, now, f"{path}.{name}")
        except LostError:  # it stays as the program has made it
            continue
        if names_files(name, value) or (_is_text(value) and not texts):
            continue
        if now is not None and value is not None and _is_text(now) != _is_text(value):
            raise ResumeError(f"{path}.{name} is {now!r:.99} now, but {type(value).__name__} was saved")
        if name not in there or value is not now:
            set_attribute(live, name, value)
    for name in content.get("gone", ()):
        if name in there and name not in left_out and not names_files(name, there[name]):
            _delete_attribute(live, name)


def _slots(cls: type) -> dict[str, Any]:
    return {
        name: part
        for base in reversed(cls.__mro__)
        for name, part in vars(base).items()
        if isinstance(part, types.MemberDescriptorType) and "__slots__" in vars(base)
    }


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object by name, those in ``__slots__`` included."""
    slots = {}
    for name, slot in _slots(type(value)).items():
        try:
            slots[name] = slot.__get__(value)
        except AttributeError:  # not set
            pass
    return slots | getattr(value, "__dict__", {})


def _class_attributes(cls: type) -> dict[str, Any]:
    """The attributes of a class that are neither methods nor other definitions."""
    return {
        name: part
        for name, part in vars(cls).items()
        if not (name.startswith("__") or name == "_abc_impl" or callable(part) or hasattr(part, "__get__"))
    }


def set_attribute(live: Any, name: str, value: Any) -> None:
    """Not by ``setattr``, from which something else might follow."""
    slot = _slots(type(live)).get(name)
    if isinstance(live, type):
        type.__setattr__(live, name, value)
    elif slot is None:
        live.__dict__[name] = value
    else:
        slot.__set__(live, value)


def _delete_attribute(live: Any, name: str) -> None:
    slot = _slots(type(live)).get(name)
    if isinstance(live, type):
        type.__delattr__(live, name)
    elif slot is None:
        live.__dict__.pop(name, None)
    else:
        slot.__delete__(live)


def consists_of_attributes(value: Any) -> bool:
    """What takes up more room than an object of a plain class holds something else: items, structures of C."""
    cls = type(value)
    pointers = len({id(slot) for slot in _slots(cls).values()}) * np.dtype(np.uintp).itemsize
    only_attributes = cls.__basicsize__ <= _Plain.__basicsize__ + pointers and (hasattr(value, "__dict__") or pointers > 0)
    known = is_stateless(value) or module_of(cls).split(".")[0] == "pandas"
    return only_attributes and not known and not issubclass(cls, type) and cls.__itemsize__ == 0


class _Plain:
    """An object that consists only of attributes."""


def check_needs(needs: dict[str, str], start: StartObjects) -> None:
    """
    :param needs: The classes of objects that a state is restored into, by path.
    :param start: The objects of this program.
    :raises ResumeError: if one of them is not there.
    """
    for path, name in needs.items():
        live = start.objects.get(path)
        if class_name(live) != name and not (name == "function" and isinstance(live, types.FunctionType)):
            raise ResumeError(f"{path} is {_called(live)} now, but a {name} was saved. {REMEDY}")


# What values are


def names_files(name: str, value: Any, within: tuple[int, ...] = ()) -> bool:
    """Whether an attribute is or contains text that may say which file is written."""
    if isinstance(value, str | bytes):
        return leads_to_a_file(name, value if isinstance(value, str) else value.decode(errors="replace"))
    if not isinstance(value, list | tuple | set | dict | collections.deque) or id(value) in within:
        return False
    items = value.values() if isinstance(value, dict) else value
    return any(names_files(name, item, (*within, id(value))) for item in items)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _is_only_text(value: Any) -> bool:
    if isinstance(value, list | tuple | set | dict | collections.deque):
        return all(map(_is_only_text, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, str | bytes | bool | int | float)


def is_stateless(value: Any) -> bool:
    """Types, settings, files that are written, pictures and progress bars carry nothing from one step to the next."""
    if isinstance(value, io.IOBase):
        return value.closed or not value.readable()  # the position in a file that is read is a state
    settings = (
        np.ufunc,
        random.SystemRandom,
        EnvSpec,
        WrapperSpec,
        np.dtype,
        th.dtype,
        th.device,
        StartObjects,
        BaseAlgorithm,
    )
    return isinstance(value, (*DEFINITIONS, *TARGETS, *settings)) or module_of(type(value)).startswith(DISPLAYS)


def _digest_of_pickle(value: Any) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # whatever an object does that cannot be pickled
        return None


def module_of(cls: type) -> str:
    return getattr(cls, "__module__", "")  # SWIG's types have none


def full_name(cls: Any) -> str:
    return f"{getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', cls)}"


def class_name(value: Any) -> str:
    """The qualified name of the class of a value; of a function, its own."""
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__}({', '.join(value.__code__.co_freevars)})"
    return type(value).__qualname__


def _called(live: Any) -> str:
    return "nothing" if live is None else f"a {class_name(live)}"


# Readable texts


def describe(value: Any) -> str:
    """A class or function as text; functions with other code have another one."""
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__} {zlib.crc32(_code(value.__code__)):08x}"
    return full_name(value)


def _code(code: types.CodeType) -> bytes:
    constants = [_code(part) if isinstance(part, types.CodeType) else repr(part).encode() for part in code.co_consts]
    return b"|".join([code.co_code, *constants, *(name.encode() for name in code.co_names)])


NOT_SHOWN = "..."
# Random generators, and what is more than a setting
HIDDEN = {
    *("bits", "generator", "random_state", "random", "torch_generator", "space", "same", "lost"),
    *("vec_env", "callback", "protocol", "episodes"),
}


def leaves(node: Any, tensors: dict[str, th.Tensor], name: str) -> dict[str, str]:
    """The simple values in a node as texts, by name."""
    if not isinstance(node, dict):
        return {} if names_files(name.rpartition(".")[2], node) else {name: repr(node)}
    kind, content = next((kind, content) for kind, content in node.items() if kind not in ("at", "n", "is"))
    if kind == "kept":
        return {name: node["is"]} if "is" in node else {}
    if kind in HIDDEN:
        return {name: NOT_SHOWN}
    if kind in ("array", "tensor"):
        return {name: _array_text(content, tensors)}
    if not isinstance(content, dict):
        return {name: str(content)}
    parts = content.get("parts", {})
    if isinstance(parts, list) and not any(isinstance(part, dict) for part in parts) and "keys" not in content:
        texts = {} if names_files(name.rpartition(".")[2], parts) else {name: str(parts)}
    else:
        keys = [str(key) if isinstance(key, str | int) else str(i) for i, key in enumerate(content.get("keys", ()))]
        texts = leaves_of(dict(zip(keys, parts, strict=True)) if "keys" in content else parts, tensors, name)
    own = {name: content["is"]} if "is" in content else {}
    return own | texts | leaves_of(content.get("attributes", {}), tensors, name)


def leaves_of(nodes: Any, tensors: dict[str, th.Tensor], name: str = "") -> dict[str, str]:
    """:func:`leaves` of a list or dictionary of nodes."""
    named = nodes if isinstance(nodes, dict) else {str(i): node for i, node in enumerate(nodes)}
    return {
        leaf: text
        for key, node in named.items()
        for leaf, text in leaves(node, tensors, f"{name}.{key}" if name else key).items()
    }


def _array_text(content: Any, tensors: dict[str, th.Tensor]) -> str:
    values = tensors[content["data"]]
    if values.numel() <= SHORT and "dtype" not in content:
        return str(values.tolist())
    return f"array {list(values.shape)} {zlib.crc32(values.float().contiguous().numpy().tobytes()):08x}"
