"""The codecs of what Python, NumPy, PyTorch and Gymnasium programs consist of."""

import base64
import collections
import datetime
import decimal
import enum
import fractions
import functools
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

from sb3_softac.resume import arrays
from sb3_softac.resume.traversal import (
    LIBRARIES,
    Codec,
    Decoder,
    Encoder,
    Fresh,
    LostError,
    ResumeError,
    attributes_of,
    class_name,
    consists_of_attributes,
    decode_attributes,
    describe,
    encode_attributes,
    set_attribute,
)

Parts = list[Any] | dict[str, Any]


def composite(
    name: str,
    applies: Callable[[Any], bool],
    parts: Callable[[Any], Parts],
    fill: Callable[[Any, Any, Any], Any],
    create: Callable[[Any, type | None], Any] = lambda live, cls: None,
    creates: tuple[type, ...] = (),
    in_place: bool = False,
    attributes: Callable[[Any], dict[str, Any]] | None = None,
) -> Codec:
    """
    The codec of values that consist of parts.

    :param parts: Of a value: its parts.
    :param fill: Of the value to change (None if a new one is needed that ``create`` cannot make), the parts as they should be,
        and the live value: the value.
    :param create: Of the live value and one of ``creates``: a new value to be filled.
    :param attributes: Of a value of another type: its attributes.
    """
    by_name = {cls.__name__: cls for cls in creates}

    def encode(encoder: Encoder, value: Any, path: str) -> Any:
        content = {} if type(value) in creates[:1] else {"class": class_name(value)}
        if isinstance(value, types.FunctionType):
            content["is"] = describe(value)
        content["parts"] = encode_parts(encoder, parts(value), path)
        return content | own_attributes(encoder, value, path)

    def own_attributes(encoder: Encoder, value: Any, path: str) -> Any:
        if attributes is None or type(value) in creates:
            return {}
        encoder.note_classes(value)
        return encode_attributes(encoder, value, attributes(value), path)

    def decode(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> Any:
        cls = (
            by_name[content.get("class", creates[0].__name__)]
            if creates and content.get("class") in (None, *by_name)
            else None
        )
        if in_place or (at_start and (cls is None or type(live) is cls)):
            target = live
        elif (target := create(live, cls)) is not None:
            decoder.announce(target)
        there = parts(live) if live is not None and applies(live) else {}
        result = fill(target, decode_parts(decoder, content["parts"], there, path), live)
        if "attributes" in content and attributes is not None:
            decode_attributes(decoder, content, result, path, attributes(result))
        return result

    return Codec(name, applies, encode, decode, creates, in_place)


def encode_parts(encoder: Encoder, parts: Parts, path: str) -> Any:
    if isinstance(parts, dict):
        return {name: encoder.encode(part, f"{path}.{name}") for name, part in parts.items()}
    return [encoder.encode(part, f"{path}.{number}") for number, part in enumerate(parts)]


def decode_parts(decoder: Decoder, nodes: Any, there: Parts, path: str) -> Any:
    """The parts as they should be; what is put together only to be saved is not there before."""
    if isinstance(nodes, dict):  # of values whose parts have names
        live = there if isinstance(there, dict) else {}
        return {name: decoder.decode(node, _unless_fresh(live.get(name)), f"{path}.{name}") for name, node in nodes.items()}
    items = list(there) if isinstance(there, list) else []
    items += [None] * (len(nodes) - len(items))
    return [decoder.decode(node, _unless_fresh(items[i]), f"{path}.{i}") for i, node in enumerate(nodes)]


def _unless_fresh(live: Any) -> Any:
    return None if type(live) is Fresh else live


# Containers

CONTAINERS: tuple[Any, ...] = (collections.OrderedDict, dict, list, set, collections.deque)


def _empty_like(live: Any, cls: type | None) -> Any:
    """A new container or object, with the attributes of the live one."""
    if cls is not None:
        return None if cls is collections.deque else cls()
    if isinstance(live, collections.defaultdict):
        result: Any = type(live).__new__(type(live))
        collections.defaultdict.__init__(result, live.default_factory)
    elif isinstance(live, collections.deque):
        result = type(live).__new__(type(live))
        collections.deque.__init__(result, (), live.maxlen)
    elif isinstance(live, CONTAINERS):
        result = type(live).__new__(type(live))
    else:
        result = object.__new__(type(live))
    for name, part in attributes_of(live).items():
        set_attribute(result, name, part)
    return result


# By the methods of the containers themselves: those of the users' classes may do more.


def _fill_list(target: Any, items: list[Any], live: Any) -> Any:
    list.__setitem__(target, slice(None), items)
    return target


def _fill_set(target: Any, items: list[Any], live: Any) -> Any:
    set.clear(target)
    set.update(target, items)
    return target


def _fill_deque(target: Any, parts: list[Any], live: Any) -> Any:
    maxlen, *items = parts
    if target is None or (type(target) is collections.deque and target.maxlen != maxlen):
        return collections.deque(items, maxlen)
    collections.deque.clear(target)
    collections.deque.extend(target, items)
    return target


def _fill_tuple(target: Any, parts: Any, live: Any) -> Any:
    items = list(parts.values()) if isinstance(parts, dict) else parts
    if isinstance(live, tuple) and len(live) == len(items) and all(a is b for a, b in zip(live, items, strict=True)):
        return live
    return tuple.__new__(type(live), items) if isinstance(parts, dict) else tuple(items)


def _set_items(value: Any) -> list[Any]:
    if list(type(value)(value)) != list(value):
        raise LostError("a set whose order depends on what it has contained")
    return list(value)


DICTIONARIES = (dict, collections.OrderedDict, collections.Counter)


def _names(value: Any) -> list[str]:
    return [str(key) if type(key) in (str, int) else str(number) for number, key in enumerate(value)]


def _encode_dict(encoder: Encoder, value: Any, path: str) -> Any:
    content: dict[str, Any] = {} if type(value) is dict else {"class": class_name(value)}
    content["keys"] = [encoder.encode(key, f"{path}.key{number}") for number, key in enumerate(value)]
    content["parts"] = [
        encoder.encode(item, f"{path}.{name}") for name, item in zip(_names(value), dict.values(value), strict=True)
    ]
    if type(value) not in DICTIONARIES:
        encoder.note_classes(value)
        content |= encode_attributes(encoder, value, attributes_of(value), path)
    return content


def _decode_dict(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> Any:
    cls = {cls.__name__: cls for cls in DICTIONARIES}.get(content.get("class", "dict"))
    result = live if at_start and (cls is None or type(live) is cls) else decoder.announce(_empty_like(live, cls))
    there = dict(dict.items(live)) if isinstance(live, dict) else {}
    keys = [decoder.decode(key, None, f"{path}.key{number}") for number, key in enumerate(content["keys"])]
    items = {
        key: decoder.decode(part, there.get(key), f"{path}.{name}")
        for key, name, part in zip(keys, _names(keys), content["parts"], strict=True)
    }
    base: Any = collections.OrderedDict if isinstance(result, collections.OrderedDict) else dict
    base.clear(result)
    for key, item in items.items():
        base.__setitem__(result, key, item)
    if "attributes" in content:
        decode_attributes(decoder, content, result, path, attributes_of(result))
    return result


# Arrays and tensors

ITEMS = re.compile(r"[|<>=]?(O|U\d{1,6})")  # types of arrays of objects and of strings


def _encode_array(encoder: Encoder, value: np.ndarray, path: str) -> Any:
    layout = encoder.memory.add(value, path, shared=not (encoder.is_fresh or encoder.recording))
    if type(value) is not np.ndarray:
        encoder.note_classes(value)
        # The memory will add to the layout what the array shares
        layout |= {"class": class_name(value)} | encode_attributes(encoder, value, attributes_of(value), path)
    return layout


def _decode_array(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> Any:
    values = arrays.values_of(content, decoder.tensors)
    if at_start and isinstance(live, np.ndarray) and _lies_as_saved(live, values, content):
        _fill_array(live, values)
        result = live
    else:
        if "block" in content:
            result = arrays.view(_block(decoder, content["block"]), content)
            _fill_array(result, values)
        else:
            result = arrays.laid_out(values, content)
        if content.get("locked"):
            result.flags.writeable = False
        if "class" in content:
            result = result.view(type(live))
            result.__dict__.update(live.__dict__)
            decoder.announce(result)
    if "attributes" in content:
        decode_attributes(decoder, content, result, path, attributes_of(result))
    return result


def _lies_as_saved(live: np.ndarray, values: np.ndarray, content: Any) -> bool:
    if live.dtype != values.dtype or live.shape != values.shape:
        return False
    return live.strides == tuple(content["strides"]) if "strides" in content else live.flags.c_contiguous


def _fill_array(target: np.ndarray, values: np.ndarray) -> None:
    """Write into an array, also into one that the program has locked; a locked view has its values from elsewhere."""
    writeable = target.flags.writeable
    try:
        target.flags.writeable = True
    except ValueError:
        return
    np.copyto(target, values)
    target.flags.writeable = writeable


def _block(decoder: Decoder, block: dict[str, Any]) -> np.ndarray:
    if block["name"] not in decoder.blocks:
        memory = arrays.make_block(block, decoder.start.objects.get(block.get("of", "")))
        if memory is None:
            raise ResumeError(f"{block['of']} lies elsewhere in memory than the saved one, and views of it were saved")
        decoder.blocks[block["name"]] = memory
    return decoder.blocks[block["name"]]


def _encode_items_array(encoder: Encoder, value: np.ndarray, path: str) -> Any:
    layout = {"dtype": value.dtype.str, "shape": list(value.shape), "fortran": value.flags.f_contiguous}
    return layout | {"parts": encode_parts(encoder, value.ravel().tolist(), path)}


def _decode_items_array(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> np.ndarray:
    dtype, shape, items = content["dtype"], content["shape"], content["parts"]
    if math.prod(shape) != len(items) or not ITEMS.fullmatch(dtype):
        raise ResumeError(f"{path} is damaged: {len(items)} items of {dtype} are not an array of the shape {shape}")
    result = np.empty(shape, dtype=dtype, order="F" if content["fortran"] and len(shape) > 1 else "C")
    there = live.ravel().tolist() if isinstance(live, np.ndarray) and live.dtype == result.dtype else []
    if at_start and isinstance(live, np.ndarray) and live.dtype == result.dtype and live.shape == result.shape:
        result = live
    decoder.announce(result)
    for place, item in zip(np.ndindex(*shape), decode_parts(decoder, items, there, path), strict=True):
        result[place] = item
    return result


def _encode_tensor(encoder: Encoder, value: th.Tensor, path: str) -> Any:
    layout = encoder.memory.add(value, path, shared=not (encoder.is_fresh or encoder.recording))
    if value.requires_grad:
        layout["grad"] = True
    return layout


def _decode_tensor(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> th.Tensor:
    saved = decoder.tensors[content["data"]]
    fits = isinstance(live, th.Tensor) and live.shape == saved.shape and live.dtype == saved.dtype
    if fits and at_start and arrays.strides(live) == content.get("strides", arrays.strides(saved)):
        with th.no_grad():
            live.copy_(saved)
        return live
    device = live.device if isinstance(live, th.Tensor) else decoder.device
    if "block" in content:
        result = th.from_numpy(arrays.view(_block(decoder, content["block"]), content))
    elif "strides" in content:
        steps = [stride // saved.element_size() for stride in content["strides"]]
        result = th.empty_strided(saved.shape, steps, dtype=saved.dtype, device=device)
    else:
        result = th.empty_like(saved, device=device)
    result.copy_(saved)
    return result.requires_grad_() if content.get("grad") else result


# Random generators

BIT_GENERATORS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)


def _fill_bits(target: Any, parts: Any, live: Any) -> Any:
    target.state = parts["state"]
    return target


def _fill_generator(target: Any, parts: Any, live: Any) -> np.random.Generator:
    bits = parts["bit_generator"]
    return target if target is not None and target.bit_generator is bits else np.random.Generator(bits)


def _fill_random_state(target: Any, parts: Any, live: Any) -> np.random.RandomState:
    bits = parts["bit_generator"]
    result = target if target is not None and target._bit_generator is bits else np.random.RandomState(bits)
    result.set_state(parts["state"])
    return result


def _fill_random(target: random.Random, parts: Any, live: Any) -> random.Random:
    target.setstate(parts["state"])
    return target


def _fill_torch_generator(target: th.Generator, parts: Any, live: Any) -> th.Generator:
    target.set_state(parts["state"].cpu())
    return target


def _space_parts(space: Any) -> Parts:
    inner = space.spaces.values() if isinstance(space, spaces.Dict) else getattr(space, "spaces", ())
    return [space._np_random, *inner]


def _fill_space(target: Any, parts: Any, live: Any) -> Any:
    target._np_random = parts[0]
    return target


# Functions and references


def _is_stateful_function(value: Any) -> bool:
    if not isinstance(value, types.FunctionType) or (value.__module__ or "").split(".")[0] in LIBRARIES:
        return False
    return bool(value.__closure__ or value.__dict__ or value.__defaults__ or value.__kwdefaults__)


def _function_parts(value: Any) -> Parts:
    """What a function carries along: the variables around it and its defaults."""
    variables = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
    return variables | {"defaults": value.__defaults__, "kwdefaults": value.__kwdefaults__}


def _cell_parts(cell: Any) -> Parts:
    try:
        return {"contents": cell.cell_contents}
    except ValueError:  # empty
        return {}


def _fill_cell(target: Any, parts: Any, live: Any) -> Any:
    if parts:
        target.cell_contents = parts["contents"]
    return target


def _fill_method(target: Any, parts: Any, live: Any) -> Any:
    owner, function = parts["self"], live.__func__
    if getattr(function, "__name__", None) != parts["name"]:  # another method of the same object
        function = getattr(type(owner), str(parts["name"]), None)
        if not isinstance(function, types.FunctionType):
            raise ResumeError(f"{class_name(owner)} does not have the method {parts['name']}, which was saved")
    return live if owner is live.__self__ and function is live.__func__ else types.MethodType(function, owner)


def _fill_partial(target: Any, parts: Any, live: Any) -> Any:
    same = all(parts[name] is getattr(live, name) for name in ("func", "args", "keywords"))
    return live if same else type(live)(parts["func"], *parts["args"], **parts["keywords"])


def _fill_reference(target: Any, parts: Any, live: Any) -> Any:
    return live if isinstance(live, weakref.ref) and live() is parts["target"] else weakref.ref(parts["target"])


def _fill_optimizer(target: Any, parts: Any, live: Any) -> Any:
    target.load_state_dict(parts["state"])
    return target


def _decode_bytearray(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> Any:
    value = live if at_start and type(live) is bytearray else bytearray()
    value[:] = base64.b64decode(content)
    return value


def _atom(cls: type, encode: Any, decode: Any, name: str | None = None) -> Codec:
    """A value that cannot be changed, from a text or a list."""
    return Codec(
        name or cls.__name__.lower(),
        lambda v: type(v) is cls,
        lambda encoder, v, path: encode(v),
        lambda decoder, content, live, path, at_start: decode(content),
        creates=(cls,),
    )


PLAIN_CODECS = (
    _atom(float, repr, float),
    _atom(complex, lambda v: [repr(v.real), repr(v.imag)], lambda c: complex(float(c[0]), float(c[1]))),
    _atom(bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode),
    _atom(range, lambda v: [v.start, v.stop, v.step], lambda c: range(*c)),
    _atom(th.Size, list, th.Size),
    _atom(np.str_, str, np.str_, name="text"),
    _atom(fractions.Fraction, str, fractions.Fraction),
    _atom(decimal.Decimal, str, decimal.Decimal),
    _atom(datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    _atom(datetime.timedelta, lambda v: [v.days, v.seconds, v.microseconds], lambda c: datetime.timedelta(*c)),
    Codec(
        "number",
        lambda v: isinstance(v, np.generic) and v.dtype.kind in "biufcmMS",
        lambda e, v, p: {
            "is": str(v),
            "dtype": arrays.dtype_to_json(v.dtype),
            "bytes": base64.b64encode(v.tobytes()).decode(),
        },
        lambda d, c, live, p, a: np.frombuffer(base64.b64decode(c["bytes"]), arrays.dtype_from_json(c["dtype"]))[0],
        creates=tuple({np.dtype(code).type for code in "?bhilqpBHILQPefdgFDGmMS"}),
    ),
    Codec(
        "enum",
        lambda v: isinstance(v, enum.Enum),
        lambda e, v, p: v.value if isinstance(v, enum.Flag) else v.name,
        lambda d, c, live, p, a: type(live)(c) if isinstance(live, enum.Flag) else type(live)[c],
    ),
    composite("list", lambda v: isinstance(v, list), list, _fill_list, _empty_like, (list,), attributes=attributes_of),
    composite(
        "tuple",
        lambda v: isinstance(v, tuple) and not getattr(v, "__dict__", None),
        lambda v: list(v) if type(v) is tuple else dict(zip(getattr(v, "_fields", map(str, range(len(v)))), v, strict=True)),
        _fill_tuple,
        creates=(tuple,),
    ),
    composite("set", lambda v: isinstance(v, set), _set_items, _fill_set, _empty_like, (set,), attributes=attributes_of),
    composite(
        "frozenset",
        lambda v: type(v) is frozenset,
        _set_items,
        lambda target, items, live: frozenset(items),
        creates=(frozenset,),
    ),
    composite(
        "deque",
        lambda v: isinstance(v, collections.deque),
        lambda v: [v.maxlen, *v],
        _fill_deque,
        _empty_like,
        (collections.deque,),
        attributes=attributes_of,
    ),
    Codec("dict", lambda v: isinstance(v, dict), _encode_dict, _decode_dict, DICTIONARIES),
    Codec(
        "bytearray",
        lambda v: type(v) is bytearray,
        lambda e, v, p: base64.b64encode(v).decode(),
        _decode_bytearray,
        (bytearray,),
    ),
    Codec(
        "items",
        lambda v: type(v) is np.ndarray and v.dtype.kind in "OU",
        _encode_items_array,
        _decode_items_array,
        (np.ndarray,),
    ),
    Codec(
        "array",
        lambda v: isinstance(v, np.ndarray) and not isinstance(v, np.memmap) and not v.dtype.hasobject and v.dtype.kind != "U",
        _encode_array,
        _decode_array,
        (np.ndarray,),
    ),
    Codec(
        "tensor",
        lambda v: isinstance(v, th.Tensor) and v.layout is th.strided,
        _encode_tensor,
        _decode_tensor,
        (th.Tensor, th.nn.Parameter),
    ),
    composite(
        "bits",
        lambda v: type(v) in BIT_GENERATORS,
        lambda v: {"state": Fresh(v.state)},
        _fill_bits,
        lambda live, cls: cls and cls(),
        BIT_GENERATORS,
    ),
    composite(
        "generator",
        lambda v: isinstance(v, np.random.Generator) and type(v.bit_generator) in BIT_GENERATORS,
        lambda v: {"bit_generator": v.bit_generator},
        _fill_generator,
        creates=(np.random.Generator,),
    ),
    composite(
        "random_state",
        lambda v: isinstance(v, np.random.RandomState) and type(v._bit_generator) is np.random.MT19937,  # type: ignore[attr-defined]
        lambda v: {"bit_generator": v._bit_generator, "state": Fresh(v.get_state(legacy=False))},
        _fill_random_state,
        creates=(np.random.RandomState,),
    ),
    composite(
        "random",
        lambda v: isinstance(v, random.Random) and not isinstance(v, random.SystemRandom),
        lambda v: {"state": Fresh(v.getstate())},
        _fill_random,
        lambda live, cls: random.Random(),
        creates=(random.Random,),
    ),
    composite(
        "torch_generator",
        lambda v: isinstance(v, th.Generator),
        lambda v: {"state": Fresh(v.get_state())},
        _fill_torch_generator,
        lambda live, cls: th.Generator(live.device if isinstance(live, th.Generator) else "cpu"),
        creates=(th.Generator,),
    ),
    composite("space", lambda v: isinstance(v, spaces.Space), _space_parts, _fill_space, in_place=True),
    composite(
        "optimizer",
        lambda v: isinstance(v, th.optim.Optimizer),
        lambda v: {"state": Fresh(v.state_dict())},
        _fill_optimizer,
        in_place=True,
    ),
    composite(
        "function",
        _is_stateful_function,
        _function_parts,
        lambda target, parts, live: live,
        in_place=True,
        attributes=lambda v: {name: part for name, part in v.__dict__.items() if name != "__wrapped__"},
    ),
    composite("cell", lambda v: isinstance(v, types.CellType), _cell_parts, _fill_cell, in_place=True),
    composite(
        "method",
        lambda v: isinstance(v, types.MethodType),
        lambda v: {"name": getattr(v.__func__, "__name__", None), "self": v.__self__},
        _fill_method,
    ),
    composite(
        "partial",
        lambda v: isinstance(v, functools.partial),
        lambda v: {"func": v.func, "args": v.args, "keywords": v.keywords},
        _fill_partial,
    ),
    composite(
        "reference",
        lambda v: type(v) is weakref.ref and v() is not None,
        lambda v: {"target": v()},
        _fill_reference,
        creates=(weakref.ref,),
    ),
    composite(
        "object",
        consists_of_attributes,
        lambda v: {},
        lambda target, parts, live: target,
        _empty_like,
        attributes=attributes_of,
    ),
)
