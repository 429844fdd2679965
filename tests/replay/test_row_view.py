"""The observations of SoftReplayBuffer against the arrays of SB3's buffers: every index reads the same, and nothing writes."""

import copy
import pickle
import random
import tracemalloc

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_softac.replay.buffer import SoftReplayBuffer

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)
FRAMES = spaces.Box(0, 255, (4, 5, 6), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,))
ROWS, N_ENVS = 9, 3
RNG = np.random.default_rng(0)
MASK = np.zeros(ROWS, bool)
MASK[[1, 4]] = True
PAIRS = np.zeros((ROWS, N_ENVS), bool)
PAIRS[[1, 4, 4], [2, 0, 1]] = True
KEYS = [
    3,
    -1,
    np.int64(2),
    slice(2, 5),
    slice(None, None, -2),
    slice(None),
    ...,
    (),
    None,
    [1, 1, 5],
    [],
    np.array([[0, 1], [-1, 3]]),
    np.array(4),
    MASK,
    PAIRS,
    list(MASK),
    (2, 1),
    (slice(1, 4), 0),
    (2, slice(1, None)),
    (slice(None), [2, 0]),
    ([2, 0], slice(None)),
    ([2, 0, 2], [1, 1, 1]),
    ([2, 0, 2], [1, 1, 1], slice(None)),
    ([[2], [0]], [1, 2]),
    (MASK, 1),
    (slice(2, 4), np.array([True, False, True])),
    (4, 1, 0),
    (..., 0),
    (3, ..., 1),
    (slice(None), 0, 2),
    (slice(None), [0, 2], 1),
    ([0, 2], [1, 1], 1),
    ([0, 2], slice(None), [1, 1]),
    ([0, 2], 1, [1, 2]),
    (0, 1, [1, 2]),
    (slice(None), [0, 2], slice(None)),
    (3, None, 1),
    (None, 3),
]


@pytest.fixture(autouse=True)
def same_numbers():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def observe(space, before=None):
    """An observation, by chance the one before again, or moved on."""
    if before is not None and RNG.random() < 0.2:
        return before
    if len(space.shape) < 3:
        return RNG.normal(size=space.shape)
    image = np.zeros(space.shape, np.uint8) if before is None else np.roll(before, -1, axis=0)
    image[-1] = RNG.integers(1, 256, space.shape[1:])
    return image


class Twins:
    """SB3's buffer and ours with the same transitions."""

    def __init__(self, space, rows=ROWS, n_envs=N_ENVS):
        self.space, self.n_envs = space, n_envs
        self.sb3, self.ours = (
            cls(rows * n_envs, space, ACTIONS, "cpu", n_envs=n_envs) for cls in (ReplayBuffer, SoftReplayBuffer)
        )
        self.obs = [observe(space) for _ in range(n_envs)]

    def add(self, number):
        for _ in range(number):
            following = [observe(self.space, one) for one in self.obs]
            arrays = np.stack(self.obs), np.stack(following), np.zeros((self.n_envs, 2)), np.zeros(self.n_envs)
            for buffer in (self.sb3, self.ours):
                buffer.add(*arrays, np.zeros(self.n_envs, bool), [{}] * self.n_envs)
            self.obs = [observe(self.space) if RNG.random() < 0.1 else one for one in following]

    def assert_same(self):
        for name in ("observations", "next_observations"):
            np.testing.assert_array_equal(np.asarray(getattr(self.ours, name)), getattr(self.sb3, name))
        for store in self.ours.stores.values():  # every slot is either free or in use, and none is both
            slots = [*np.unique(store.index[store.index > 0]), *store._free[: store._n_free]]
            assert sorted(slots) == list(range(1, store._n_used))


@pytest.mark.parametrize("number", [4, ROWS + 4])
@pytest.mark.parametrize("space", [VECTOR, FRAMES, spaces.Box(-1, 1, (3, 3), np.float32)], ids=["vector", "frames", "matrix"])
def test_indices_mean_what_they_mean_to_numpy(space, number):
    twins = Twins(space)
    twins.add(number)
    for name in ("observations", "next_observations"):
        array, view = getattr(twins.sb3, name), getattr(twins.ours, name)
        assert (view.shape, view.dtype, view.ndim, len(view)) == (array.shape, array.dtype, array.ndim, len(array))
        assert (view.size, view.nbytes) == (array.size, array.nbytes)
        for key in KEYS:
            read = view[key]
            assert np.shape(read) == np.shape(array[key]) and read.dtype == array.dtype, key
            np.testing.assert_array_equal(read, array[key], err_msg=str(key))
    twins.add(3)
    twins.assert_same()


