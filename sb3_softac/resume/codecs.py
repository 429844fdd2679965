"""The codecs of the values that plain data consists of."""

import base64
import collections
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import random
import re
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_softac.resume import memory
from sb3_softac.resume.describe import describe
from sb3_softac.resume.serialization import (
    LIBRARIES,
    REMEDY,
    Codec,
    LostError,
    Reader,
    ResumeError,
    Writer,
    class_name,
    module_of,
    names_files,
    without_state,
)

BIT_GENERATORS = {
    cls.__name__: cls for cls in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
}
LARGEST_POOL = 1_000  # NumPy's own has 4
CONTAINERS = (list, dict, set, collections.deque)
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
# Dictionaries of the standard library that can be created from their items
DICTIONARIES = {cls.__name__: cls for cls in (dict, collections.OrderedDict, collections.Counter)}


def write_attributes(writer: Writer, attributes: dict[str, Any], path: str) -> dict[str, Any]:
    return {name: writer.write(part, f"{path}.{name}") for name, part in attributes.items()}


def write_separately(writer: Writer, attributes: dict[str, Any], path: str) -> dict[str, Any]:
    """:func:`write_attributes`, where one that is too deep does not keep the others from being saved."""
    written = {}
    for name, part in attributes.items():
        needs = dict(writer.needs)
        try:
            written[name] = writer.write(part, f"{path}.{name}")
        except RecursionError:
            writer.needs = needs
            written[name] = writer.lose(f"{path}.{name} (too many of its objects refer to one another in a row)")
    return written


def read_attributes(reader: Reader, written: dict[str, Any], live: Any, path: str, texts: bool = True) -> None:
    there = attributes_of(live)
    for name, part in written.items():
        if part == {"kept": None}:
            continue
        if name not in there and callable(getattr(type(live), name, None)):
            raise ResumeError(f"{path}.{name} is a method, not something that a checkpoint contains")
        _restore(reader, part, there, name, f"{path}.{name}", functools.partial(set_attribute, live, name), texts)


def _restore(
    reader: Reader, part: Any, there: dict[str, Any], name: str, path: str, put: Callable[[Any], None], texts: bool = True
) -> None:
    """Read the value of an attribute or variable and put it there, unless it says which file is written."""
    try:
        value = reader.read_attribute(part, there.get(name), path, name)
    except LostError:  # it stays as the program has made it
        return
    now = there.get(name)
    is_text = {_is_text(each) for each in (now, value) if each is not None}
    if names_files(name, now) or (not texts and True in is_text):
        return
    if len(is_text) > 1:
        raise ResumeError(f"{path} is {now!r:.99} now, but {type(value).__name__} was saved")
    if name not in there or now is not value:
        reader.change(put, value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes)


def note_texts(writer: Writer, value: Any, attributes: dict[str, Any], path: str, texts: bool = True) -> None:
    """Report attributes that have become text that is not restored."""
    if writer.baseline is None:
        return
    before = writer.baseline.texts.get(id(value), {})
    now = {
        name: json.dumps(describe(part))
        for name, part in attributes.items()
        if name in before or names_files(name, part) or (isinstance(part, str) and not texts)
    }
    if writer.recording:
        writer.baseline.texts[id(value)] = now
    else:
        reason = "text that may name a file, or is expected only in settings"
        names = [*(name for name in now if before.get(name) != now[name]), *(before.keys() - attributes.keys())]
        writer.unknown.extend(f"{path}.{name} ({reason})" for name in names)


def _class_data(cls: type) -> dict[str, Any]:
    """The attributes of a class that are neither methods nor other definitions."""
    return {
        name: part
        for name, part in vars(cls).items()
        if not (name.startswith("__") or name == "_abc_impl" or callable(part) or hasattr(part, "__get__"))
    }


