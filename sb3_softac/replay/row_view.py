"""Observations of a replay buffer as the array that SB3's buffers have, created only for the parts that are read."""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from sb3_softac.replay.observation_store import ObservationStore

# What changes an array in place: methods, and functions of NumPy by their first argument.
METHODS = ("byteswap", "fill", "itemset", "partition", "put", "resize", "setfield", "setflags", "sort")
FUNCTIONS = (np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask)


def refuse(*args: Any, **kwargs: Any) -> NoReturn:
    """:raises ValueError: always; says how to change what a replay buffer stores."""
    raise ValueError(
        "The observations in a replay buffer are read-only, because transitions share them. Store transitions with add or "
        "extend; to change stored ones, call reset and add them again"
    )


def _is_read_only(value: Any) -> bool:
    return isinstance(value, RowView) or (isinstance(value, Rows) and not value.flags.writeable)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return np.asarray(value) if isinstance(value, Rows | RowView) else value


class _Guard:
    """NumPy's ways of writing to an array, refused where it is read-only, and its functions, which get plain arrays."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(map(_is_read_only, kwargs.get("out", ()))) or (method == "at" and _is_read_only(inputs[0])):
            refuse()
        kwargs = {name: _plain(value) for name, value in kwargs.items()}
        return getattr(ufunc, method)(*map(_plain, inputs), **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        target = args[0] if args else next(iter(kwargs.values()))
        if _is_read_only(kwargs.get("out")) or (function in FUNCTIONS and _is_read_only(target)):
            refuse()
        if function in (np.shape, np.ndim):  # without a copy of everything
            return getattr(target, function.__name__)
        return function(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})


class Rows(_Guard, np.ndarray):
    """Part of a :class:`RowView`: read-only where NumPy would have returned a view."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if _is_read_only(self):
            refuse()
        super().__setitem__(key, value)

    def __getattribute__(self, name: str) -> Any:
        if name == "flat" and _is_read_only(self):  # NumPy's iterator would write, or raise an error without the remedy
            return _read_only(np.asarray(self).reshape(-1)).view(Rows)
        return refuse if name in METHODS and _is_read_only(self) else super().__getattribute__(name)


class RowView(_Guard, NDArrayOperatorsMixin):
    """
    The observations or next observations of a replay buffer as a read-only array ``[buffer_size, n_envs, ...]``.

    Only the requested part is copied. Indices that give a view in NumPy give a read-only array here, others a copy.
    ``np.asarray``, NumPy's functions and the methods of arrays work on a copy of everything.

    :param store: The store.
    :param next_obs: Whether to use the next observations.
    """

    __slots__ = ("_next_obs", "_store")
    _store: ObservationStore
    _next_obs: bool

    def __init__(self, store: ObservationStore, next_obs: bool):
        object.__setattr__(self, "_store", store)
        object.__setattr__(self, "_next_obs", next_obs)

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = refuse

    def __reduce__(self) -> Any:  # a copy, in memory or in a file, is an array of its own
        return np.array, (np.asarray(self),)

    @property
    def shape(self) -> tuple[int, ...]:
        """``[buffer_size, n_envs, ...]``."""
        return (*self._store.index.shape[1:3], *self._store.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

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

    def __contains__(self, value: Any) -> bool:
        return value in np.asarray(self)

    def __repr__(self) -> str:
        return f"RowView(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The observations of the replay buffer are not stored as an array: allow a copy")
        array = self._read(()).astype(dtype or self.dtype, copy=False)
        return array if copy else _read_only(array)

    def __getattr__(self, name: str) -> Any:
        """The methods of arrays; those that would change the copy raise an error."""
        if name.startswith("_"):
            raise AttributeError(name)
        return refuse if name in METHODS else getattr(np.asarray(self).view(Rows), name)

    def __getitem__(self, key: Any) -> Any:
        part = self._read(key)
        basic = all(
            item is None or item is Ellipsis or (isinstance(item, int | np.integer | slice) and not isinstance(item, bool))
            for item in (key if isinstance(key, tuple) else (key,))
        )
        return _read_only(part).view(Rows) if basic and isinstance(part, np.ndarray) else part

    def _read(self, key: Any) -> Any:
        """:return: What an array of all observations gives for an index, as a copy."""
        store, index = self._store, self._store.index[int(self._next_obs)]
        items = key if isinstance(key, tuple) else (key,)
        if not any(item is None or item is Ellipsis for item in items) and sum(map(_axes, items)) <= 2:
            slots = index[key]  # whole observations
            return store.pieces[slots].reshape(*slots.shape[:-1], *store.shape)
        # Which transition, and which of its numbers, each position holds
        n_rows, n_envs, *shape = self.shape
        transitions = np.arange(n_rows * n_envs).reshape(n_rows, n_envs, *[1] * len(shape))
        numbers = np.arange(int(np.prod(shape))).reshape(1, 1, *shape)
        which, number = (np.broadcast_to(part, self.shape)[key] for part in (transitions, numbers))
        pieces = store.pieces.reshape(len(store.pieces), -1)
        piece, place = np.divmod(number, pieces.shape[1])
        return pieces[index.reshape(-1, store.n_pieces)[which, piece], place]


def _axes(item: Any) -> int:
    """:return: Number of axes that a part of an index covers; a large number for an unusual part."""
    if isinstance(item, bool | np.bool_):
        return 3
    array = None if isinstance(item, slice | int | np.integer) else np.asarray(item)
    return 1 if array is None or array.dtype != bool else max(array.ndim, 1)


def _read_only(array: np.ndarray) -> np.ndarray:
    """:return: A view that cannot be made writable."""
    for owner in (array.base, array):
        if isinstance(owner, np.ndarray):
            owner.flags.writeable = False
    return array[...]


class RowViews(dict[str, RowView]):
    """Read-only views of a dictionary's parts."""

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = refuse  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        return dict, ({key: np.array(view) for key, view in self.items()},)
