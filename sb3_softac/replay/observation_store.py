"""Observations of transitions, each stored once: the next observation of one transition is the observation of the next."""

import math
from operator import eq
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_softac.replay.row_checks import as_row, warn_about_memory

# Space beyond one observation per transition, for the ends of episodes.
SLACK = 1.05
# Up to this many observations are compared faster one by one than with NumPy.
FEW = 32
# Growth factor of the space when it is used up.
GROWTH = 1.5


class ObservationStore:
    """
    Pairs of observations in a ring of ``size`` rows of ``n_envs``.

    An observation consists of pieces: the channels of an image, otherwise a single piece. A new observation reuses the pieces
    of the previous one wherever they are equal, directly or shifted (stacked frames), so that a chain of transitions costs one
    piece per step. No assumption is made about the chain: whatever is not equal is stored. Rows are added in their order and
    never changed, and a piece is only shared by consecutive observations, which tells when its slot is free again.

    :param space: Observation space, not a dictionary.
    :param size: Number of rows.
    :param n_envs: Number of parallel environments.
    :param single_precision: Whether double-precision numbers are rounded.
    """

    def __init__(self, space: spaces.Space, size: int, n_envs: int, single_precision: bool = False):
        self.space, self.size = space, size
        self.shape = (1,) if isinstance(space, spaces.Discrete) else tuple(space.shape or ())
        image = len(self.shape) == 3 and is_image_space(space, check_channels=False, normalized_image=False)
        channels_first = image and self.shape[0] == min(self.shape)
        self.n_pieces = self.shape[0] if channels_first else 1
        dtype = np.float32 if single_precision and space.dtype == np.float64 else space.dtype
        n_slots = int(size * n_envs * SLACK) + 4 * n_envs * self.n_pieces
        # Zeros that were never written take up no memory
        self.pieces = np.zeros((n_slots, *(self.shape[1:] if channels_first else self.shape)), dtype)
        self.index = np.zeros((2, size, n_envs, self.n_pieces), np.int32)
        """Where the pieces of observations (0) and next observations (1) are; slot 0 before the first."""
        self.row_shape = (n_envs, *self.shape)
        self.version = 0
        """Counts the changes that a mirror cannot follow row by row: growth, another dtype, a reset."""
        self._start()

    def clear(self) -> None:
        """Forget all observations."""
        self.index[:] = 0
        self.version += 1
        self._start()

    def _start(self) -> None:
        # Slots from n_used on have not been in use yet; slot 0 always is
        self._n_rows, self._next_row, self._n_used = 0, 0, 1
        self._free, self._n_free = np.zeros(64, np.int32), 0
        self._last: bytes | None = None
        self._last_slots = np.zeros(0, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays. They grow if the pieces of images change more often than those of stacked frames do."""
        return self.pieces.nbytes + self.index.nbytes

    def fit(self, obs: Any, next_obs: Any, part: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Both observations ``[n_envs, ...]`` in the dtype of the space, not always copies; ValueError if a shape differs."""
        shape, reshape, dtype = self.row_shape, isinstance(self.space, spaces.Discrete), self.space.dtype
        first, second = as_row(f"obs{part}", obs, shape, reshape), as_row(f"next_obs{part}", next_obs, shape, reshape)
        return first.astype(dtype, copy=False), second.astype(dtype, copy=False)

    def add(self, row: int, obs: np.ndarray, next_obs: np.ndarray) -> None:
        """Store what :meth:`fit` returned in the row after the newest, whose old content is discarded."""
        if row != self._next_row and self._n_rows > 0:
            raise ValueError(
                f"The replay buffer's write position is {row} but the next row is {self._next_row}: do not set pos, which "
                "follows from add and extend; reset() empties the buffer"
            )
        obs_bytes, next_bytes = obs.tobytes(), next_obs.tobytes()
        first = self._store(obs, obs_bytes, self._last, self._last_slots)
        second = self._store(next_obs, next_bytes, obs_bytes, first)
        self._last, self._last_slots = next_bytes, second
        index = self.index.reshape(2, self.size, -1)
        self._next_row = (row + 1) % self.size
        if self._n_rows < self.size:
            self._n_rows += 1
            index[0, row], index[1, row] = first, second
            return
        # The row before the old content is already gone, so only the row after it matters
        old_first, old_second = index[:, row].copy()
        index[0, row], index[1, row] = first, second
        self._release(old_first, old_second)
        following = index[0, self._next_row]
        if old_second.tobytes() != following.tobytes():
            self._release(old_second, following)

    def add_rows(self, row: int, obs: np.ndarray, next_obs: np.ndarray) -> None:
        """Store ``[n_rows, n_envs, ...]`` in rows that are not in use, as :meth:`add` does one by one, but faster."""
        if self.n_pieces > 1:
            for number, pair in enumerate(zip(obs, next_obs, strict=True), start=row):
                self.add(number, *pair)
            return
        chain = np.stack([obs, next_obs], axis=1).reshape(2 * len(obs), *self.row_shape)
        content = chain.view(np.uint8).reshape(*chain.shape[:2], -1)
        fresh = np.ones(chain.shape[:2], dtype=bool)
        fresh[1:] = (content[1:] != content[:-1]).any(axis=2)
        slots = np.zeros(fresh.shape, np.int32)
        slots[fresh] = taken = self._take(int(fresh.sum()))
        self.pieces[taken] = chain[fresh]
        newest = np.maximum.accumulate(np.where(fresh, np.arange(len(chain))[:, None], 0), axis=0)
        slots = np.take_along_axis(slots, newest, axis=0)
        self.index[0, row : row + len(obs), :, 0], self.index[1, row : row + len(obs), :, 0] = slots[::2], slots[1::2]
        self._last, self._last_slots = chain[-1].tobytes(), slots[-1]
        self._n_rows, self._next_row = self._n_rows + len(obs), (row + len(obs)) % self.size

    def get(self, next_obs: bool, where: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Observations, or next observations, at positions counted over rows and environments, a copy ``[batch, ...]``."""
        index = self.index[int(next_obs)].reshape(-1, self.n_pieces).take(where, axis=0)
        if out is None:
            return self.pieces.take(index, axis=0).reshape(len(index), *self.shape)
        # Not the mode "raise", with which NumPy would copy once more
        self.pieces.take(index, axis=0, out=out.reshape(*index.shape, *self.pieces.shape[1:]), mode="clip")
        return out

    def keep_double_precision(self) -> None:
        """Stop rounding double-precision numbers."""
        if self.pieces.dtype != self.space.dtype:
            self._move_pieces(len(self.pieces), self.space.dtype)
            self.version += 1
            self._last = None  # it was rounded

    def _store(self, values: np.ndarray, new: bytes, old: bytes | None, before: np.ndarray) -> np.ndarray:
        """Where the pieces of observations are ``[n_envs * n_pieces]``; those before them, if known, may have the same."""
        if new == old:
            return before
        number = len(values) * self.n_pieces
        pieces = values.reshape(number, *self.pieces.shape[1:])
        slots = None if old is None or number == 1 else self._shared(new, old, before)
        if slots is None:
            slots = self._take(number)
            self.pieces[slots] = pieces
        else:
            fresh = np.flatnonzero(slots == 0)
            slots[fresh] = taken = self._take(len(fresh))
            self.pieces[taken] = pieces[fresh]
        return slots

    def _shared(self, new: bytes, old: bytes, before: np.ndarray) -> np.ndarray | None:
        """:return: Positions of the pieces that the old observations have too, 0 for new pieces; None if all are new."""
        k = self.n_pieces
        size, slots = len(new) // len(before) * k, None
        if k == 1 and len(before) > FEW:
            word = f"u{math.gcd(size, 8)}"
            here, there = (np.frombuffer(part, word).reshape(len(before), -1) for part in (new, old))
            places = np.flatnonzero(here[:, 0] == there[:, 0])  # decided early: most observations differ in their first words
            places = places[(here[places] == there[places]).all(axis=1)]
            if len(places):
                slots = np.zeros_like(before)
                slots[places] = before[places]
            return slots
        if k == 1 and not any(map(eq, new[::size], old[::size])):
            return None
        for start, place in zip(range(0, len(new), size), range(0, len(before), k), strict=True):
            for shift in range(k):
                if new.startswith(old[start + shift * size // k : start + size], start):
                    slots = np.zeros_like(before) if slots is None else slots
                    slots[place : place + k - shift] = before[place + shift : place + k]
                    break
        return slots

    def _take(self, number: int) -> np.ndarray:
        """:return: Free slots."""
        missing = number - self._n_free
        if missing <= 0:
            self._n_free -= number
            return self._free[self._n_free : self._n_free + number].copy()
        if self._n_used + missing > len(self.pieces):
            most = self.index.size + 2 * self.index[0, 0].size + 1  # if all differ; the oldest go after the new have come
            n_slots = max(self._n_used + missing, min(int(len(self.pieces) * GROWTH), most))
            if 0 < self._n_rows < self.size:  # what it will take if it goes on like this
                slots_in_all = min(self._n_used * self.size // self._n_rows, most)
                warn_about_memory((slots_in_all - self._n_used) * self.pieces[0].nbytes)
            self._move_pieces(n_slots, self.pieces.dtype)
            self.version += 1
        new = np.arange(self._n_used, self._n_used + missing, dtype=np.int32)
        taken = np.concatenate([self._free[: self._n_free], new]) if self._n_free else new
        self._n_used, self._n_free = self._n_used + missing, 0
        return taken

    def _release(self, slots: np.ndarray, following: np.ndarray) -> None:
        """Free the slots of observations ``[n_envs * n_pieces]`` that those after them do not use."""
        if self.n_pieces == 1:
            gone = slots[slots != following]
        else:
            pairs = slots.reshape(-1, self.n_pieces, 1) == following.reshape(-1, 1, self.n_pieces)
            gone = slots[~pairs.any(axis=2).ravel()]
        end = self._n_free + len(gone)
        if end > len(self._free):
            self._free = np.concatenate([self._free, np.zeros(end, np.int32)])
        self._free[self._n_free : end] = gone
        self._n_free = end

    def _move_pieces(self, n_slots: int, dtype: Any) -> None:
        pieces = np.zeros((n_slots, *self.pieces.shape[1:]), dtype)
        pieces[: self._n_used] = self.pieces[: self._n_used]
        self.pieces = pieces