def write_classes(writer: Writer) -> dict[str, dict[str, Any]]:
    """
    The attributes of their classes that have changed since training started, by name of the class; if the writer records the
    start, none.
    """
    written: dict[str, dict[str, Any]] = {}
    done: set[type] = set()
    baseline = writer.baseline
    while baseline is not None and (classes := [cls for cls in writer.classes if cls not in done]):
        for cls in classes:
            done.add(cls)
            name, attributes = f"{cls.__module__}.{cls.__qualname__}", _class_data(cls)
            texts = {attribute: json.dumps(describe(part)) for attribute, part in attributes.items()}
            if writer.recording:
                baseline.classes[cls] = texts
                write_separately(writer, attributes, name)
            elif cls in baseline.classes:
                before = baseline.classes[cls]
                changed = {
                    attribute: part
                    for attribute, part in attributes.items()
                    if before.get(attribute) != texts[attribute] or isinstance(part, (*GENERATORS, th.Generator))  # no texts
                }
                if changed:
                    written[name] = write_separately(writer, changed, name)
    return written


def read_classes(reader: Reader, written: dict[str, dict[str, Any]]) -> None:
    classes = (
        {} if reader.baseline is None else {f"{cls.__module__}.{cls.__qualname__}": cls for cls in reader.baseline.classes}
    )
    for name, attributes in written.items():
        if name not in classes:
            raise ResumeError(f"The class {name} is not there: create everything as the interrupted program did")
        there = vars(classes[name])
        for attribute, part in attributes.items():
            now = there.get(attribute)
            if part == {"kept": None} or callable(now) or hasattr(now, "__get__"):
                continue
            put = functools.partial(setattr, classes[name], attribute)
            _restore(reader, part, {attribute: now}, attribute, f"{name}.{attribute}", put)


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


def set_attribute(live: Any, name: str, value: Any) -> None:
    """Bypasses setattr, which the class may override."""
    slot = _slots(type(live)).get(name)
    if slot is None:
        live.__dict__[name] = value
    else:
        slot.__set__(live, value)


def _write_object(writer: Writer, value: Any, path: str) -> Any:
    """The attributes of an object. Strings that have not changed are settings: the resuming program's are used."""
    attributes = attributes_of(value)
    writer.note_classes(value)
    note_texts(writer, value, attributes, path)
    content: dict[str, Any] = {"class": class_name(value)}
    if writer.baseline is not None and writer.recording:
        writer.baseline.attributes[id(value)] = dict(attributes)
    elif writer.baseline is not None:
        before = writer.baseline.attributes.get(id(value), {})
        if gone := [name for name in before if name not in attributes]:
            content["gone"] = gone
        writer.unknown.extend(
            f"{path}.{name} (it has become {type(part).__name__} from {type(before[name]).__name__})"
            for name, part in attributes.items()
            if part is not None and before.get(name) is not None and _is_text(part) != _is_text(before[name])
        )
        texts = {name: part for name, part in attributes.items() if type(part) is str and before.get(name) == part}
        attributes = {name: part for name, part in attributes.items() if name not in texts}
        for name, part in texts.items():
            writer.note_setting(part, f"{path}.{name}")
    return content | {"attributes": write_attributes(writer, attributes, path)}


def delete_gone(content: Any, live: Any) -> None:
    for name in content.get("gone", ()):
        attributes = attributes_of(live)
        if name in attributes and not names_files(name, attributes[name]):
            object.__delattr__(live, name)


def _check_class(content: Any, live: Any, path: str) -> None:
    if class_name(live) != content["class"]:
        raise ResumeError(f"{path} is a {class_name(live)} now, but a {content['class']} was saved. {REMEDY}")


