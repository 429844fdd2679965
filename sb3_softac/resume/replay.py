"""Rows of a replay buffer, in blocks that are written again when something in them has changed."""

import itertools
import warnings
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from safetensors import SafetensorError
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her import HerReplayBuffer

from sb3_softac.replay.buffer import SoftReplayBuffer, end_episodes
from sb3_softac.resume.serialization import REMEDY, ResumeError
from sb3_softac.resume.store import Segment

# Buffers whose layout is known. Of any other, everything is saved each time.
SEGMENTED = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer, SoftReplayBuffer)
COLUMNS = ("actions", "rewards", "dones", "timeouts")
POSITION = ("pos", "full", "n_added")
# Into how many blocks a large buffer is divided, and how many transitions a block has at least.
N_BLOCKS, SMALLEST = 256, 256


def is_segmented(buffer: ReplayBuffer | None) -> TypeGuard[ReplayBuffer]:
    """Whether a replay buffer is saved block by block."""
    return type(buffer) in SEGMENTED and not getattr(buffer, "copy_info_dict", False)


def other_attributes(buffer: ReplayBuffer) -> dict[str, Any]:
    """The saved attributes of a replay buffer other than its rows."""
    rows = {*COLUMNS, *POSITION, "observations", "next_observations", "stores", "extras"} if is_segmented(buffer) else set()
    if isinstance(buffer, HerReplayBuffer) and not buffer.copy_info_dict:
        rows.add("infos")  # not in use
    return {name: part for name, part in vars(buffer).items() if name not in {*rows, "env"}}


class Block(NamedTuple):
    """Neighbouring rows of a replay buffer that are in use."""

    first: int
    rows: int
    mark: tuple[int, ...]
    """Differs if anything in the rows differs."""


