"""Rows of a replay buffer, in segments that are written once."""

import warnings
from collections.abc import Iterable
from typing import Any, TypeGuard

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her import HerReplayBuffer

from sb3_softac.common.buffers import SoftReplayBuffer
from sb3_softac.common.collect_loop import end_episodes

# Buffers whose rows stay as they are once they are written. Of any other, everything is saved each time.
SEGMENTED = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer, SoftReplayBuffer)
COLUMNS = ("actions", "rewards", "dones", "timeouts")
OBSERVATIONS = ("observations", "next_observations")


def is_segmented(buffer: ReplayBuffer | None) -> TypeGuard[ReplayBuffer]:
    """
    :param buffer: Replay buffer.
    :return: Whether it is saved row by row.
    """
    return type(buffer) in SEGMENTED and not getattr(buffer, "copy_info_dict", False)


def other_attributes(buffer: ReplayBuffer) -> dict[str, Any]:
    """
    :param buffer: Replay buffer.
    :return: The saved attributes other than its rows.
    """
    rows = {*COLUMNS, *OBSERVATIONS, "stores", "extras"} if is_segmented(buffer) else set()
    if isinstance(buffer, HerReplayBuffer) and not buffer.copy_info_dict:
        rows.add("infos")  # not in use
    return {name: part for name, part in vars(buffer).items() if name not in {*rows, "env"}}


def rows_since(buffer: ReplayBuffer, pos: int, added: int) -> np.ndarray | None:
    """
    :param buffer: Replay buffer.
    :param pos: An earlier write position.
    :param added: Number of rows added since.
    :return: The new rows, the oldest first; None if they cannot be determined from these numbers.
    """
    size = buffer.buffer_size
    if (pos + added) % size != buffer.pos:
        return None
    return (buffer.pos - min(added, size) + np.arange(min(added, size))) % size


def all_rows(buffer: ReplayBuffer) -> np.ndarray:
    """
    :param buffer: Replay buffer.
    :return: All rows in use, the oldest first.
    """
    return (buffer.pos - buffer.size() + np.arange(buffer.size())) % buffer.buffer_size


def _columns(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    extras = buffer.extras if isinstance(buffer, SoftReplayBuffer) else {}
    return {name: getattr(buffer, name) for name in COLUMNS} | {f"extras.{name}": part for name, part in extras.items()}


def _parts(observations: Any) -> dict[str, Any]:
    return observations if isinstance(observations, dict) else {"": observations}


def _observations(buffer: ReplayBuffer, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """:return: By key: observations and next observations ``[n_rows, n_envs, ...]``."""
    if isinstance(buffer, SoftReplayBuffer):
        where = np.repeat(rows, buffer.n_envs), np.tile(np.arange(buffer.n_envs), len(rows))
        shape = len(rows), buffer.n_envs
        both = {key: [store.get(which, where) for which in (False, True)] for key, store in buffer.stores.items()}
        return {
            key: (first.reshape(*shape, *first.shape[1:]), second.reshape(*shape, *second.shape[1:]))
            for key, (first, second) in both.items()
        }
    if buffer.optimize_memory_usage:
        return {"": (buffer.observations[rows], buffer.observations[(rows + 1) % buffer.buffer_size])}
    observations, following = _parts(buffer.observations), _parts(buffer.next_observations)
    return {key: (part[rows], following[key][rows]) for key, part in observations.items()}


def read_rows(buffer: ReplayBuffer, rows: np.ndarray) -> dict[str, np.ndarray]:
    """
    :param buffer: Replay buffer.
    :param rows: Consecutive rows.
    :return: Their contents by name. Next observations are included where they differ from the observations of the next row.
    """
    contents = {name: column[rows] for name, column in _columns(buffer).items()}
    for key, (first, second) in _observations(buffer, rows).items():
        bytes_of = [
            np.ascontiguousarray(part).reshape(len(rows), buffer.n_envs, -1).view(np.uint8) for part in (first, second)
        ]
        differs = np.ones((len(rows), buffer.n_envs), dtype=bool)
        differs[:-1] = (bytes_of[1][:-1] != bytes_of[0][1:]).any(axis=2)
        contents |= {f"observations.{key}": first, f"next.{key}": second[differs], f"differs.{key}": differs}
    return contents


def write_rows(buffer: ReplayBuffer, rows: np.ndarray, contents: dict[str, np.ndarray]) -> None:
    """
    :param buffer: Replay buffer.
    :param rows: Rows.
    :param contents: What :func:`read_rows` returned.
    """
    for name, column in _columns(buffer).items():
        column[rows] = contents[name]
    for key in [name.removeprefix("observations.") for name in contents if name.startswith("observations.")]:
        first = contents[f"observations.{key}"]
        second = np.concatenate([first[1:], first[:1]])
        second[contents[f"differs.{key}"]] = contents[f"next.{key}"]
        if isinstance(buffer, SoftReplayBuffer):
            store = buffer.stores[key]
            for row, *pair in zip(
                rows.tolist(), *(part.astype(store.space.dtype, copy=False) for part in (first, second)), strict=True
            ):
                store.add(row, *pair)
        elif buffer.optimize_memory_usage:
            buffer.observations[rows] = first
            buffer.observations[(rows[-1] + 1) % buffer.buffer_size] = second[-1]
        else:
            _parts(buffer.observations)[key][rows] = first
            _parts(buffer.next_observations)[key][rows] = second


def restore_rows(buffer: ReplayBuffer, segments: Iterable[tuple[int, dict[str, np.ndarray]]]) -> None:
    """
    :param buffer: Replay buffer; its contents are discarded.
    :param segments: Position of the first row of each segment, and its contents; the oldest first.
    """
    buffer.reset()
    for first, contents in segments:
        rows = (first + np.arange(len(contents["rewards"]))) % buffer.buffer_size
        write_rows(buffer, rows, contents)


def end_all_episodes(buffer: ReplayBuffer | None) -> None:
    """
    :param buffer: Replay buffer; the next transitions do not follow from its newest ones.
    """
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says what is meant here
            buffer.truncate_last_trajectory()
    else:
        end_episodes(buffer)
