"""The observations of SoftReplayBuffer against the arrays of SB3's buffers: every index reads and writes the same."""

import copy
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_softac.common.buffers import SoftReplayBuffer

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
CHAINS = [(3, 0), (3, 1, 2), (slice(2, 6), 1), (slice(2, 6), 1, 0), (slice(2, 6), ..., 1), ((slice(1, 8), 1), 3), (-1, [0, 2])]


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
        assert_slots_add_up(self.ours)


def assert_slots_add_up(buffer):
    """Every slot is either free or in use, and none is both."""
    for store in buffer._stores.values():
        slots = [*np.unique(store.index[store.index > 0]), *store._free]
        assert sorted(slots) == list(range(1, store._n_used))


@pytest.mark.parametrize("number", [4, ROWS + 4])
@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("space", [VECTOR, FRAMES, spaces.Box(-1, 1, (3, 3), np.float32)], ids=["vector", "frames", "matrix"])
def test_indices_mean_what_they_mean_to_numpy(space, key, number):
    twins = Twins(space)
    twins.add(number)
    for name in ("observations", "next_observations"):
        array, view = getattr(twins.sb3, name), getattr(twins.ours, name)
        assert (view.shape, view.dtype, view.ndim, len(view)) == (array.shape, array.dtype, array.ndim, len(array))
        assert (view.size, view.nbytes) == (array.size, array.nbytes)
        read = view[key]
        assert np.shape(read) == np.shape(array[key]) and read.dtype == array.dtype
        np.testing.assert_array_equal(read, array[key])
        values = np.asarray(RNG.integers(1, 99, np.shape(array[key])), array.dtype)
        for buffer in (twins.sb3, twins.ours):
            getattr(buffer, name)[key] = values
        twins.assert_same()
        for buffer in (twins.sb3, twins.ours):
            getattr(buffer, name)[key] += 1
        twins.assert_same()
    twins.add(3)
    twins.assert_same()


@pytest.mark.parametrize("path", CHAINS, ids=str)
@pytest.mark.parametrize("space", [VECTOR, FRAMES], ids=["vector", "frames"])
def test_parts_of_parts_write_through(space, path):
    twins = Twins(space)
    twins.add(ROWS + 4)
    parts = []
    for buffer in (twins.sb3, twins.ours):
        part = buffer.observations
        for key in path[:-1]:
            part = part[key]
        parts.append(part)
    for value in (7, 8):
        for part in parts:
            part[path[-1]] = value
        twins.assert_same()
    for part in parts:
        part += 1
    twins.assert_same()
    twins.add(3)  # what has been overwritten since does not come back
    for part in parts:
        part[path[-1]] = 5
    twins.assert_same()


def test_what_is_a_copy_in_numpy_does_not_write_through_and_rows_in_a_loop_do():
    twins = Twins(VECTOR)
    twins.add(ROWS)
    for buffer in (twins.sb3, twins.ours):
        buffer.observations[2:5][[0, 1]][:] = 7.0
        buffer.observations[[2, 3]][0] = 7.0
        buffer.observations[2:5][MASK[2:5]][0] = 7.0
    twins.assert_same()
    for buffer in (twins.sb3, twins.ours):
        for number, rows in enumerate(buffer.observations[2:4]):
            rows[1] = number
        for rows in buffer.next_observations:
            rows[0] = 4.0
    twins.assert_same()
    assert (np.asarray(twins.ours.next_observations)[:, 0] == 4.0).all()


@pytest.mark.parametrize("rows", [1, 2, ROWS])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("space", [VECTOR, FRAMES], ids=["vector", "frames"])
def test_long_random_use(space, n_envs, rows):
    """Adding, writing, starting over and going on elsewhere in any order."""
    twins = Twins(space, rows, n_envs)
    for step in range(150):
        twins.add(int(RNG.integers(1, 4)))
        place = int(RNG.integers(rows)), int(RNG.integers(n_envs))
        name = "observations" if RNG.random() < 0.5 else "next_observations"
        value = observe(space)
        pos = int(RNG.integers(rows))
        for buffer in (twins.sb3, twins.ours):
            if step % 3 == 0:
                getattr(buffer, name)[place] = value
            if step % 10 == 9:
                getattr(buffer, name)[:, place[1]] = 3
            if step % 20 == 14:  # not where a write has broken the chain
                buffer.pos = pos
        twins.assert_same()


def test_a_constant_observation_that_is_written_over_in_the_middle():
    for rows, place in ((5, 2), (5, 0), (5, 4)):
        twins = Twins(VECTOR, rows, 1)
        same = np.ones((1, 3))
        for _ in range(rows + 2):
            for buffer in (twins.sb3, twins.ours):
                buffer.add(same, same, np.zeros((1, 2)), np.zeros(1), np.zeros(1, bool), [{}])
        for buffer in (twins.sb3, twins.ours):
            buffer.observations[place] = 2.0
            buffer.next_observations[place] = 2.0
        twins.assert_same()
        twins.add(2 * rows)
        twins.assert_same()


