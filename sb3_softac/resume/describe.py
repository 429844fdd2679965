"""The settings of a program as texts, to compare and to show."""

import collections
import enum
import functools
import types
import zlib
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

SEQUENCES = list | tuple | collections.deque
SHORT = 8
DEPTH = 6
LONGEST = 10_000  # bits of an integer that Python writes and reads as decimal digits
OWN = None
MORE_THAN_SETTINGS = (BaseAlgorithm, BaseBuffer, BaseCallback, VecEnv, gym.Env)
NOT_DESCRIBED = "..."


def describe(value: Any, path: str = "", seen: frozenset[int] = frozenset()) -> dict[str, str]:
    """Texts by name: one for a simple value, one for each part of a composed one. Random generators have none."""
    if isinstance(value, np.random.Generator | np.random.RandomState | th.Generator):
        return {}
    if id(value) in seen or len(seen) > DEPTH or isinstance(value, MORE_THAN_SETTINGS):
        return {path: NOT_DESCRIBED}
    seen = seen | {id(value)}
    parts = _parts(value)
    if parts is None:
        return {path: _text(value)}
    texts = {path: parts.pop(OWN)} if OWN in parts else {}
    if not texts and not parts:
        return {path: _text(value)}
    for name, part in parts.items():
        assert name is not None
        texts |= describe(part, f"{path}.{name}" if path else name, seen)
    return texts


def _parts(value: Any) -> dict[str | None, Any] | None:
    """The parts of a value by name, and its own text; None if it has no parts."""
    if isinstance(value, dict):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._asdict()  # type: ignore[attr-defined]
    if isinstance(value, SEQUENCES) and not all(isinstance(part, bool | int | float | str | None) for part in value):
        return {str(number): part for number, part in enumerate(value)}
    if isinstance(value, functools.partial):
        return {OWN: "functools.partial", "func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, types.FunctionType):
        return {OWN: _text(value), **_variables(value)}
    simple = (type, enum.Enum, types.ModuleType, types.BuiltinFunctionType, spaces.Space, th.nn.Module)
    if not isinstance(value, simple) and hasattr(value, "__dict__") and getattr(type(value), "__module__", "") != "builtins":
        return {OWN: _qualified(type(value)), **vars(value)}
    return None


def _variables(function: types.FunctionType) -> dict[str | None, Any]:
    parts: dict[str | None, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts[name] = cell.cell_contents
        except ValueError:  # empty
            pass
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return parts | dict(zip(reversed(names), reversed(function.__defaults__ or ()), strict=False))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        if value.size <= SHORT and not value.dtype.hasobject:
            return str(value.tolist())
        content = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
        return f"array {value.dtype}{list(value.shape)} {zlib.crc32(content):08x}"
    if isinstance(value, th.Tensor):
        return _text(value.detach().cpu().float().numpy()) if value.layout is th.strided else str(value.shape)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__} {zlib.crc32(_code(value.__code__)):08x}"
    if isinstance(value, types.BuiltinFunctionType | type):
        return _qualified(value)
    if isinstance(value, set | frozenset):
        return str(sorted(map(repr, value)))
    if value is None or isinstance(
        value, bool | int | float | complex | str | bytes | bytearray | SEQUENCES | dict | enum.Enum
    ):
        return hex(value) if type(value) is int and value.bit_length() > LONGEST else repr(value)
    if isinstance(value, spaces.Space | th.nn.Module | th.device | th.dtype | np.dtype):
        return str(value)
    return _qualified(type(value))


def _qualified(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"


def _code(code: types.CodeType) -> bytes:
    constants = [_code(part) if isinstance(part, types.CodeType) else repr(part).encode() for part in code.co_consts]
    return b"|".join([code.co_code, *constants, *(name.encode() for name in code.co_names)])