def read_only_parts(buffer):
    """What NumPy would return as a view, and the whole."""
    view = buffer.observations
    parts = [
        view,
        view[2],
        view[-1][1],
        view[2:5],
        view[:, 1],
        view[2:5][::2],
        view[..., 0],
        view[3, 0],
        iter(view).__next__(),
    ]
    return [*parts, buffer.next_observations, view[2].T, view[2:4].reshape(-1), np.asarray(view), np.asarray(view[2])]


def add_one(array):
    array += 1


def swap_first(array):
    array[0], array[-1] = array[-1].copy(), array[0].copy()


WRITES = {
    "item": lambda a: a.__setitem__(0, 1.0),
    "all": lambda a: a.__setitem__(..., 1.0),
    "mask": lambda a: a.__setitem__(np.asarray(a) > 0, 1.0),
    "increment": add_one,
    "swap": swap_first,
    "shuffle": lambda a: random.Random(0).shuffle(a),
    "numpy's shuffle": lambda a: np.random.default_rng(0).shuffle(a),
    "fill": lambda a: a.fill(1.0),
    "sort": lambda a: a.sort(),
    "partition": lambda a: a.partition(0),
    "put": lambda a: a.put([0], 1.0),
    "setflags": lambda a: a.setflags(write=True),
    "flags": lambda a: setattr(a.flags, "writeable", True),
    "flat": lambda a: a.flat.__setitem__(slice(None), 1.0),
    "another shape": lambda a: a[None].reshape(*a.shape, 1).__setitem__(0, 1.0),
    "other axes": lambda a: a.T.__setitem__(..., 1.0),
    "copyto": lambda a: np.copyto(a, 1.0),
    "np.put": lambda a: np.put(a, [0], 1.0),
    "place": lambda a: np.place(a, np.asarray(a) > -9, 1.0),
    "putmask": lambda a: np.putmask(a, np.asarray(a) > -9, 1.0),
    "add at": lambda a: np.add.at(a, 0, 1.0),
    "ufunc": lambda a: np.multiply(a, 2, out=a),
    "ufunc with a position": lambda a: np.multiply(a, 2, a),
    "out": lambda a: np.clip(a, 0.0, 0.1, out=a),
    "method with out": lambda a: a.clip(0.0, 0.1, out=a),
    "buffer": lambda a: memoryview(a).cast("B").__setitem__(0, 1),
}


@pytest.mark.filterwarnings("ignore:you are shuffling")
@pytest.mark.parametrize("write", WRITES)
def test_whatever_writes_raises_an_error(write):
    twins = Twins(VECTOR)
    twins.add(ROWS + 4)
    refused = []
    for part in read_only_parts(twins.ours):
        with pytest.raises((ValueError, TypeError)) as error:
            WRITES[write](part)
        refused.append("add or extend" in str(error.value))
        twins.assert_same()
    # The view itself says what to do instead, unless NumPy gives the array away first
    assert refused[0] or write in ("flags", "buffer")


@pytest.mark.parametrize("name", ["observations", "next_observations"])
def test_assigning_all_raises_an_error(name):
    twins = Twins(VECTOR)
    twins.add(3)
    with pytest.raises(ValueError, match=r"read-only.*add or extend.*reset"):
        setattr(twins.ours, name, np.zeros((ROWS, N_ENVS, 3)))
    with pytest.raises(ValueError, match="add or extend"):
        exec(f"buffer.{name} += 1.0", {"buffer": twins.ours})
    view = getattr(twins.ours, name)
    for attribute in ("shape", "dtype", "anything"):
        with pytest.raises(ValueError, match="add or extend"):
            setattr(view, attribute, 1)
    twins.assert_same()


def test_what_is_a_copy_in_numpy_can_be_written():
    twins = Twins(VECTOR)
    twins.add(ROWS + 4)
    view = twins.ours.observations
    assert list(view.flat) == list(twins.sb3.observations.flat) and view[2].flat[1] == twins.sb3.observations[2].flat[1]
    copies = [view[[1, 2]], view[MASK], view[[0, 1], [1, 1]], view[2:4][[0, 1]], np.array(view), view.copy(), view + 1]
    copies += [view[2].copy(), np.array(view[2:4]), view[2] + 1, view.astype(np.float32), view[2:4].astype(np.float32)]
    copies += [copy.deepcopy(view[2]), pickle.loads(pickle.dumps(view[2])), np.copy(view)]
    copies += [copy.copy(view), copy.deepcopy(view), pickle.loads(pickle.dumps(view))]
    for part in copies:
        part[0] = 7.0
        part += 1
        part.fill(3.0)
    twins.assert_same()


@pytest.mark.parametrize("rows", [1, 2, ROWS])
@pytest.mark.parametrize("n_envs", [1, 3, 40])
@pytest.mark.parametrize("space", [VECTOR, FRAMES, spaces.Box(0, 1, (5,), np.uint8)], ids=["vector", "frames", "bytes"])
def test_long_use(space, n_envs, rows):
    """Few environments are compared one by one, many by NumPy."""
    twins = Twins(space, rows, n_envs)
    for _ in range(12):
        twins.add(int(RNG.integers(1, 4)))
        twins.assert_same()


