"""What is added to a replay buffer must fit its rows, and the rows must fit the memory: checks before anything is stored."""

import warnings
from collections.abc import Iterable, KeysView, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common import buffers as sb3_buffers


def as_row(name: str, value: Any, shape: tuple[int, ...], reshape: bool = False) -> np.ndarray:
    """
    Bring a value to the shape of a row as numpy's assignment does, and SB3's buffers with it.

    :param name: What the value is called in errors.
    :param value: Array or list.
    :param shape: Shape of the row ``[n_envs, ...]``.
    :param reshape: Whether only the number of elements has to fit.
    :return: Array of that shape, not always a copy.
    :raises ValueError: if the value does not fit.
    """
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
                ": the axes of the picture are in another order. The algorithms' pictures are channels-first; "
                "VecTransposeImage brings the environment's to that order"
            )
        raise ValueError(message) from None
    return row


def time_limits(infos: Sequence[dict[str, Any]], n_envs: int) -> Any:
    """
    :param infos: Infos, one per environment.
    :param n_envs: Number of environments.
    :return: Whether time limits ended the episodes ``[n_envs]``; 0-dimensional arrays and arrays of one element are taken too.
    :raises ValueError: if the number of infos is another.
    """
    timeouts = [bool(info.get("TimeLimit.truncated")) for info in infos]
    return timeouts if len(timeouts) == n_envs else as_row("infos", timeouts, (n_envs,))


def by_key(name: str, obs: Any, keys: KeysView[str]) -> dict[str, Any]:
    """
    Tell the parts of an observation apart.

    :param name: What the observations are called in errors.
    :param obs: Observations ``[n_envs, ...]`` or a dictionary of them.
    :param keys: Keys of the observation space; one empty key if it is no dictionary.
    :return: Observations by these keys.
    :raises ValueError: if keys are missing or unknown.
    """
    is_dict = isinstance(obs, dict)
    if not is_dict and "" in keys:
        return {"": obs}
    if not is_dict or "" in keys or obs.keys() != keys:
        wanted = "an array" if "" in keys else f"a dictionary with the keys {sorted(keys)}"
        given = f"a dictionary with the keys {sorted(obs)}" if is_dict else f"a {type(obs).__name__}"
        raise ValueError(f"{name} must be {wanted}, as the observation space is, got {given}")
    return obs


def extra_columns(extras: dict[str, Any] | None, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    :param extras: Values of the extra columns by name ``[n_envs, ...]``; None if there are none.
    :param columns: The columns by name ``[buffer_size, n_envs, ...]``.
    :return: The values as rows of the columns.
    :raises ValueError: if columns are missing or unknown, or a shape does not fit.
    """
    given = extras or {}
    if given.keys() != columns.keys():
        missing, unknown = sorted(columns.keys() - given.keys()), sorted(given.keys() - columns.keys())
        raise ValueError(
            f"The extra columns of the replay buffer are {sorted(columns)}; in add(..., extras=...) {missing} are missing and "
            f"{unknown} are unknown"
        )
    return {name: as_row(f"extras[{name!r}]", given[name], old.shape[1:]) for name, old in columns.items()}


def steps(column: Any) -> Iterable[Any]:
    """
    :param column: Values of several steps ``[n_steps, ...]``, or a dictionary of them.
    :return: The values of each step, as :meth:`add` of a replay buffer takes them.
    """
    if not isinstance(column, dict):
        return column
    return (dict(zip(column, values, strict=True)) for values in zip(*column.values(), strict=True))


def check_numbers(buffer_size: int, n_envs: int, n_steps: int, gamma: float) -> None:
    """
    :param buffer_size: Number of transitions.
    :param n_envs: Number of environments.
    :param n_steps: Number of rewards in a target.
    :param gamma: Discount factor.
    :raises ValueError: if one of them is out of its range.
    """
    for name, number in {"buffer_size": buffer_size, "n_envs": n_envs, "n_steps": n_steps}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be between 0 and 1, got {gamma}")


def warn_about_memory(needed: int) -> None:
    """
    Warn if the memory will not suffice, as SB3's buffers do where psutil is installed.

    :param needed: Bytes of the replay buffer when it is full.
    """
    if sb3_buffers.psutil is None:
        return
    available = sb3_buffers.psutil.virtual_memory().available
    if needed > available:
        warnings.warn(
            f"This system has apparently not enough memory for the complete replay buffer: {needed / 1e9:.2f}GB > "
            f"{available / 1e9:.2f}GB. A smaller buffer_size needs less",
            stacklevel=3,
        )