def test_a_write_to_the_newest_row_is_not_taken_for_the_next_observation():
    twins = Twins(VECTOR)
    twins.add(2)
    for buffer in (twins.sb3, twins.ours):
        buffer.next_observations[1] = 5.0
    twins.add(1)
    twins.assert_same()


def test_only_what_is_written_over_is_stored_anew():
    twins = Twins(VECTOR, 50, 3)
    twins.add(50)
    store = twins.ours._stores[""]
    before = store.index.copy()
    twins.ours.observations[20] = np.asarray(twins.ours.observations[20])
    np.testing.assert_array_equal(store.index, before)
    twins.ours.observations[20, 1] = 1.0
    np.testing.assert_array_equal(store.index[:, :, [0, 2]], before[:, :, [0, 2]])


def test_a_read_does_not_copy_everything():
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    buffer = SoftReplayBuffer(20_000, space, ACTIONS, "cpu")
    reads = []
    store = buffer._stores[""]
    get = store.get
    store.get = lambda next_obs, where: reads.append(len(where[0])) or get(next_obs, where)
    buffer.observations[100], buffer.observations[5:8, 0], buffer.observations[[1, 2, 2], [0, 0, 0]]
    buffer.observations[7] = 3
    assert sum(reads) <= 1 + 3 + 2 + 1


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
        True,
    ],
)
def test_impossible_indices(key):
    twins = Twins(VECTOR)
    with pytest.raises(IndexError):
        twins.ours.observations[key]
    with pytest.raises(IndexError):
        twins.ours.observations[key] = 1.0


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
        lambda x: th.as_tensor(x[1:3]).numpy(),
    ):
        np.testing.assert_array_equal(function(view), function(array))
        assert np.asarray(function(view)).dtype == function(array).dtype
    assert type(view + 1) is np.ndarray and type(view[2] + 1) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        view.fill(0.0)
    with pytest.raises(TypeError):
        np.add.at(view, 0, 1.0)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(view, copy=False)


@pytest.mark.parametrize("name", ["observations", "next_observations"])
def test_assigning_all(name):
    twins = Twins(VECTOR)
    twins.add(ROWS + 2)
    values = RNG.normal(size=(ROWS, N_ENVS, 3))
    for buffer in (twins.sb3, twins.ours):
        setattr(buffer, name, values.copy())
    twins.assert_same()
    twins.ours.observations += 1.0
    twins.sb3.observations += 1.0
    twins.assert_same()
    with pytest.raises(ValueError, match=r"\(9, 3, 3\), got \(4, 3, 3\)"):
        setattr(twins.ours, name, values[:4])
    twins.add(1)
    twins.assert_same()


def test_a_buffer_that_is_filled_by_hand():
    values = RNG.normal(size=(2, 5, N_ENVS, 3))
    twins = Twins(VECTOR)
    for buffer in (twins.sb3, twins.ours):
        buffer.observations[:5], buffer.next_observations[:5] = values
        buffer.pos = 5
    twins.add(ROWS)
    twins.assert_same()


def test_dictionaries():
    space = spaces.Dict(vector=VECTOR, frames=FRAMES)
    sb3, ours = (cls(ROWS, space, ACTIONS, "cpu") for cls in (DictReplayBuffer, SoftReplayBuffer))
    vectors, frames = RNG.normal(size=(ROWS, 1, 3)), RNG.integers(0, 256, (ROWS, 1, 4, 5, 6), np.uint8)
    for buffer in (sb3, ours):
        for name in ("observations", "next_observations"):
            assert isinstance(getattr(buffer, name), dict) and getattr(buffer, name).keys() == space.spaces.keys()
            getattr(buffer, name)["vector"][3] = 5.0
            getattr(buffer, name)["frames"][:, 0, 2] = 4
        buffer.next_observations["vector"] = vectors
        buffer.next_observations.update(frames=frames)
        buffer.observations |= {"vector": vectors + 1}
    for name in ("observations", "next_observations"):
        for key in space.spaces:
            np.testing.assert_array_equal(np.asarray(getattr(ours, name)[key]), getattr(sb3, name)[key])
    with pytest.raises(ValueError, match="keys"):
        ours.observations = {"vector": vectors}
    with pytest.raises(KeyError):
        ours.observations["other"] = vectors


def test_parts_are_copied_and_pickled_as_arrays():
    twins = Twins(VECTOR)
    twins.add(ROWS)
    for twin in (copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows)), np.copy, np.array):
        rows = twin(twins.ours.observations[2])
        rows[:] = 9.0
        twins.assert_same()
    assert "9, 3, 3" in repr(twins.ours.observations)