def _read_object(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    _check_class(content, live, path)
    if not in_place:  # the program has replaced it; other references still point to the old one
        before, live = live, object.__new__(type(live))  # type: ignore[call-overload]
        for name, part in attributes_of(before).items():
            set_attribute(live, name, part)
        reader.announce(live)
    read_attributes(reader, content["attributes"], live, path)
    reader.change(delete_gone, content, live)
    return live


class _Plain:
    """An object that consists only of attributes."""


def _is_object(value: Any) -> bool:
    # An object larger than one of a plain class holds more than its attributes: items, C structures
    cls = type(value)
    pointers = len({id(slot) for slot in _slots(cls).values()}) * np.dtype(np.uintp).itemsize
    only_attributes = cls.__basicsize__ <= _Plain.__basicsize__ + pointers and (hasattr(value, "__dict__") or pointers > 0)
    known = without_state(value) or module_of(cls).split(".")[0] == "pandas"  # it keeps data in C
    return only_attributes and not known and not issubclass(cls, type) and cls.__itemsize__ == 0


def _write_items(writer: Writer, value: Any, path: str) -> Any:
    return [writer.write(item, f"{path}.{number}") for number, item in enumerate(value)]


def _read_items(reader: Reader, content: Any, live: Any, path: str) -> list[Any]:
    there = list(live) if isinstance(live, list | tuple | collections.deque) else []
    there += [None] * (len(content) - len(there))
    return [reader.read(part, now, f"{path}.{i}") for i, (part, now) in enumerate(zip(content, there, strict=False))]


def _read_list(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    result = reader.announce(live if in_place and type(live) is list else [])
    items = _read_items(reader, content, live, path)
    return reader.refill(result, items, list.extend)


def _read_tuple(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    items = _read_items(reader, content, live, path)
    if isinstance(live, tuple) and len(live) == len(items) and all(a is b for a, b in zip(live, items, strict=True)):
        return live
    return tuple(items)


def _write_subtuple(writer: Writer, value: Any, path: str) -> Any:
    return {"class": class_name(value), "items": _write_items(writer, value, path)}


def _read_subtuple(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    _check_class(content, live, path)
    items, cls = _read_items(reader, content["items"], live, path), type(live)
    return cls(items) if hasattr(cls, "n_sequence_fields") else tuple.__new__(cls, items)  # such as time.struct_time


def _has_addresses(value: Any) -> bool:
    """Whether it is a set of objects whose places in it depend on their addresses, and so cannot be found again."""
    return isinstance(value, set | frozenset) and any(map(_has_addresses_in_its_hash, value))


def _has_addresses_in_its_hash(item: Any) -> bool:
    if isinstance(item, tuple | frozenset):
        return any(map(_has_addresses_in_its_hash, item))
    return item is not None and type(item).__hash__ is object.__hash__


def _write_set(writer: Writer, value: Any, path: str) -> Any:
    items = list(value)
    if list(type(value)(items)) != items:
        writer.unknown.append(f"{path} (a set whose order depends on its history)")
    return _write_keys(writer, items, path)


def _write_keys(writer: Writer, value: Any, path: str) -> Any:
    return [writer.write_key(item, f"{path}.{number}") for number, item in enumerate(value)]


def _read_keys(reader: Reader, content: Any, live: Any, path: str) -> list[Any]:
    return [reader.read_key(part, f"{path}.{number}") for number, part in enumerate(content)]


def _read_set(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    items = _read_keys(reader, content, live, path)
    result = live if in_place and type(live) is set else set()
    return reader.refill(result, items, set.update)


def _set_items(container: dict[Any, Any], items: dict[Any, Any]) -> None:
    base: Any = collections.OrderedDict if isinstance(container, collections.OrderedDict) else dict
    for key, item in items.items():
        base.__setitem__(container, key, item)


def _write_deque(writer: Writer, value: Any, path: str) -> Any:
    return [value.maxlen, *_write_items(writer, value, path)]


def _read_deque(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    fits = in_place and type(live) is collections.deque and live.maxlen == content[0]
    result = reader.announce(live if fits else collections.deque(maxlen=content[0]))
    items = _read_items(reader, content[1:], live, path)
    return reader.refill(result, items, collections.deque.extend)


def _write_pairs(writer: Writer, value: Any, path: str) -> Any:
    return [
        [
            key if type(key) in (str, int) else writer.write_key(key, f"{path}.key{i}"),
            writer.write(item, f"{path}.{key if type(key) in (str, int) else i}"),
        ]
        for i, (key, item) in enumerate(value.items())
    ]


def _read_pairs(reader: Reader, content: Any, live: Any, path: str) -> dict[Any, Any]:
    there = live if isinstance(live, dict) else {}
    items = {}
    for i, (written_key, item) in enumerate(content):
        key = reader.read_key(written_key, f"{path}.key{i}", names=())
        items[key] = reader.read_item(item, there.get(key), f"{path}.{key if type(key) in (str, int) else i}", key)
    return items


def _write_dict(writer: Writer, value: Any, path: str) -> Any:
    return [type(value).__name__, *_write_pairs(writer, value, path)]


def _read_dict(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    cls = DICTIONARIES[content[0]]
    result = reader.announce(live if in_place and type(live) is cls else cls())
    items = _read_pairs(reader, content[1:], live, path)
    return reader.refill(result, items, _set_items)


def _write_container(writer: Writer, value: Any, path: str) -> Any:
    write = _write_pairs if isinstance(value, dict) else _write_keys if isinstance(value, set) else _write_items
    return _write_object(writer, value, path) | {"items": write(writer, value, path)}


def _read_container(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    _check_class(content, live, path)
    before = live
    if not in_place:
        live = reader.announce(_empty_like(live))
    if isinstance(live, dict):
        items: Any = _read_pairs(reader, content["items"], before, path)
        fill: Any = _set_items
    else:
        items = (_read_keys if isinstance(live, set) else _read_items)(reader, content["items"], before, path)
        fill = set.update if isinstance(live, set) else list.extend if isinstance(live, list) else collections.deque.extend
    reader.refill(live, items, fill)
    read_attributes(reader, content["attributes"], live, path)
    reader.change(delete_gone, content, live)
    return live


def _empty_like(live: Any) -> Any:
    cls = type(live)
    if isinstance(live, collections.defaultdict):
        result = collections.defaultdict.__new__(cls)
        collections.defaultdict.__init__(result, live.default_factory)
    elif isinstance(live, collections.deque):
        result = collections.deque.__new__(cls)  # type: ignore[assignment]
        collections.deque.__init__(result, (), live.maxlen)  # type: ignore[arg-type]
    else:
        result = cls.__new__(cls)  # type: ignore[call-overload]
    if getattr(live, "__dict__", None) is live:  # its items are its attributes, too
        result.__dict__ = result
    for name, part in attributes_of(live).items():
        set_attribute(result, name, part)
    return result


def _block(reader: Reader, layout: memory.Layout) -> np.ndarray:
    """The memory that several arrays share."""
    place = layout["place"]
    if layout["block"] not in reader.blocks:
        if "of" not in place:
            block = memory.aligned(place["size"], place["align"])
        else:
            live = None if reader.baseline is None else reader.baseline.objects.get(place["of"])
            around = memory.surroundings(live) if isinstance(live, np.ndarray | th.Tensor) else None
            start = -1 if around is None else memory.bounds(live)[0] - place["before"] - around.ctypes.data
            if around is None or start < 0 or start + place["size"] > len(around):
                raise ResumeError(f"{place['of']} has less memory than the saved array, of which there are views. {REMEDY}")
            block = around[start : start + place["size"]]
        reader.blocks[layout["block"]] = block
    return reader.blocks[layout["block"]]


def _read_array(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> np.ndarray:
    values = memory.dense(content, reader.tensors)
    if in_place and isinstance(live, np.ndarray) and _fits(live, values, content):
        reader.change(_fill, live, values)
        return live
    if "block" in content:
        result = memory.view(_block(reader, content), content)
        reader.change(_fill, result, values)
    else:
        result = memory.laid_out(values, content)
    if content.get("locked"):
        result.flags.writeable = False
    return result


def _fits(live: np.ndarray, values: np.ndarray, content: Any) -> bool:
    lies_as_saved = live.strides == tuple(content["strides"]) if "strides" in content else live.flags.c_contiguous
    return live.dtype == values.dtype and live.shape == values.shape and lies_as_saved


def _fill(target: np.ndarray, values: np.ndarray) -> None:
    """Write into an array, also into one that the program has locked; a locked view has its values from elsewhere."""
    writeable = target.flags.writeable
    try:
        target.flags.writeable = True
    except ValueError:
        return
    np.copyto(target, values)
    target.flags.writeable = writeable


def _write_subarray(writer: Writer, value: np.ndarray, path: str) -> Any:
    return _write_object(writer, value, path) | {"array": writer.memory.add(value, path)}


def _read_subarray(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    _check_class(content, live, path)
    array = _read_array(reader, content["array"], np.asarray(live), path, in_place)
    if not in_place or not np.shares_memory(array, live):
        array = array.view(type(live))
        for name, part in getattr(live, "__dict__", {}).items():
            array.__dict__[name] = part
        live = reader.announce(array)
    read_attributes(reader, content["attributes"], live, path)
    return live


ITEMS = re.compile(r"[|<>=]?(O|U\d{1,6})")  # types of arrays of objects and of strings


def _write_items_array(writer: Writer, value: np.ndarray, path: str) -> Any:
    return [value.dtype.str, list(value.shape), value.flags.f_contiguous, _write_items(writer, value.ravel().tolist(), path)]


def _read_items_array(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> np.ndarray:
    dtype, shape, fortran, items = content
    if math.prod(shape) != len(items) or not ITEMS.fullmatch(dtype):
        raise ResumeError(f"{path} is damaged: {len(items)} items of {dtype} are not an array of the shape {shape}")
    result = np.empty(shape, dtype=dtype, order="F" if fortran and len(shape) > 1 else "C")
    if in_place and isinstance(live, np.ndarray) and live.dtype == result.dtype and live.shape == result.shape:
        result = live
    reader.announce(result)
    there = live.ravel().tolist() if isinstance(live, np.ndarray) and live.dtype == result.dtype else None
    values = _read_items(reader, items, there, path)
    return reader.refill(result, values, _fill_items)


def _fill_items(array: np.ndarray, items: list[Any]) -> None:
    for place, item in zip(np.ndindex(*array.shape), items, strict=True):
        array[place] = item


def _is_dense(value: Any) -> bool:
    """:return: Whether it is a tensor that safetensors can save."""
    return (
        isinstance(value, th.Tensor)
        and value.layout is th.strided
        and value.dtype is not th.complex128
        and not value.is_quantized
    )


def _write_tensor(writer: Writer, value: th.Tensor, path: str) -> Any:
    layout = writer.memory.add(value, path)  # Memory.connect() adds what it shares
    if value.requires_grad:
        layout["grad"] = True
    if value.is_leaf and value.grad is not None:
        layout["gradient"] = writer.write(value.grad, f"{path}.grad")
    return layout


def _read_tensor(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> th.Tensor:
    saved = reader.tensors[content["data"]]
    fits = isinstance(live, th.Tensor) and live.shape == saved.shape and live.dtype == saved.dtype
    if fits and in_place and memory.strides(live) == content.get("strides", memory.strides(saved)):
        reader.change(_copy_tensor, live, saved)
        if live.is_leaf and not (live.grad is None and "gradient" not in content):
            reader.change(setattr, live, "grad", reader.read(content.get("gradient"), live.grad, f"{path}.grad"))
        return live
    device = live.device if isinstance(live, th.Tensor) else reader.device
    if "block" in content:
        result = memory.view_as_tensor(_block(reader, content), content)
    elif "strides" in content:
        steps = [stride // saved.element_size() for stride in content["strides"]]
        result = th.empty_strided(saved.shape, steps, dtype=saved.dtype, device=device)
    else:
        result = th.empty_like(saved, device=device)
    reader.change(_copy_tensor, result, saved)
    result.requires_grad_(content.get("grad", False))
    if "gradient" in content:
        result.grad = reader.read(content["gradient"], None, f"{path}.grad")
    return result


def _copy_tensor(target: th.Tensor, values: th.Tensor) -> None:
    with th.no_grad():
        target.copy_(values)


def _seed_of(bits: Any) -> dict[str, Any] | None:
    """What the generators that are spawned from this one depend on."""
    seed = getattr(bits, "seed_seq", None)
    return {**seed.state} if isinstance(seed, np.random.SeedSequence) else None


def _has_spawned(seed: dict[str, Any] | None) -> bool:
    return seed is not None and seed["n_children_spawned"] > 0


def _read_bits(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    state = reader.read_data(content, path)
    seed, kind = state.pop("seed", None), BIT_GENERATORS[state["bit_generator"]]
    if seed is not None and seed["pool_size"] > LARGEST_POOL:
        raise ResumeError(f"{path} is damaged: no random generator has a pool of {seed['pool_size']} numbers")
    has_spawned = _has_spawned(seed) or _has_spawned(_seed_of(live))
    if not in_place or type(live) is not kind or (has_spawned and seed != _seed_of(live)):
        live = kind(None if seed is None else np.random.SeedSequence(**seed))
    kind().state = state  # refuses what is no state
    reader.change(setattr, live, "state", state)
    return live


def _read_generator(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> np.random.Generator:
    there = live.bit_generator if in_place and isinstance(live, np.random.Generator) else None
    bits = reader.read(content, there, f"{path}.bit_generator")
    return live if bits is there else np.random.Generator(bits)


def _write_random_state(writer: Writer, value: np.random.RandomState, path: str) -> Any:
    bits = value._bit_generator  # type: ignore[attr-defined]
    return [writer.write(bits, f"{path}.bit_generator"), writer.write_data(value.get_state(legacy=False), path)]


def _read_random_state(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> np.random.RandomState:
    there = live._bit_generator if in_place and isinstance(live, np.random.RandomState) else None
    bits = reader.read(content[0], there, f"{path}.bit_generator")
    result = live if bits is there else np.random.RandomState(bits)
    state = reader.read_data(content[1], path)
    np.random.RandomState().set_state(state)  # refuses what is no state
    reader.change(result.set_state, state)
    return result


def _read_random(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> random.Random:
    live = live if in_place and isinstance(live, random.Random) else random.Random()
    state = reader.read_data(content, path)
    random.Random().setstate(state)  # refuses what is no state
    reader.change(live.setstate, state)
    return live


def _read_torch_generator(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> th.Generator:
    device = live.device if isinstance(live, th.Generator) else "cpu"
    live = live if in_place and isinstance(live, th.Generator) else th.Generator(device)
    state = reader.read_data(content, path)
    if live.device.type == "cpu":
        th.Generator().set_state(state)  # refuses what is no state
    reader.change(live.set_state, state)
    return live


def _read_optimizer(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    _check_class(content, live, path)
    reader.change(live.load_state_dict, reader.read_data(content["state"], path))
    return live


def _parts(space: Any) -> list[Any]:
    return list(space.spaces.values() if isinstance(space, spaces.Dict) else getattr(space, "spaces", ()))


def _write_space(writer: Writer, value: spaces.Space, path: str) -> Any:
    """Its random generator: all else stays as it is, or is lost."""
    if (baseline := writer.baseline) is not None:
        rest = {name: part for name, part in vars(value).items() if name not in ("_np_random", "spaces")}
        text = json.dumps(describe(rest))
        if writer.recording:
            baseline.contents[id(value)] = text
        elif baseline.contents.get(id(baseline.objects.get(baseline.path_of(value) or path))) != text:
            writer.lose(f"{path} (a space that has changed)")
    return [writer.write(value._np_random, f"{path}.np_random"), *_write_items(writer, _parts(value), path)]


def _read_space(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    reader.change(setattr, live, "_np_random", reader.read(content[0], live._np_random, f"{path}.np_random"))
    _read_items(reader, content[1:], _parts(live), path)
    return live


def _is_stateful_function(value: Any) -> bool:
    if not isinstance(value, types.FunctionType) or (value.__module__ or "").split(".")[0] in LIBRARIES:
        return False
    return bool(value.__closure__ or value.__dict__ or value.__defaults__ or value.__kwdefaults__)


def _variables(function: Any) -> list[tuple[str, types.CellType]]:
    return list(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _write_function(writer: Writer, value: Any, path: str) -> Any:
    """What a function carries along: the variables around it, its defaults and its attributes."""
    return [
        [writer.write(cell, f"{path}.closure.{name}") for name, cell in _variables(value)],
        writer.write(value.__defaults__, f"{path}.defaults"),
        writer.write(value.__kwdefaults__, f"{path}.kwdefaults"),
        write_attributes(writer, {n: part for n, part in value.__dict__.items() if n != "__wrapped__"}, path),
    ]


def _read_function(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    closure, defaults, keyword_defaults, attributes = content
    if len(live.__closure__ or ()) != len(closure):
        raise ResumeError(f"{path} is another function than the saved one: create everything as the interrupted program did")
    for part, (name, cell) in zip(closure, _variables(live), strict=True):
        reader.read(part, cell, f"{path}.closure.{name}")
    reader.read(defaults, live.__defaults__, f"{path}.defaults")
    reader.read(keyword_defaults, live.__kwdefaults__, f"{path}.kwdefaults")
    read_attributes(reader, attributes, live, path)
    return live


def _write_cell(writer: Writer, value: Any, path: str) -> Any:
    try:
        contents = value.cell_contents
    except ValueError:  # empty
        return []
    name = path.rpartition(".")[2]
    note_texts(writer, value, {name: contents}, path.removesuffix(f".{name}"))
    return [writer.write(contents, path)]


def _read_cell(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    name = path.rpartition(".")[2]
    try:
        there = {name: live.cell_contents}
    except ValueError:  # empty
        there = {}
    for part in content:
        _restore(reader, part, there, name, path, functools.partial(setattr, live, "cell_contents"))
    return live


def _write_method(writer: Writer, value: Any, path: str) -> Any:
    return [getattr(value.__func__, "__name__", None), writer.write(value.__self__, f"{path}.self")]


def _read_method(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    name, owner = content
    owner = reader.read(owner, live.__self__, f"{path}.self")
    function: Any = live.__func__
    if getattr(function, "__name__", None) != name:  # another method of the same object
        function = getattr(type(owner), name, None)
        if not isinstance(function, types.FunctionType):
            raise ResumeError(f"{path} was the method {name}, which {class_name(owner)} does not have")
    return live if owner is live.__self__ and function is live.__func__ else types.MethodType(function, owner)


def _read_bound(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    owner = reader.read(content, live.__self__, f"{path}.self")
    return live if owner is live.__self__ else getattr(owner, live.__name__)


def _write_partial(writer: Writer, value: Any, path: str) -> Any:
    note_texts(writer, value, {"args": value.args, "keywords": value.keywords}, path)
    return [writer.write(getattr(value, name), f"{path}.{name}") for name in ("func", "args", "keywords")]


def _read_partial(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    func, args, keywords = content
    func = reader.read(func, live.func, f"{path}.func")
    args = reader.read(args, live.args, f"{path}.args")
    keywords = reader.read(keywords, live.keywords, f"{path}.keywords")
    same = func is live.func and args is live.args and keywords is live.keywords
    return live if same else type(live)(func, *args, **keywords)


def _read_reference(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    there = live() if isinstance(live, weakref.ref) else None
    target = reader.read(content, there, f"{path}.target")
    return live if target is there and there is not None else weakref.ref(target)


def _read_bytearray(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    value = live if in_place and type(live) is bytearray else bytearray()
    reader.change(bytearray.__setitem__, value, slice(None), base64.b64decode(content))
    return value


def _atom(name: str, cls: type, write: Any, read: Any) -> Codec:
    """A value that cannot be changed, from a text or a list."""
    return Codec(name, lambda v: type(v) is cls, lambda w, v, p: write(v), lambda r, c, live, p, i: read(c), plain=True)


ATOMS = (
    _atom("float", float, repr, float),
    _atom("integer", int, hex, lambda c: int(c, 16)),
    _atom("complex", complex, lambda v: [repr(v.real), repr(v.imag)], lambda c: complex(float(c[0]), float(c[1]))),
    _atom("bytes", bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode),
    _atom("range", range, lambda v: [v.start, v.stop, v.step], lambda c: range(*c)),
    _atom("size", th.Size, list, th.Size),
    _atom("text", np.str_, str, np.str_),
    _atom("fraction", fractions.Fraction, str, fractions.Fraction),
    _atom("decimal", decimal.Decimal, str, decimal.Decimal),
    _atom("datetime", datetime.datetime, lambda v: v.isoformat(), datetime.datetime.fromisoformat),
    _atom("timedelta", datetime.timedelta, lambda v: [v.days, v.seconds, v.microseconds], lambda c: datetime.timedelta(*c)),
    Codec(
        "number",
        lambda v: isinstance(v, np.generic) and v.dtype.kind in "biufcmMS",
        lambda w, v, p: [memory.dtype_to_json(v.dtype), base64.b64encode(v.tobytes()).decode()],
        lambda r, c, live, p, i: np.frombuffer(base64.b64decode(c[1]), memory.dtype_from_json(c[0]))[0],
        plain=True,
    ),
)

CODECS = (
    *ATOMS,
    Codec(
        "enum",
        lambda v: isinstance(v, enum.Enum),
        lambda w, v, p: v.value if isinstance(v, enum.Flag) else v.name,
        lambda r, c, live, p, i: type(live)(c) if isinstance(live, enum.Flag) else type(live)[c],
    ),
    Codec("list", lambda v: type(v) is list, _write_items, _read_list, plain=True),
    Codec("tuple", lambda v: type(v) is tuple, _write_items, _read_tuple, plain=True),
    Codec("subtuple", lambda v: isinstance(v, tuple) and not getattr(v, "__dict__", None), _write_subtuple, _read_subtuple),
    Codec("set", lambda v: type(v) is set and not _has_addresses(v), _write_set, _read_set, plain=True),
    Codec(
        "frozenset",
        lambda v: type(v) is frozenset and not _has_addresses(v),
        _write_set,
        lambda r, c, live, p, i: frozenset(_read_keys(r, c, live, p)),
        plain=True,
    ),
    Codec("deque", lambda v: type(v) is collections.deque, _write_deque, _read_deque, plain=True),
    Codec("dict", lambda v: type(v) in DICTIONARIES.values(), _write_dict, _read_dict, plain=True),
    Codec("container", lambda v: isinstance(v, CONTAINERS) and not _has_addresses(v), _write_container, _read_container),
    Codec(
        "bytearray", lambda v: type(v) is bytearray, lambda w, v, p: base64.b64encode(v).decode(), _read_bytearray, plain=True
    ),
    Codec(
        "array",
        lambda v: type(v) is np.ndarray and not v.dtype.hasobject and v.dtype.kind not in "UO",
        lambda w, v, p: w.memory.add(v, p),
        _read_array,
        plain=True,
    ),
    Codec(
        "items", lambda v: type(v) is np.ndarray and v.dtype.kind in "OU", _write_items_array, _read_items_array, plain=True
    ),
    Codec(
        "subarray",
        lambda v: isinstance(v, np.ndarray) and not isinstance(v, np.memmap) and v.dtype.kind in "biufcmMS",
        _write_subarray,
        _read_subarray,
    ),
    Codec("tensor", _is_dense, _write_tensor, _read_tensor, plain=True),
    Codec(
        "bits",
        lambda v: type(v).__name__ in BIT_GENERATORS and hasattr(v, "state"),
        lambda w, v, p: w.write_data({**v.state, "seed": _seed_of(v)}, p),
        _read_bits,
        plain=True,
    ),
    Codec(
        "generator",
        lambda v: isinstance(v, np.random.Generator) and type(v.bit_generator).__name__ in BIT_GENERATORS,
        lambda w, v, p: w.write(v.bit_generator, f"{p}.bit_generator"),
        _read_generator,
        plain=True,
    ),
    Codec(
        "random_state",
        lambda v: isinstance(v, np.random.RandomState) and v.get_state(legacy=False)["bit_generator"] == "MT19937",  # type: ignore[call-overload]
        _write_random_state,
        _read_random_state,
        plain=True,
    ),
    Codec(
        "random",
        lambda v: isinstance(v, random.Random) and not isinstance(v, random.SystemRandom),
        lambda w, v, p: w.write_data(v.getstate(), p),
        _read_random,
        plain=True,
    ),
    Codec(
        "torch_generator",
        lambda v: isinstance(v, th.Generator),
        lambda w, v, p: w.write_data(v.get_state(), p),
        _read_torch_generator,
        plain=True,
    ),
    Codec("space", lambda v: isinstance(v, spaces.Space), _write_space, _read_space, shared=True),
    Codec(
        "optimizer",
        lambda v: isinstance(v, th.optim.Optimizer),
        lambda w, v, p: {"class": class_name(v), "state": w.write(v.state_dict(), p)},
        _read_optimizer,
        shared=True,
    ),
    Codec("function", _is_stateful_function, _write_function, _read_function, shared=True),
    Codec("cell", lambda v: isinstance(v, types.CellType), _write_cell, _read_cell, shared=True),
    Codec("method", lambda v: isinstance(v, types.MethodType), _write_method, _read_method),
    Codec(
        "bound",
        lambda v: isinstance(v, types.BuiltinFunctionType) and isinstance(v.__self__, (*CONTAINERS, *GENERATORS)),
        lambda w, v, p: w.write(v.__self__, f"{p}.self"),
        _read_bound,
    ),
    Codec("partial", lambda v: isinstance(v, functools.partial), _write_partial, _read_partial),
    Codec(
        "reference",
        lambda v: type(v) is weakref.ref and v() is not None,
        lambda w, v, p: w.write(v(), f"{p}.target"),
        _read_reference,
        plain=True,
    ),
    Codec("object", _is_object, _write_object, _read_object),
)