def test_a_write_position_that_was_set():
    twins = Twins(VECTOR)
    twins.add(5)
    twins.ours.pos = 3
    with pytest.raises(ValueError, match=r"write position is 3 but the next row is 5: do not set pos.*reset\(\)"):
        twins.add(1)
    twins.ours.reset()
    twins.ours.pos = 3  # an empty buffer can be filled from anywhere
    twins.ours.add(*[np.zeros((N_ENVS, 3))] * 2, np.zeros((N_ENVS, 2)), np.zeros(N_ENVS), np.zeros(N_ENVS), [{}] * N_ENVS)


def test_a_read_does_not_copy_everything():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    buffer = SoftReplayBuffer(20_000, space, ACTIONS, "cpu")
    for key in (100, (slice(5, 8), 0), ([1, 2, 2], [0, 0, 0]), (5, 0, ..., 1)):
        tracemalloc.start()
        buffer.observations[key]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 30 * 4 * 84 * 84
    assert np.shape(buffer.observations) == (20_000, 1, 4, 84, 84) and np.ndim(buffer.observations) == 5


@pytest.mark.parametrize(
    "key",
    [
        ROWS,
        -ROWS - 1,
        (0, N_ENVS),
        [0, ROWS],
        ([0], [N_ENVS]),
        np.ones(ROWS + 1, bool),
        np.zeros(ROWS + 1, bool),
        MASK[:-1],
        PAIRS.T,
        1.5,
        "a",
    ],
)
def test_impossible_indices(key):
    twins = Twins(VECTOR)
    with pytest.raises(IndexError):
        twins.ours.observations[key]


def test_arithmetic_comparison_and_methods():
    twins = Twins(VECTOR)
    twins.add(ROWS)
    array, view = twins.sb3.observations, twins.ours.observations
    for function in (
        lambda x: x + 1,
        lambda x: 2 * x,
        lambda x: x == array,
        lambda x: array == x,
        lambda x: x[2:4] > 0,
        lambda x: -x[1],
        lambda x: np.isnan(x),
        lambda x: np.add.reduce(x),
        lambda x: np.stack([row for row in x]),
        lambda x: x.mean(axis=0),
        lambda x: x.copy(),
        lambda x: x.reshape(-1, 3),
        lambda x: np.array(x, dtype=np.float32),
        lambda x: x.astype(np.float32) + 1.0,
        lambda x: th.as_tensor(x[[1, 2]]).numpy(),
        lambda x: np.concatenate([x, x[1:3]]),
        lambda x: np.where(x > 0, x, 0.0),
        lambda x: np.cumsum(x, axis=0),
        lambda x: np.array(x[2] in x),
    ):
        np.testing.assert_array_equal(function(view), function(array))
        assert np.asarray(function(view)).dtype == function(array).dtype
    assert type(view + 1) is np.ndarray and type(view[2] + 1) is np.ndarray
    with pytest.raises(ValueError, match="copy"):
        np.asarray(view, copy=False)


def test_dictionaries():
    space = spaces.Dict(vector=VECTOR, frames=FRAMES)
    sb3, ours = (cls(ROWS, space, ACTIONS, "cpu") for cls in (DictReplayBuffer, SoftReplayBuffer))
    for _ in range(ROWS + 2):
        pair = [{key: observe(part)[None] for key, part in space.items()} for _ in range(2)]
        for buffer in (sb3, ours):
            buffer.add(*pair, np.zeros((1, 2)), np.zeros(1), np.zeros(1, bool), [{}])
    vectors = np.zeros((ROWS, 1, 3))
    for name in ("observations", "next_observations"):
        views = getattr(ours, name)
        assert isinstance(views, dict) and views.keys() == space.spaces.keys()
        for write in (
            lambda views: views.__setitem__("vector", vectors),
            lambda views: views.update(vector=vectors),
            lambda views: views.__ior__({"vector": vectors}),
            lambda views: views.setdefault("other", vectors),
            lambda views: views.pop("vector"),
            lambda views: views.clear(),
            lambda views: views["vector"].fill(0.0),
            lambda views: views["frames"].__setitem__((slice(None), 0, 2), 4),
        ):
            with pytest.raises(ValueError, match="add or extend"):
                write(views)
        with pytest.raises(ValueError, match="add or extend"):
            setattr(ours, name, {"vector": vectors})
        for key in space.spaces:
            np.testing.assert_array_equal(np.asarray(getattr(ours, name)[key]), getattr(sb3, name)[key])


def test_how_it_is_shown():
    assert "9, 3, 3" in repr(Twins(VECTOR).ours.observations)
