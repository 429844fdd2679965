"""Checks before anything is stored in a replay buffer: values must fit its rows, and the rows must fit the memory."""

import warnings
from collections.abc import Iterable, KeysView, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common import buffers as sb3_buffers

from sb3_softac.checks import integer, number, read


def as_row(name: str, value: Any, shape: tuple[int, ...], reshape: bool = False) -> np.ndarray:
    """The value in the shape of a row, brought there as by NumPy's assignment in SB3's buffers; not always a copy."""
    if isinstance(value, np.ndarray) and value.shape == shape:
        return value
    array = np.asarray(value)
    row = np.empty(shape, array.dtype)
    try:
        row[...] = array.reshape(shape) if reshape else array
    except ValueError:
        message = f"{name} must have the shape {shape} (environments first), got {array.shape}"
        if len(shape) == 4 and sorted(array.shape[-3:]) == sorted(shape[1:]):
            message += (
                ": the axes of the image are in a different order. The algorithms use channels-first images; "
                "VecTransposeImage converts the environment's images to that order, below VecNormalize if there is one: "
                "VecNormalize(VecTransposeImage(env))"
            )
        raise ValueError(message) from None
    return row


def time_limits(infos: Sequence[dict[str, Any]], n_envs: int) -> Any:
    """Whether time limits ended the episodes ``[n_envs]``, by the infos; a flag may also be an array of one element."""
    timeouts = [bool(info.get("TimeLimit.truncated")) for info in infos]
    return timeouts if len(timeouts) == n_envs else as_row("infos", timeouts, (n_envs,))


def by_key(name: str, obs: Any, keys: KeysView[str]) -> dict[str, Any]:
    """Observations by the keys of their space; one empty key if it is not a dictionary."""
    is_dict = isinstance(obs, dict)
    if not is_dict and "" in keys:
        return {"": obs}
    if not is_dict or "" in keys or obs.keys() != keys:
        wanted = "an array" if "" in keys else f"a dictionary with the keys {sorted(keys)}"
        given = f"a dictionary with the keys {sorted(obs)}" if is_dict else f"a {type(obs).__name__}"
        raise ValueError(f"{name} must be {wanted}, like the observation space, got {given}")
    return obs


def extra_columns(given: Sequence[dict[str, Any]], columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of the extra columns, from their values by name, one dictionary per environment."""
    for i, values in enumerate(given):
        if values.keys() != columns.keys():
            odd = {"missing": columns.keys() - values.keys(), "unknown": values.keys() - columns.keys()}
            wrong = " and ".join(f"{sorted(names)} are {what}" for what, names in odd.items() if names)
            raise ValueError(
                f"The extra columns of the replay buffer are {sorted(columns)}; in infos[{i}]['sb3_softac.extras'], where "
                f"with_extras() puts them, {wrong}"
            )
    return {
        name: as_row(f"extras[{name!r}]", [values[name] for values in given], old.shape[1:]) for name, old in columns.items()
    }


def steps(column: Any) -> Iterable[Any]:
    """The values of each step, from those of several steps ``[n_steps, ...]`` or a dictionary of them."""
    if not isinstance(column, dict):
        return column
    return (dict(zip(column, values, strict=True)) for values in zip(*column.values(), strict=True))


def check_numbers(buffer_size: int, n_envs: int, n_steps: int, gamma: float) -> None:
    """Refuse numbers that are out of their ranges."""
    for name, value in {"buffer_size": buffer_size, "n_envs": n_envs, "n_steps": n_steps}.items():
        read(name, value, integer(1))
    read("gamma", gamma, number("a number between 0 and 1", lambda value: 0.0 <= value <= 1.0))


def warn_about_memory(needed: int) -> None:
    """Warn if a replay buffer needs more bytes to become full than are available, as SB3's do if psutil is installed."""
    if sb3_buffers.psutil is None:
        return
    available = sb3_buffers.psutil.virtual_memory().available
    if needed > available:
        warnings.warn(
            "This system apparently does not have enough memory for the full replay buffer: it needs another "
            f"{needed / 1000000000.0:.2f}GB, and {available / 1000000000.0:.2f}GB are available. Use a smaller buffer_size",
            stacklevel=3,
        )
