"""Observations of transitions, each stored once: the next observation of one transition is the observation of the next."""

from collections.abc import Iterable
from operator import eq
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_softac.common.row_checks import as_row

# Room beyond one observation per transition, for those at the ends of episodes.
SLACK = 1.05
# So few numpy copies sooner one by one than by an array of indices.
FEW = 8
# By what the room is multiplied when it is used up.
GROWTH = 1.5


class ObservationStore:
    """
    Pairs of observations in a ring of ``size`` rows of ``n_envs``.

    An observation consists of pieces: the channels of an image, otherwise a single piece. A new observation reuses the pieces
    of the previous one wherever they are equal, directly or shifted (stacked frames), so that a chain of transitions costs one
    piece per step. No assumption is made about the chain: whatever is not equal is stored. A piece is only shared by
    consecutive observations, which tells when its slot is free again.

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
        """Counts what a copy elsewhere cannot follow row by row: growth, other types, and rows that are written over."""
        self._start()

    def clear(self) -> None:
        """Forget all observations."""
        self.index[:] = 0
        self._start()

    def _start(self) -> None:
        # Slots from n_used on have not been in use yet; slot 0 always is
        self._next_row, self._n_used, self._free = 0, 1, list[int]()
        self._break_chain()

    def _break_chain(self) -> None:
        """Store the next observation without comparing it with the previous one, which may have changed."""
        self.version += 1
        self._last: bytes | None = None
        self._last_slots: list[int] = []

    def upgrade(self, space: spaces.Space, next_row: int) -> None:
        """
        Convert a store that an earlier version of the package has saved.

        :param space: Observation space.
        :param next_row: Row that comes next.
        """
        self.space, self._next_row, self.version = space, next_row, 0
        self.shape = (1,) if isinstance(space, spaces.Discrete) else self.shape
        self.row_shape = (self.index.shape[2], *self.shape)
        self._n_used = int(self.index.max()) + 1
        self._free = np.setdiff1d(np.arange(1, self._n_used), self.index).tolist()
        self._break_chain()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays when they are full."""
        return self.pieces.nbytes + self.index.nbytes

    def fit(self, obs: Any, next_obs: Any, part: str = "") -> tuple[np.ndarray, np.ndarray]:
        """
        :param obs: Observations.
        :param next_obs: Next observations.
        :param part: Name of this part of the observations, for errors.
        :return: The same in the dtype of the space ``[n_envs, ...]``, not always copies.
        :raises ValueError: if a shape differs.
        """
        shape, reshape, dtype = self.row_shape, isinstance(self.space, spaces.Discrete), self.space.dtype
        first, second = as_row(f"obs{part}", obs, shape, reshape), as_row(f"next_obs{part}", next_obs, shape, reshape)
        return first.astype(dtype, copy=False), second.astype(dtype, copy=False)

    def add(self, row: int, obs: np.ndarray, next_obs: np.ndarray) -> None:
        """
        Store one transition per environment.

        :param row: Row to write; its old content is discarded.
        :param obs: Observations ``[n_envs, ...]`` as :meth:`fit` returns them.
        :param next_obs: Next observations, likewise.
        """
        if row != self._next_row:  # not the oldest: the user has moved on
            self._detach(0, row, range(len(obs)))
            self._break_chain()
        obs_bytes, next_bytes = obs.tobytes(), next_obs.tobytes()
        first = self._store(obs, obs_bytes, self._last, self._last_slots)
        second = self._store(next_obs, next_bytes, obs_bytes, first)
        self._last, self._last_slots = next_bytes, second
        index = self.index.reshape(2, self.size, -1)
        old_first, old_second = index[:, row].tolist()
        index[0, row], index[1, row] = first, second
        self._next_row = (row + 1) % self.size
        if any(old_first) or any(old_second):  # what was before them is gone already, so only what comes next counts
            following = index[0, self._next_row].tolist()
            free = set(old_first).difference(old_second)
            if old_second != following:
                free.update(set(old_second).difference(following))
            free.discard(0)
            self._free.extend(free)

    def get(self, next_obs: bool, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """
        :param next_obs: Whether to use the next observations.
        :param where: Rows and environments ``[batch]`` each.
        :return: Observations ``[batch, ...]``, a copy.
        """
        index = self.index[int(next_obs)][where]
        return self.pieces[index].reshape(len(index), *self.shape)

    def put(self, next_obs: bool, where: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> None:
        """
        Overwrite observations; others that were equal are not changed.

        :param next_obs: Whether to use the next observations.
        :param where: Rows and environments ``[batch]`` each, without duplicates.
        :param values: Observations ``[batch, ...]``.
        """
        index = self.index[int(next_obs)]
        in_use = index[where].any(axis=1)
        for row, env in zip(*(part[in_use].tolist() for part in where), strict=True):
            self._detach(int(next_obs), row, [env])
        slots = np.array(self._take(len(values) * self.n_pieces), np.int32)
        self.pieces[slots] = values.reshape(len(slots), *self.pieces.shape[1:])
        index[where] = slots.reshape(len(values), self.n_pieces)
        self._break_chain()

    def keep_double_precision(self) -> None:
        """Stop rounding double-precision numbers."""
        if self.pieces.dtype != self.space.dtype:
            self._move_pieces(len(self.pieces), self.space.dtype)
            self._break_chain()

    def _store(self, values: np.ndarray, new: bytes, old: bytes | None, before: list[int]) -> list[int]:
        """
        :param values: Observations ``[n_envs, ...]``.
        :param new: Their bytes.
        :param old: The bytes of those before them, None if not known.
        :param before: Where the pieces of those before them are ``[n_envs * n_pieces]``.
        :return: Where their pieces are ``[n_envs * n_pieces]``.
        """
        if new == old:
            return before
        number = len(values) * self.n_pieces
        pieces = values.reshape(number, *self.pieces.shape[1:])
        slots = None if old is None or number == 1 else self._shared(new, old, before)
        if slots is None:
            slots = taken = self._take(number)
        else:
            fresh = [place for place, slot in enumerate(slots) if slot == 0]
            pieces, taken = pieces[fresh], self._take(len(fresh))
            for place, slot in zip(fresh, taken, strict=True):
                slots[place] = slot
        if len(taken) <= FEW:
            for place, slot in enumerate(taken):
                self.pieces[slot] = pieces[place]
        else:
            self.pieces[taken] = pieces
        return slots

    def _shared(self, new: bytes, old: bytes, before: list[int]) -> list[int] | None:
        """:return: Positions of the pieces that the old observations have too, 0 for new pieces; None if all are new."""
        k = self.n_pieces
        size, slots = len(new) // len(before) * k, None
        if k == 1 and not any(map(eq, new[::size], old[::size])):
            return None  # their first bytes differ already, which is soon seen
        for start, place in zip(range(0, len(new), size), range(0, len(before), k), strict=True):
            for shift in range(k):
                if new.startswith(old[start + shift * size // k : start + size], start):
                    slots = slots or [0] * len(before)
                    slots[place : place + k - shift] = before[place + shift : place + k]
                    break
        return slots

    def _take(self, number: int) -> list[int]:
        """:return: Free slots."""
        missing = number - len(self._free)
        if missing > 0:
            if self._n_used + missing > len(self.pieces):
                most = self.index.size + 2 * self.index[0, 0].size + 1  # if all differ; the oldest go after the new have come
                n_slots = max(self._n_used + missing, min(int(len(self.pieces) * GROWTH), most))
                self._move_pieces(n_slots, self.pieces.dtype)
                self.version += 1
            self._free.extend(range(self._n_used, self._n_used + missing))
            self._n_used += missing
        keep = len(self._free) - number
        taken = self._free[keep:]
        del self._free[keep:]
        return taken

    def _move_pieces(self, n_slots: int, dtype: Any) -> None:
        pieces = np.zeros((n_slots, *self.pieces.shape[1:]), dtype)
        pieces[: self._n_used] = self.pieces[: self._n_used]
        self.pieces = pieces

    def _step(self, which: int, row: int, step: int) -> tuple[int, int] | None:
        """:return: Which observation of which row is before (-1) or after (1) another; None beyond the oldest and newest."""
        place, number = 2 * row + which, 2 * self.size
        if (place + (step > 0)) % number == 2 * self._next_row:
            return None
        row, which = divmod((place + step) % number, 2)
        return which, row

    def _detach(self, which: int, row: int, envs: Iterable[int]) -> None:
        """Take observations out of their chain: free the pieces that no other one uses, and keep the rest consistent."""
        before, after = self._step(which, row, -1), self._step(which, row, 1)
        for env in envs:
            earlier = [] if before is None else self.index[before][env].tolist()
            later = [] if after is None else self.index[after][env].tolist()
            for slot in set(self.index[which, row, env].tolist()) - {0}:
                if slot not in earlier and slot not in later:
                    self._free.append(slot)
                elif slot in earlier and slot in later:
                    self._split(which, row, env, slot)
            self.index[which, row, env] = 0

    def _split(self, which: int, row: int, env: int, slot: int) -> None:
        """Give the observations after one a copy of a piece that those before it have too."""
        (copy,) = self._take(1)
        self.pieces[copy] = self.pieces[slot]
        place = self._step(which, row, 1)
        while place is not None and slot in (here := self.index[place][env]):
            here[here == slot] = copy
            place = self._step(*place, 1)
