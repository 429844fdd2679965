"""Observations of transitions, each stored once: the next observation of one transition is the observation of the next."""

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

# Room beyond one observation per transition, for those at the ends of episodes; grows by as much when it is used up.
SLACK = 1.05


class ObservationStore:
    """
    Pairs of observations in ``size`` rows of ``n_envs``, the oldest overwritten first.

    An observation is made of pieces: the channels of an image, otherwise one. A new observation takes over the pieces of the
    one before it wherever they are equal, as they are or shifted (stacked frames), so that a chain of transitions costs one
    piece per step. Nothing is assumed about the chain: what is not equal is stored.

    :param space: Observation space, not a dictionary.
    :param size: Number of rows.
    :param n_envs: Number of parallel environments.
    """

    def __init__(self, space: spaces.Space, size: int, n_envs: int):
        assert space.shape is not None
        self.size, self.shape = size, space.shape
        image = len(space.shape) == 3 and is_image_space(space, check_channels=False, normalized_image=False)
        piece_shape = space.shape[1:] if image else space.shape
        self.n_pieces = space.shape[0] if image else 1
        dtype = np.float32 if space.dtype == np.float64 else space.dtype
        n_slots = int(size * n_envs * SLACK) + 4 * n_envs * self.n_pieces
        # Zeros that were never written take up no memory
        self.pieces = np.zeros((n_slots, *piece_shape), dtype)
        self.index = np.zeros((2, size, n_envs, self.n_pieces), np.int32)
        """Where the pieces of observations (0) and next observations (1) are."""
        # Slot 0 is never given away: the first transitions are compared with its zeros
        self._free = np.arange(n_slots, dtype=np.int32)[::-1].copy()
        self._n_free = n_slots - 1

    def add(self, row: int, overwrite: bool, obs: np.ndarray, next_obs: np.ndarray) -> None:
        """
        Store one transition per environment.

        :param row: Where to; rows are filled in a ring.
        :param overwrite: Whether the row holds a transition already, the oldest.
        :param obs: Observations ``[n_envs, ...]``.
        :param next_obs: Next observations ``[n_envs, ...]``.
        """
        first = self._store(obs, self.index[1, row - 1])
        second = self._store(next_obs, first)
        old_first, old_second = self.index[:, row].copy()
        self.index[0, row], self.index[1, row] = first, second
        if overwrite:
            # Only its neighbours share pieces with a transition, and the one before is gone already
            shared = self.index[:, (row + 1) % self.size]
            self._release(old_first, *shared)
            self._release(old_second, *shared, old_first)

    def get(self, next_obs: bool, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """
        :param next_obs: Whether the next observations are meant.
        :param where: Rows and environments ``[batch]`` each.
        :return: Observations ``[batch, ...]``, a copy.
        """
        index = self.index[int(next_obs)][where]
        return self.pieces[index].reshape(len(index), *self.shape)

    def _store(self, values: np.ndarray, before: np.ndarray) -> np.ndarray:
        """
        :param values: Observations ``[n_envs, ...]``.
        :param before: Where the pieces of those before them are ``[n_envs, n_pieces]``.
        :return: Where their pieces are ``[n_envs, n_pieces]``.
        """
        n_envs, k = before.shape
        values = values.reshape(n_envs, k, *self.pieces.shape[1:]).astype(self.pieces.dtype, copy=False)
        known = self.pieces[before]
        if (values == known).all():
            return before
        index = np.full((n_envs, k), -1, np.int32)
        for shift in range(k):
            equal = (values[:, : k - shift] == known[:, shift:]).reshape(n_envs, -1).all(axis=1) & (index[:, 0] < 0)
            index[equal, : k - shift] = before[equal, shift:]
        new = index < 0
        slots = self._take(int(np.count_nonzero(new)))
        self.pieces[slots] = values[new]
        index[new] = slots
        return index

    def _take(self, number: int) -> np.ndarray:
        """:return: Free slots."""
        if number > self._n_free:
            self._grow()
        self._n_free -= number
        return self._free[self._n_free : self._n_free + number].copy()

    def _release(self, slots: np.ndarray, *others: np.ndarray) -> None:
        """
        :param slots: Slots to be free again ``[n_envs, n_pieces]``,
        :param others: unless they are among these of the same environment ``[n_envs, n_pieces]`` each, or slot 0.
        """
        in_use = np.concatenate(others, axis=1)
        free = slots[(slots[:, :, None] != in_use[:, None, :]).all(axis=2) & (slots > 0)]
        self._free[self._n_free : self._n_free + len(free)] = free
        self._n_free += len(free)

    def _grow(self) -> None:
        n_slots = len(self.pieces)
        more = int(n_slots * (SLACK - 1.0)) + 4 * self.index.shape[2] * self.n_pieces
        self.pieces = np.concatenate([self.pieces, np.zeros((more, *self.pieces.shape[1:]), self.pieces.dtype)])
        new = np.arange(n_slots, n_slots + more, dtype=np.int32)
        self._free = np.concatenate([self._free[: self._n_free], new, np.zeros(n_slots - self._n_free, np.int32)])
        self._n_free += more
