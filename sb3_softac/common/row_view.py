"""Observations of a replay buffer as the array that SB3's buffers have, created only for the parts that are accessed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from sb3_softac.common.observation_store import ObservationStore
from sb3_softac.common.row_checks import by_key

# Rows that are copied at a time when all of them are assigned to.
CHUNK = 256


def _apply(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """:return: What a function of numpy gives on plain arrays, after it has been assigned to ``out``."""
    if method == "at":  # changes its input
        return NotImplemented
    targets = kwargs.pop("out", ())
    kwargs = {name: _plain(value) for name, value in kwargs.items()}
    result = getattr(ufunc, method)(*map(_plain, inputs), **kwargs)
    results = result if isinstance(result, tuple) else (result,)
    for target, values in zip(targets, results, strict=False):
        if target is not None:
            target[...] = values
    return targets[0] if len(targets) == 1 else result


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, Rows | RowView) else value


class Rows(np.ndarray):
    """Part of a :class:`RowView`, as a copy; assignments to it are also made in the view."""

    source: tuple["RowView", tuple[Any, ...]] | None = None
    """The view, and the indices that lead from there to this part, one after the other."""

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, Rows) and self.source is not None:
            part.source = (self.source[0], (*self.source[1], key))
        return part

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if self.source is not None:
            self.source[0].assign((*self.source[1], key), value)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return _apply(ufunc, method, inputs, kwargs)


class RowView(NDArrayOperatorsMixin):
    """
    The observations or next observations of a store, to read and write as an array ``[buffer_size, n_envs, ...]``.

    Only the requested rows are copied, so indices beyond rows and environments cost as much as whole rows. Parts that NumPy
    would return as views write through; ``np.asarray`` and array methods work on a copy of everything.

    :param store: The store.
    :param next_obs: Whether to use the next observations.
    """

    def __init__(self, store: ObservationStore, next_obs: bool):
        self._store, self._next_obs = store, next_obs
        self.shape: tuple[int, ...] = (*store.index.shape[1:3], *store.shape)
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape))

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self._store.pieces.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the full array."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"RowView(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The observations of the replay buffer are not stored as an array: allow a copy")
        return self._read(self._places(range(len(self)), range(self.shape[1]))).astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return _apply(ufunc, method, inputs, kwargs)

    def __getattr__(self, name: str) -> Any:
        """The methods of arrays; those that would change the copy raise an error."""
        if name.startswith("_"):
            raise AttributeError(name)
        array = np.asarray(self)
        array.flags.writeable = False
        return getattr(array, name)

    def __getitem__(self, key: Any) -> Any:
        places, inner = self._locate(key)
        part = self._read(places)[inner]
        if isinstance(part, np.ndarray) and _is_basic(key):
            part = rows = part.view(Rows)
            rows.source = (self, (key,))
        return part

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is not Ellipsis and not (isinstance(key, slice) and key == slice(None)):
            self.assign((key,), value)
            return
        array = np.asarray(value)
        try:
            values = np.broadcast_to(array, self.shape)
        except ValueError:
            raise ValueError(f"observations must have the shape {self.shape}, got {array.shape}") from None
        for start in range(0, len(self), CHUNK):
            rows = slice(start, start + CHUNK)
            self.assign((rows,), values[rows])

    def assign(self, path: tuple[Any, ...], value: Any) -> None:
        """
        Do ``view[path[0]][path[1]]... = value``.

        :param path: Indices.
        :param value: The value to assign.
        """
        places, inner = self._locate(path[0])
        before = self._read(places)
        after = before.copy()
        target, *keys = (after, inner, *path[1:])
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
        if before.size == 0:
            return
        # Only what has changed is written: the rest stays shared
        bytes_before, bytes_after = (block.reshape(places.size, -1).view(np.uint8) for block in (before, after))
        changed = (bytes_before != bytes_after).any(axis=1)
        where = divmod(places.ravel()[changed], self.shape[1])
        self._store.put(self._next_obs, where, after.reshape(places.size, *self._store.shape)[changed])

    def _places(self, rows: Any, envs: Any) -> np.ndarray:
        """:return: Numbers of the transitions of some rows and environments ``[rows, envs]``, counted row by row."""
        return np.asarray(rows)[:, None] * self.shape[1] + np.asarray(envs)

    def _read(self, places: np.ndarray) -> np.ndarray:
        where = divmod(places.ravel(), self.shape[1])
        return self._store.get(self._next_obs, where).reshape(*places.shape, *self._store.shape)

    def _locate(self, key: Any) -> tuple[np.ndarray, Any]:
        """
        Find the smallest part that an index is about.

        :param key: Index of the whole array.
        :return: Numbers of the transitions in the part, none twice, and the index that means the same in the part.
        :raises IndexError: if there is no such row or environment.
        """
        items = self._plain_items(key if isinstance(key, tuple) else (key,))
        n_rows, n_envs = self.shape[:2]
        if not items or items[0] is None or items[0] is Ellipsis:
            return self._places(range(n_rows), range(n_envs)), tuple(items)
        if len(items) == 1 or items[1] is None or items[1] is Ellipsis:
            row_part, rows = _compact(items[0], n_rows, 0)
            return self._places(row_part, range(n_envs)), (rows, *items[1:])
        rows, envs, *rest = items
        if isinstance(rows, slice) or isinstance(envs, slice):
            (row_part, rows), (env_part, envs) = _compact(rows, n_rows, 0), _compact(envs, n_envs, 1)
            return self._places(row_part, env_part), (rows, envs, *rest)
        # Pairs of rows and environments, as samples are
        numbers = _checked(rows, n_rows, 0) * n_envs + _checked(envs, n_envs, 1)
        places, inner = np.unique(numbers, return_inverse=True)
        return places, (inner.reshape(numbers.shape) if numbers.ndim else 0, *rest)

    def _plain_items(self, key: tuple[Any, ...]) -> list[Any]:
        """:return: The items of an index with integers for masks, as far as it is clear which axes they belong to."""
        items: list[Any] = []
        for number, item in enumerate(key):
            if item is None or item is Ellipsis:
                return items + list(key[number:])
            if isinstance(item, slice):
                items.append(item)
                continue
            array = np.asarray(item)
            array = array.astype(int) if array.size == 0 and array.dtype != bool else array
            if array.dtype != bool:
                items.append(array if array.ndim else array.item())
            elif array.ndim and array.shape == self.shape[len(items) : len(items) + array.ndim]:
                items.extend(array.nonzero())
            else:
                raise IndexError(f"A mask of shape {array.shape} does not match the array of shape {self.shape}")
        return items


class RowViews(dict[str, RowView]):
    """The views of a dictionary's parts; assignments to a key, or to ``...``, are written to the rows."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is Ellipsis:
            self.update(by_key("observations", value, self.keys()))
        else:
            self[key][...] = value

    def update(self, *args: Any, **kwargs: Any) -> None:
        """
        :param args: Arrays by key,
        :param kwargs: likewise.
        """
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


def _is_basic(key: Any) -> bool:
    """:return: Whether numpy returns a view for an index."""
    items = key if isinstance(key, tuple) else (key,)
    return all(
        item is None or item is Ellipsis or (isinstance(item, int | np.integer | slice) and not isinstance(item, bool))
        for item in items
    )


def _checked(item: Any, length: int, axis: int) -> np.ndarray:
    """:return: The same numbers counted from 0."""
    numbers = np.asarray(item)
    if numbers.dtype.kind not in "iu":
        raise IndexError(f"Rows are indexed by integers, slices and masks, not by {numbers.dtype}")
    if ((numbers < -length) | (numbers >= length)).any():
        raise IndexError(f"index {numbers} is out of bounds for axis {axis} with size {length}")
    return np.where(numbers < 0, numbers + length, numbers)


def _compact(item: Any, length: int, axis: int) -> tuple[Any, Any]:
    """:return: The places on an axis that a part of an index is about, and its index among these."""
    if isinstance(item, slice):
        return range(length)[item], slice(None)
    numbers = _checked(item, length, axis)
    places, inner = np.unique(numbers, return_inverse=True)
    return places, inner.reshape(numbers.shape) if numbers.ndim else 0
