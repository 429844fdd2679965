"""Checks before anything is stored in a replay buffer: values must fit its rows, and the rows must fit the memory."""

import warnings
from collections.abc import Iterable, KeysView, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common import buffers as sb3_buffers


def as_row(name: str, value: Any, shape: tuple[int, ...], reshape: bool = False) -> np.ndarray:
    """
    Bring a value to the shape of a row, as assignment in NumPy and so in SB3's buffers does.

    :param name: Name of the value in errors.
    :param value: Array or list.
    :param shape: Shape of the row ``[n_envs, ...]``.
    :param reshape: Whether only the number of elements has to match.
    :return: Array of that shape, not always a copy.
    :raises ValueError: if the shape does not match.
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
                ": the axes of the image are in a different order. The algorithms use channels-first images; "
                "VecTransposeImage converts the environment's images to that order"
            )
        raise ValueError(message) from None
    return row


def time_limits(infos: Sequence[dict[str, Any]], n_envs: int) -> Any:
    """
    :param infos: Infos, one per environment.
    :param n_envs: Number of environments.
    :return: Whether time limits ended the episodes ``[n_envs]``; 0-dimensional arrays and arrays of one element are accepted
        too.
    :raises ValueError: if the number of infos is wrong.
    """
    timeouts = [bool(info.get("TimeLimit.truncated")) for info in infos]
    return timeouts if len(timeouts) == n_envs else as_row("infos", timeouts, (n_envs,))


def by_key(name: str, obs: Any, keys: KeysView[str]) -> dict[str, Any]:
    """
    Split observations by key.

    :param name: Name of the observations in errors.
    :param obs: Observations ``[n_envs, ...]`` or a dictionary of them.
    :param keys: Keys of the observation space; one empty key if it is not a dictionary.
    :return: Observations by these keys.
    :raises ValueError: if keys are missing or unknown.
    """
    is_dict = isinstance(obs, dict)
    if not is_dict and "" in keys:
        return {"": obs}
    if not is_dict or "" in keys or obs.keys() != keys:
        wanted = "an array" if "" in keys else f"a dictionary with the keys {sorted(keys)}"
        given = f"a dictionary with the keys {sorted(obs)}" if is_dict else f"a {type(obs).__name__}"
        raise ValueError(f"{name} must be {wanted}, like the observation space, got {given}")
    return obs


def extra_columns(given: Sequence[dict[str, Any]], columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    :param given: Values of the extra columns by name, one dictionary per environment.
    :param columns: The columns by name ``[buffer_size, n_envs, ...]``.
    :return: The values as rows of the columns.
    :raises ValueError: if columns are missing or unknown, or a shape does not fit.
    """
    for i, values in enumerate(given):
        if values.keys() != columns.keys():
            missing, unknown = sorted(columns.keys() - values.keys()), sorted(values.keys() - columns.keys())
            raise ValueError(
                f"The extra columns of the replay buffer are {sorted(columns)}; in infos[{i}]['sb3_softac.extras'] {missing} "
                f"are missing and {unknown} are unknown"
            )
    return {
        name: as_row(f"extras[{name!r}]", [values[name] for values in given], old.shape[1:]) for name, old in columns.items()
    }


def steps(column: Any) -> Iterable[Any]:
    """
    :param column: Values of several steps ``[n_steps, ...]``, or a dictionary of them.
    :return: The values of each step, as a replay buffer's :meth:`add` expects them.
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
    Warn if the memory will not be sufficient, as SB3's buffers do if psutil is installed.

    :param needed: Bytes of the replay buffer when it is full.
    """
    if sb3_buffers.psutil is None:
        return
    available = sb3_buffers.psutil.virtual_memory().available
    if needed > available:
        warnings.warn(
            f"This system apparently does not have enough memory for the full replay buffer: {needed / 1000000000.0:.2f}GB > "
            f"{available / 1000000000.0:.2f}GB. Use a smaller buffer_size",
            stacklevel=3,
        )