def blocks(buffer: ReplayBuffer) -> list[Block]:
    length = max(-(-buffer.buffer_size // N_BLOCKS), -(-SMALLEST // buffer.n_envs))
    edges = [*range(0, buffer.size(), length), buffer.size()]
    return [Block(first, end - first, _mark(buffer, first, end)) for first, end in itertools.pairwise(edges)]


def _mark(buffer: ReplayBuffer, first: int, end: int) -> tuple[int, ...]:
    checksum = 0
    for holder, name in _arrays(buffer).values():
        checksum = zlib.crc32(np.ascontiguousarray(holder[name][first:end]).data, checksum)
    if isinstance(buffer, SoftReplayBuffer):
        # Its observations cannot be changed, only replaced with the whole row: when each row was added is enough
        newest = (buffer.pos - 1 - np.arange(first, end)) % buffer.buffer_size
        return checksum, buffer.n_added - int(newest[0]), buffer.n_added - int(newest[-1])
    if buffer.optimize_memory_usage:
        checksum = zlib.crc32(buffer.observations[end % buffer.buffer_size].tobytes(), checksum)
    return (checksum,)


def _arrays(buffer: ReplayBuffer) -> dict[str, tuple[dict[str, Any], str]]:
    """By name: where each array is that a user can change, as a dictionary and a key."""
    arrays = {name: (vars(buffer), name) for name in COLUMNS}
    if isinstance(buffer, SoftReplayBuffer):
        return arrays | {f"extras.{name}": (buffer.extras, name) for name in buffer.extras}
    kinds = ("observations",) if buffer.optimize_memory_usage else ("observations", "next_observations")
    for kind in kinds:
        part = getattr(buffer, kind)
        keys = {f"{kind}.{key}": (part, key) for key in part} if isinstance(part, dict) else {f"{kind}.": (vars(buffer), kind)}
        arrays |= keys
    return arrays


def _is_observation(name: str) -> bool:
    return name.startswith(("observations.", "next_observations."))


def _observations(buffer: ReplayBuffer, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By key: observations and next observations ``[n_rows, n_envs, ...]``."""
    if buffer.optimize_memory_usage:
        return {"": (buffer.observations[rows], buffer.observations[(rows + 1) % buffer.buffer_size])}
    first, second = (
        part if isinstance(part, dict) else {"": part} for part in (buffer.observations, buffer.next_observations)
    )
    return {key: (first[key][rows], second[key][rows]) for key in first}


def read_rows(buffer: ReplayBuffer, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The contents of rows by name. Next observations are included where they differ from the observations of the next row."""
    contents = {
        name: np.asarray(holder[key])[rows] for name, (holder, key) in _arrays(buffer).items() if not _is_observation(name)
    }
    for key, (first, second) in _observations(buffer, rows).items():
        bytes_of = [
            np.ascontiguousarray(part).reshape(len(rows), buffer.n_envs, -1).view(np.uint8) for part in (first, second)
        ]
        differs = np.ones((len(rows), buffer.n_envs), dtype=bool)
        differs[:-1] = (bytes_of[1][:-1] != bytes_of[0][1:]).any(axis=2)
        contents |= {f"observations.{key}": first, f"next.{key}": second[differs], f"differs.{key}": differs}
    return contents


def _write_rows(buffer: ReplayBuffer, rows: np.ndarray, contents: dict[str, np.ndarray], part: slice) -> None:
    """Write a part of what :func:`read_rows` returned into some rows."""

    def write(name: str, values: np.ndarray) -> None:
        holder, key = arrays[name]
        if values.shape != (len(rows), *holder[key].shape[1:]):
            raise ValueError(f"{name.strip('.')} has the shape {values.shape}")
        if holder[key].dtype != values.dtype:  # the user has replaced the array
            holder[key] = holder[key].astype(values.dtype)
        holder[key][rows] = values

    arrays = _arrays(buffer)
    for name in arrays:
        if not _is_observation(name):
            write(name, contents[name][part])
    for key in [name.removeprefix("observations.") for name in contents if name.startswith("observations.")]:
        first = contents[f"observations.{key}"]
        second = np.concatenate([first[1:], first[:1]])
        second[contents[f"differs.{key}"]] = contents[f"next.{key}"]
        first, second = first[part], second[part]
        if isinstance(buffer, SoftReplayBuffer):
            store = buffer.stores[key]
            if first.shape != (len(rows), *store.row_shape):
                raise ValueError(f"observations.{key} has the shape {first.shape}")
            store.add_rows(rows[0], *(values.astype(store.space.dtype, copy=False) for values in (first, second)))
            continue
        write(f"observations.{key}", first)
        if buffer.optimize_memory_usage:
            buffer.observations[(rows[-1] + 1) % buffer.buffer_size] = second[-1]
        else:
            write(f"next_observations.{key}", second)


def position(buffer: ReplayBuffer) -> dict[str, Any]:
    """The position of a replay buffer, as JSON."""
    return {name: int(getattr(buffer, name)) for name in POSITION if hasattr(buffer, name)} | {"full": bool(buffer.full)}


def restore_rows(buffer: ReplayBuffer, there: dict[str, Any], segments: list[Segment]) -> None:
    """
    Write back the rows of a checkpoint. If some are missing, the others move together, and n-step targets end at the gaps.
    Only the rows of ``HerReplayBuffer``, which refers to them by their numbers, stay in place: see :func:`forget_episodes`.
    """
    size = buffer.buffer_size
    n_missing = len(missing_rows(there, size, segments))
    buffer.reset()
    moves = n_missing > 0 and not isinstance(buffer, HerReplayBuffer)
    pos, oldest = there["pos"], there["pos"] if there["full"] else 0
    written, expected = 0, oldest
    # In the oldest row of this buffer is the newest next observation; where rows move, it would be taken for its own
    useless = oldest if moves and there["full"] and buffer.optimize_memory_usage else None
    for segment, start, end in _by_age(segments, oldest):
        if start == useless:
            start = expected = start + 1
            if start == end:
                continue
        if start != expected and written > 0:
            _end_targets(buffer, written - 1)
        rows = (written if moves else start) + np.arange(end - start)
        part = slice(start - segment.first, end - segment.first)
        try:
            _write_rows(buffer, rows, segment.read(), part)
        except (ValueError, IndexError, KeyError, TypeError, OSError, SafetensorError) as error:
            raise ResumeError(
                f"{segment.file} cannot be read into the replay buffer: {type(error).__name__}: {error}"
            ) from error
        written, expected = written + end - start, end % size
    if moves and expected != pos and written > 0:
        _end_targets(buffer, written - 1)
    vars(buffer).update({name: there[name] for name in POSITION if name in there})
    if moves:
        buffer.pos, buffer.full = written, False


def missing_rows(there: dict[str, Any], size: int, segments: list[Segment]) -> np.ndarray:
    """The rows in use that are in none of the segments."""
    in_use = size if there["full"] else there["pos"]
    covered = np.zeros(in_use, int)
    for segment in segments:
        covered[segment.first : segment.first + segment.rows] += 1
    if not 0 <= there["pos"] < size or covered.sum() != sum(segment.rows for segment in segments) or (covered > 1).any():
        raise ResumeError(
            f"The rows of the replay buffer in the checkpoint do not fit the present one of {size} rows. {REMEDY}"
        )
    return np.flatnonzero(covered == 0)


def _by_age(segments: list[Segment], oldest: int) -> Iterator[tuple[Segment, int, int]]:
    """Parts of blocks, each with its first row and the row after its last one, from the oldest row on."""
    spans = [(segment, segment.first, segment.first + segment.rows) for segment in sorted(segments, key=lambda s: s.first)]
    yield from [(segment, max(first, oldest), end) for segment, first, end in spans if end > oldest]
    yield from [(segment, first, min(end, oldest)) for segment, first, end in spans if first < oldest]


def _end_targets(buffer: ReplayBuffer, row: int) -> None:
    """End targets at a row whose successor is missing."""
    if isinstance(buffer, SoftReplayBuffer):
        buffer.timeouts[row] |= ~buffer.dones[row]
    elif isinstance(buffer, NStepReplayBuffer) and buffer.handle_timeout_termination:
        running = buffer.dones[row] == 0
        buffer.dones[row, running] = buffer.timeouts[row, running] = 1.0
    elif isinstance(buffer, NStepReplayBuffer) or buffer.optimize_memory_usage:
        buffer.dones[row] = 1.0  # time limits are terminations there


def forget_episodes(buffer: HerReplayBuffer, rows: np.ndarray) -> None:
    size = buffer.buffer_size
    for row, env in itertools.product(rows.tolist(), range(buffer.n_envs)):
        episode = (buffer.ep_start[row, env] + np.arange(buffer.ep_length[row, env])) % size
        buffer.ep_length[episode, env] = 0
    for env, start in enumerate(buffer._current_ep_start.tolist()):
        if np.isin((start + np.arange((buffer.pos - start) % size)) % size, rows).any():
            buffer._current_ep_start[env] = buffer.pos


def end_all_episodes(buffer: ReplayBuffer | None) -> None:
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says what is meant here
            buffer.truncate_last_trajectory()
    else:
        end_episodes(buffer)
