"""ObservationStore against plain arrays: the same observations, in less memory."""

import itertools

import numpy as np
import pytest
from gymnasium import spaces

from sb3_softac.replay.observation_store import ObservationStore

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float64)
FRAMES = spaces.Box(0, 255, (4, 5, 6), np.uint8)


def chain(space, n_envs, number, end=0.1, colours=1, seed=0):
    """Transitions as environments make them; an image is a stack of frames that moves on by ``colours`` channels a step."""
    rng = np.random.default_rng(seed)

    def fresh(before=None):
        if len(space.shape) < 3:
            return rng.normal(size=space.shape)
        image = np.zeros(space.shape, np.uint8) if before is None else np.roll(before, -colours, axis=0)
        image[-colours:] = rng.integers(0, 256, (colours, *space.shape[1:]))
        return image

    obs = [fresh() for _ in range(n_envs)]
    for _ in range(number):
        following = [fresh(one) for one in obs]
        yield np.stack(obs), np.stack(following)
        obs = [fresh() if rng.random() < end else one for one in following]


def fill(space, size, n_envs, stream):
    """:return: The store, and what should be in it: all transitions in their order."""
    store, log = ObservationStore(space, size, n_envs), []
    for number, (obs, next_obs) in enumerate(stream):
        store.add(number % size, *store.fit(obs, next_obs))
        log.append((obs.copy(), next_obs.copy()))
    return store, log


def assert_holds(store, log):
    n_envs = log[0][0].shape[0]
    for age, (obs, next_obs) in enumerate(reversed(log[-store.size :])):
        row = (len(log) - 1 - age) % store.size
        where = row * n_envs + np.arange(n_envs)
        np.testing.assert_array_equal(store.get(False, where), obs.astype(store.pieces.dtype))
        np.testing.assert_array_equal(store.get(True, where), next_obs.astype(store.pieces.dtype))


def used(store):
    return store._n_used - 1 - store._n_free


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("end", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("space", "colours"), [(VECTOR, 1), (FRAMES, 1), (FRAMES, 2)], ids=["vector", "grey", "two colours"])
def test_holds_what_was_added(space, colours, end, n_envs, size):
    for number in (1, size, size + 1, 3 * size + 2):
        store, log = fill(space, size, n_envs, chain(space, n_envs, number, end, colours))
        assert_holds(store, log)
        # Every slot is either free or in use, and none is both
        in_use = np.unique(store.index)
        assert sorted([*in_use[in_use > 0], *store._free[: store._n_free]]) == list(range(1, store._n_used))


def test_a_chain_costs_one_piece_per_step():
    for space in (VECTOR, FRAMES):
        store, _ = fill(space, 50, 2, chain(space, 2, 300, end=0.0))
        assert used(store) == 2 * (50 + store.n_pieces)
        assert len(store.pieces) <= 1.05 * 2 * 50 + 4 * 2 * store.n_pieces


def test_transitions_without_a_chain_are_kept_whole():
    """Worst case: nothing is shared, and the store grows."""
    rng = np.random.default_rng(0)
    stream = [(rng.normal(size=(2, 3)), rng.normal(size=(2, 3))) for _ in range(500)]
    store, log = fill(VECTOR, 200, 2, stream)
    assert_holds(store, log)
    assert used(store) == 2 * 200 * 2 and len(store.pieces) < 1.1 * 2 * 200 * 2


def test_zeros_and_nan():
    zeros, nan = np.zeros((1, 3)), np.full((1, 3), np.nan)
    store, log = fill(VECTOR, 2, 1, [(zeros, zeros), (zeros, nan), (nan, zeros), (nan, nan), (zeros, zeros)])
    assert_holds(store, log)


def test_repeated_observations_are_shared():
    same = np.ones((1, 3))
    store, log = fill(VECTOR, 5, 1, [(same, same)] * 12)
    assert_holds(store, log)
    assert used(store) == 1


def test_precision_and_pieces():
    assert ObservationStore(VECTOR, 1, 1).pieces.dtype == np.float64
    assert ObservationStore(VECTOR, 1, 1, single_precision=True).pieces.dtype == np.float32
    assert ObservationStore(FRAMES, 1, 1, single_precision=True).pieces.dtype == np.uint8
    assert ObservationStore(FRAMES, 1, 1).pieces.shape[1:] == (5, 6)
    assert ObservationStore(spaces.Discrete(4), 1, 1).pieces.dtype == np.int64
    channels_last = spaces.Box(0, 255, (5, 6, 3), np.uint8)
    assert ObservationStore(channels_last, 1, 1).pieces.shape[1:] == (5, 6, 3)


def test_growth_is_geometric_and_bounded():
    """Pictures that share nothing, three pieces each: few copies of the store, and not much more room than they need."""
    space = spaces.Box(0, 255, (3, 8, 8), np.uint8)
    rng = np.random.default_rng(0)
    store, sizes = ObservationStore(space, 1_000, 1), []
    obs = rng.integers(0, 256, (1, 3, 8, 8), np.uint8)
    for number in range(1_500):
        following = rng.integers(0, 256, (1, 3, 8, 8), np.uint8)
        store.add(number % 1_000, obs, following)
        obs = following
        sizes.append(len(store.pieces))
    assert len(set(sizes)) <= 4 and store.version <= 4
    assert used(store) == 3 * 1_001 and sizes[-1] < 1.3 * used(store)


def test_an_observation_that_has_come_again_in_one_environment_only():
    rng = np.random.default_rng(0)
    goal, stream = rng.normal(size=3), []
    for _ in range(20):
        obs, following = (np.stack([goal, rng.normal(size=3), goal]) for _ in range(2))
        stream.append((obs, following))
    store, log = fill(VECTOR, 20, 3, stream)
    assert_holds(store, log)
    assert len(np.unique(store.index[:, :, [0, 2]])) == 2


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("space", [VECTOR, FRAMES, spaces.Box(-1, 1, ()), spaces.Discrete(3)], ids=str)
def test_rows_at_once(space, n_envs):
    """The same as one by one, before and after further rows, and in as little memory."""
    rng = np.random.default_rng(0)
    scalars = rng.integers(0, 3, (41, n_envs, 1) if isinstance(space, spaces.Discrete) else (41, n_envs))
    pairs = list(itertools.pairwise(scalars) if space.shape == () else chain(space, n_envs, 40))
    expected, log = fill(space, 25, n_envs, pairs)
    one_by_one, _ = fill(space, 25, n_envs, pairs[:23])
    store, _ = fill(space, 25, n_envs, pairs[:3])
    store.add_rows(3, *(np.stack(part).astype(space.dtype) for part in zip(*log[3:23], strict=True)))
    assert used(one_by_one) <= used(store) <= used(one_by_one) + n_envs * store.n_pieces
    for number, (obs, next_obs) in enumerate(log[23:], start=23):
        store.add(number % 25, *store.fit(obs, next_obs))
    assert_holds(store, log)
    assert_holds(expected, log)
