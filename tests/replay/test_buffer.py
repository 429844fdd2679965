"""SoftReplayBuffer against SB3's buffers on the same transitions, and what those leave out against a slow computation."""

import copy
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import buffers as sb3_buffers
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_softac.replay.buffer import SoftReplayBuffer, with_extras

BOX = spaces.Box(-1, 1, (2, 3), np.float32)
IMAGE = spaces.Box(0, 255, (3, 4, 4), np.uint8)
DICT = spaces.Dict(vector=spaces.Box(-1, 1, (3,), np.float32), image=IMAGE)
MULTI = spaces.MultiDiscrete([3, 4])
SPEED = Path(__file__).parents[2] / "docs" / "guide" / "speed.md"
SIZE = 20  # rows; the buffers get SIZE * n_envs transitions


class Idle(gym.Env):
    """Only its spaces count."""

    def __init__(self, observation_space):
        self.observation_space, self.action_space = observation_space, MULTI


def transitions(observation_space, n_envs, number, action_space=MULTI, seed=0):
    """Random transitions of ``n_envs`` environments, with terminations and time limits, chained as an environment does."""
    rng = np.random.default_rng(seed)
    for space in (observation_space, action_space):
        space.seed(seed)

    def observe():
        batch = [observation_space.sample() for _ in range(n_envs)]
        if isinstance(observation_space, spaces.Dict):
            return {key: np.stack([obs[key] for obs in batch]) for key in batch[0]}
        return np.stack(batch)

    stream = []
    for _ in range(number):
        done = rng.random(n_envs) < 0.25
        infos = [{"TimeLimit.truncated": bool(end and rng.random() < 0.5)} for end in done]
        actions = np.stack([action_space.sample() for _ in range(n_envs)])
        stream.append((observe(), observe(), actions, rng.normal(size=n_envs), done, infos))
    return stream


def fill(buffer, stream):
    for transition in stream:
        buffer.add(*transition)
    return buffer


def make(cls, observation_space, n_envs, action_space=MULTI, **kwargs):
    return cls(SIZE * n_envs, observation_space, action_space, device="cpu", n_envs=n_envs, **kwargs)


def normalization(observation_space, **kwargs):
    env = VecNormalize(DummyVecEnv([lambda: Idle(observation_space)]), **kwargs)
    statistics_by_key = getattr(env, "obs_rms", {})
    for statistics in statistics_by_key.values() if isinstance(statistics_by_key, dict) else [statistics_by_key]:
        statistics.mean, statistics.var = statistics.mean + 0.3, statistics.var * 2.0
    env.ret_rms.var = np.array(9.0)
    return env


def sample(buffer, env=None, size=200):
    np.random.seed(1)
    return buffer.sample(size, env=env)


def assert_same(ours, theirs, rtol=0.0):
    assert type(ours) is type(theirs)
    for name in ("observations", "actions", "next_observations", "dones", "rewards", "discounts"):
        mine, other = getattr(ours, name), getattr(theirs, name, None)
        if name == "discounts" and other is None:
            assert mine is None
            continue
        pairs = [(mine[key], other[key]) for key in other] if isinstance(other, dict) else [(mine, other)]
        for a, b in pairs:
            assert a.shape == b.shape and a.dtype == b.dtype, name
            th.testing.assert_close(a, b, rtol=rtol, atol=rtol, msg=name)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("number", [1, 12, SIZE, SIZE + 7])
@pytest.mark.parametrize("space", [BOX, IMAGE, DICT, spaces.Discrete(5), spaces.MultiBinary(4)], ids=str)
def test_one_step_samples_are_sb3s(space, number, n_envs):
    sb3 = make(DictReplayBuffer if isinstance(space, spaces.Dict) else ReplayBuffer, space, n_envs)
    ours = make(SoftReplayBuffer, space, n_envs)
    stream = transitions(space, n_envs, number)
    fill(sb3, stream), fill(ours, stream)
    assert (ours.pos, ours.full, ours.size(), ours.buffer_size) == (sb3.pos, sb3.full, sb3.size(), sb3.buffer_size)
    assert_same(sample(ours), sample(sb3))


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("number", [1, 3, 12, SIZE, SIZE + 1, 2 * SIZE - 1])
@pytest.mark.parametrize("n_steps", [2, 3, 30])
def test_n_step_samples_are_sb3s(n_steps, number, n_envs):
    sb3, ours = (
        make(cls, BOX, n_envs, n_steps=n_steps, gamma=0.9, handle_timeout_termination=True)
        for cls in (NStepReplayBuffer, SoftReplayBuffer)
    )
    stream = transitions(BOX, n_envs, number)
    fill(sb3, stream), fill(ours, stream)
    assert_same(sample(ours), sample(sb3), rtol=1e-5)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("kwargs", [dict(), dict(norm_obs=False), dict(norm_reward=False)])
def test_normalization_of_samples(n_steps, kwargs):
    env = normalization(BOX, **kwargs)
    stream = transitions(BOX, 1, SIZE + 3)
    sb3 = fill(make(NStepReplayBuffer, BOX, 1, n_steps=n_steps) if n_steps > 1 else make(ReplayBuffer, BOX, 1), stream)
    ours = fill(make(SoftReplayBuffer, BOX, 1, n_steps=n_steps), stream)
    plain, scaled = sample(ours), sample(ours, env)
    assert_same(scaled, sample(sb3, env), rtol=1e-5)
    assert th.equal(plain.observations, scaled.observations) is (not env.norm_obs)
    assert th.equal(plain.rewards, scaled.rewards) is (not env.norm_reward)


def test_normalization_of_dictionaries():
    env = normalization(DICT, norm_obs_keys=["vector"])
    stream = transitions(DICT, 1, SIZE + 3)
    sb3, ours = (fill(make(cls, DICT, 1), stream) for cls in (DictReplayBuffer, SoftReplayBuffer))
    scaled = sample(ours, env)
    assert_same(scaled, sample(sb3, env), rtol=1e-5)
    assert not th.equal(scaled.observations["vector"], sample(ours).observations["vector"])
    assert th.equal(scaled.observations["image"], sample(ours).observations["image"])


def slow_target(stream, start, env, n_steps, gamma):
    """
    Follow one environment from transition ``start`` of the stream until the target ends.

    :return: Transition that the target ends with, sum of discounted rewards, discount of the value behind it.
    """
    total, discount = 0.0, 1.0
    for step in range(start, min(start + n_steps, len(stream))):
        _, _, _, rewards, dones, _ = stream[step]
        total += discount * rewards[env]
        discount *= gamma
        if dones[env]:
            break
    return step, total, discount


def add(buffer, transition, extras):
    *columns, infos = transition
    buffer.add(*columns, with_extras(infos, extras))


@pytest.mark.parametrize("number", [5, SIZE, SIZE + 7])
@pytest.mark.parametrize("space", [BOX, DICT], ids=["box", "dict"])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_n_step_targets_and_extra_columns_against_a_slow_computation(space, number, n_steps):
    n_envs, gamma = 2, 0.9
    extras = {"mask": ((4,), bool), "next_mask": ((4,), bool), "entropy": ((), np.float32)}
    buffer = make(SoftReplayBuffer, space, n_envs, n_steps=n_steps, gamma=gamma, extras=extras)
    stream, rng = transitions(space, n_envs, number), np.random.default_rng(5)
    given = []
    for transition in stream:
        masks = [rng.random((n_envs, 4)) < 0.5 for _ in range(2)]
        given.append(dict(mask=masks[0], next_mask=masks[1], entropy=rng.random(n_envs)))
        add(buffer, transition, given[-1])
    oldest = max(number - SIZE, 0)
    rows = np.arange(buffer.size())
    np.random.seed(0)
    envs = np.random.randint(0, n_envs, size=len(rows))
    np.random.seed(0)
    batch = buffer._get_samples(rows)
    lengths = set()
    for i, (row, env) in enumerate(zip(rows, envs, strict=True)):
        start = oldest + (row - oldest) % SIZE  # transition k of the stream lies in row k % SIZE
        last, total, discount = slow_target(stream, start, env, n_steps, gamma)
        lengths.add(last - start + 1)
        assert batch.rewards[i].item() == pytest.approx(total, abs=1e-5)
        if n_steps > 1:
            assert batch.discounts[i].item() == pytest.approx(discount)
        info = stream[last][5][env]
        assert batch.dones[i].item() == float(stream[last][4][env] and not info["TimeLimit.truncated"])
        np.testing.assert_array_equal(batch.actions[i], stream[start][2][env])
        for key in space.spaces if isinstance(space, spaces.Dict) else [None]:
            for got, step, column in ((batch.observations, start, 0), (batch.next_observations, last, 1)):
                got, expected = (got, stream[step][column]) if key is None else (got[key], stream[step][column][key])
                np.testing.assert_array_equal(got[i], expected[env])
        np.testing.assert_array_equal(batch.extras["mask"][i], given[start]["mask"][env])
        np.testing.assert_array_equal(batch.extras["next_mask"][i], given[last]["next_mask"][env])
        assert batch.extras["entropy"][i].item() == pytest.approx(given[start]["entropy"][env])
    assert lengths == set(range(1, n_steps + 1))
    assert batch.extras["mask"].dtype == th.bool and batch.extras["entropy"].dtype == th.float32
    assert (batch.discounts is None) is (n_steps == 1)


def test_every_transition_is_drawn():
    stream = transitions(BOX, 3, 9)
    rewards = np.sort(np.stack([transition[3] for transition in stream]).astype(np.float32).flatten())
    np.testing.assert_array_equal(np.unique(sample(fill(make(SoftReplayBuffer, BOX, 3), stream), size=2_000).rewards), rewards)


def test_samples_are_copies():
    buffer = fill(make(SoftReplayBuffer, DICT, 1), transitions(DICT, 1, 5))
    sample(buffer).observations["vector"].zero_()
    sample(buffer).actions.fill_(99)
    assert buffer.observations["vector"].any() and buffer.actions.max() < 99


def test_stored_transitions_are_copies():
    buffer, stream = make(SoftReplayBuffer, BOX, 1), transitions(BOX, 1, 1)
    fill(buffer, stream)
    stream[0][0][:] = 7.0
    assert (buffer.observations[0] <= 1.0).all()


@pytest.mark.parametrize("single", [False, True])
def test_samples_of_double_precision_become_single(single):
    space, actions = spaces.Box(-1, 1, (2,), np.float64), spaces.Box(-1, 1, (2,), np.float64)
    space = spaces.Dict(one=space, two=space)
    buffer = fill(make(SoftReplayBuffer, space, 1, actions, single_precision=single), transitions(space, 1, 3, actions))
    for batch in (sample(buffer), sample(buffer, normalization(space, norm_obs_keys=["one"]))):
        observations = (*batch.observations.values(), *batch.next_observations.values())
        assert all(tensor.dtype == th.float32 for tensor in (*observations, batch.actions, batch.rewards, batch.dones))
    assert buffer.observations["one"].dtype == (np.float32 if single else np.float64)


@pytest.mark.parametrize("space", [BOX, DICT], ids=["box", "dict"])
def test_pickling(space, tmp_path):
    extras = {"mask": ((4,), bool)}
    buffer, copy = make(SoftReplayBuffer, space, 2, n_steps=3, extras=extras), None
    stream = transitions(space, 2, SIZE + 5)
    for i, transition in enumerate(stream):
        if i == SIZE:
            save_to_pkl(tmp_path / "buffer.pkl", buffer)
            copy = load_from_pkl(tmp_path / "buffer.pkl")
            assert_same(sample(copy), sample(buffer))
        for store in (buffer, copy):
            if store is not None:
                add(store, transition, {"mask": np.full((2, 4), i % 2 == 0)})
    assert_same(sample(copy), sample(buffer))
    assert th.equal(sample(copy).extras["mask"], sample(buffer).extras["mask"])


def test_extra_columns_must_be_given_each_time():
    buffer = make(SoftReplayBuffer, BOX, 1, extras={"mask": ((4,), bool), "entropy": ((), np.float32)})
    transition, mask, entropy = transitions(BOX, 1, 1)[0], np.ones((1, 4), bool), np.ones(1)
    with pytest.raises(ValueError, match=r"\['entropy', 'mask'\] are missing"):
        buffer.add(*transition)
    add(buffer, transition, {"mask": mask, "entropy": entropy})
    with pytest.raises(ValueError, match=r"\['entropy', 'mask'\] are missing"):
        buffer.add(*transition)  # those of before are not used twice
    with pytest.raises(ValueError, match=r"\['entropy'\] are missing"):
        add(buffer, transition, {"mask": mask})
    with pytest.raises(ValueError, match=r"\['other'\] are unknown"):
        add(buffer, transition, {"mask": mask, "entropy": entropy, "other": mask})
    with pytest.raises(ValueError, match=r"extras\['mask'\] must have the shape \(1, 4\).*got \(1, 3\)"):
        add(buffer, transition, {"mask": mask[:, :3], "entropy": entropy})
    with pytest.raises(ValueError, match=r"\['mask'\] are unknown"):
        add(make(SoftReplayBuffer, BOX, 1), transition, {"mask": mask})
    assert buffer.pos == 1


@pytest.mark.parametrize(
    ("task", "shape"), [("Walker2d-v4", (17,)), ("Humanoid-v4", (376,)), ("Atari, four stacked frames", (4, 84, 84))]
)
def test_bytes_per_transition(task, shape):
    """They are what the page says."""

    def size(obj):
        return sum(value.nbytes for value in vars(obj).values() if isinstance(value, np.ndarray))

    space = spaces.Box(0, 255, shape, np.uint8 if len(shape) == 3 else np.float64)
    actions = spaces.Discrete(6) if len(shape) == 3 else spaces.Box(-1, 1, (17 if shape == (376,) else 6,))
    sb3 = ReplayBuffer(10_000, space, actions, device="cpu")
    ours = SoftReplayBuffer(10_000, space, actions, device="cpu", single_precision=True)
    theirs, mine = size(sb3) / 10_000, (size(ours) + sum(map(size, ours.stores.values()))) / 10_000
    row = f"| {task} | {theirs:.0f} | {mine:.0f} | {100 * mine / theirs:.0f} % |"
    assert row in SPEED.read_text(encoding="utf-8")


def test_memory_optimisation_is_sb3s():
    with pytest.raises(ValueError, match="use SB3's ReplayBuffer"):
        make(SoftReplayBuffer, BOX, 1, optimize_memory_usage=True)


TIMES = spaces.Box(0, np.inf, (2,), np.float64)


@pytest.mark.parametrize("space", [TIMES, spaces.Dict(time=TIMES, other=TIMES)], ids=["box", "dict"])
def test_vec_normalize_sees_the_exact_numbers(space):
    """Seconds since 1970, whose differences are lost in single precision."""
    env = VecNormalize(DummyVecEnv([lambda: Idle(space)]))
    statistics = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
    for one in statistics.values():
        one.mean, one.var = np.full(2, 1.7e9), np.full(2, 100.0)
    rng = np.random.default_rng(0)

    def observe():
        parts = {key: 1.7e9 + 10.0 * rng.normal(size=(1, 2)) for key in statistics}
        return parts if isinstance(space, spaces.Dict) else parts[""]

    stream = [(observe(), observe(), np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}]) for _ in range(9)]
    classes = (DictReplayBuffer if isinstance(space, spaces.Dict) else ReplayBuffer, SoftReplayBuffer)
    sb3, ours = (fill(make(cls, space, 1), stream) for cls in classes)
    late = fill(make(SoftReplayBuffer, space, 1, single_precision=True), stream[:4])
    for _ in range(2):
        late.keep_double_precision()  # the second time does nothing
    fill(late, stream)
    exact = sample(sb3, env)
    assert_same(sample(ours, env), exact)
    assert_same(late._get_samples(np.arange(4, 13), env), ours._get_samples(np.arange(9), env))
    rounded = fill(make(SoftReplayBuffer, space, 1, single_precision=True), stream)
    with pytest.raises(AssertionError):
        assert_same(sample(rounded, env), exact, rtol=0.1)


def test_keeping_double_precision_keeps_what_is_there():
    stream = transitions(TIMES, 2, SIZE + 3)
    buffer = fill(make(SoftReplayBuffer, TIMES, 2, single_precision=True), stream[:-2])
    before = sample(buffer)
    buffer.keep_double_precision()
    assert_same(sample(buffer), before)
    fill(buffer, stream[-2:])
    np.testing.assert_array_equal(buffer.observations[buffer.pos - 1], stream[-1][0])


def test_after_the_switch_to_double_precision_nothing_rounded_is_shared():
    obs, action = np.full((1, 2), 1.7e9 + 0.1), np.zeros((1, 2))
    buffer = make(SoftReplayBuffer, TIMES, 1, single_precision=True)
    buffer.add(obs, obs, action, np.zeros(1), np.zeros(1), [{}])
    version = buffer.stores[""].version
    buffer.keep_double_precision()
    assert buffer.stores[""].version > version
    buffer.add(obs, obs, action, np.zeros(1), np.zeros(1), [{}])
    np.testing.assert_array_equal(buffer.observations[1], obs)
    assert (buffer.observations[0] != obs).all()


CHW, HWC = spaces.Box(0, 255, (3, 8, 6), np.uint8), (8, 6, 3)
KINDS = {
    "picture": (CHW, MULTI, [HWC, (3, 6, 8), (3, 8), (1, 3, 8, 6), (144,), (3, 8, 5), (2, *HWC), (2, 144), (1,), ()]),
    "vector": (spaces.Box(-1, 1, (5,)), MULTI, [(5,), (2, 5), (1, 5), (2, 1), (5, 2), (10,), (2, 6), (3, 5), (2, 1, 5), ()]),
    "matrix": (BOX, MULTI, [(2, 3), (3, 2), (6,), (2, 6), (2, 3, 2), (2, 2, 3), (1, 2, 3), (1, 2, 2, 3), (2, 1, 1)]),
    "discrete": (spaces.Discrete(5), MULTI, [(), (1,), (2,), (2, 1), (1, 2), (3,), (2, 2), (1, 1)]),
    "bits": (spaces.MultiBinary(4), MULTI, [(4,), (2, 4), (4, 2), (8,), (1, 4), (3, 4)]),
    "multi": (MULTI, MULTI, [(2,), (2, 2), (1, 2), (4,), (3, 2)]),
}
ACTION_SHAPES = [(), (1,), (2,), (4,), (6,), (12,), (2, 2), (2, 1), (1, 2), (4, 1), (2, 2, 3), (2, 6), (6, 2), (3, 2), (2, 3)]


def assert_as_sb3(sb3, ours, transition, name):
    """Both take the transition and store the same, or neither does."""
    try:
        sb3.add(*transition)
    except ValueError:
        before = ours.pos, [np.asarray(part).copy() for part in contents(ours)]
        with pytest.raises(ValueError, match=rf"^{re.escape(name)} must have the shape \(.*\).*, got \("):
            ours.add(*transition)
        assert ours.pos == before[0]
        for part, old in zip(contents(ours), before[1], strict=True):
            np.testing.assert_array_equal(part, old)
        return False
    ours.add(*transition)
    for mine, other in zip(contents(ours), contents(sb3), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), other)
    return True


def contents(buffer):
    pairs = (buffer.observations, buffer.next_observations)
    parts = [part for obs in pairs for _, part in sorted(obs.items())] if isinstance(pairs[0], dict) else [*pairs]
    return [*parts, buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("wrapped", [False, True], ids=["", "dict"])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_observations_are_taken_or_refused_as_by_sb3(kind, wrapped, n_envs):
    space, action_space, shapes = KINDS[kind]
    whole = spaces.Dict(part=space, other=BOX) if wrapped else space
    good = transitions(whole, n_envs, 1, action_space)[0]
    taken, rng = [], np.random.default_rng(0)
    for column, name in enumerate(("obs", "next_obs")):
        for shape in [*shapes, (n_envs, *space.shape)]:
            sb3 = make(DictReplayBuffer if wrapped else ReplayBuffer, whole, n_envs, action_space)
            ours = make(SoftReplayBuffer, whole, n_envs, action_space)
            bad = np.asarray(rng.integers(0, 2, shape), space.dtype)
            transition = [*good]
            transition[column] = {**good[column], "part": bad} if wrapped else bad
            taken.append(assert_as_sb3(sb3, ours, transition, f"{name}['part']" if wrapped else name))
    assert any(taken) and not all(taken)


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize(
    "action_space", [MULTI, spaces.Discrete(3), spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, (6,))], ids=str
)
def test_shapes_of_the_other_columns_are_taken_or_refused_as_by_sb3(action_space, n_envs):
    good = transitions(BOX, n_envs, 1, action_space)[0]
    cases = [(2, "action", np.ones(shape)) for shape in ACTION_SHAPES]
    cases += [(3, "reward", np.ones(shape)) for shape in [(), (1,), (2,), (3,), (2, 1), (1, 2), (2, 2), (1, 1)]]
    cases += [(4, "done", np.ones(shape)) for shape in [(), (1,), (2,), (3,), (2, 1), (1, 2), (2, 2), (1, 1)]]
    cases += [(5, "infos", [{"TimeLimit.truncated": True}] * number) for number in (0, 1, 2, 3)]
    taken = {}
    for column, name, value in cases:
        transition = [*good]
        transition[column] = value
        sb3, ours = (make(cls, BOX, n_envs, action_space) for cls in (ReplayBuffer, SoftReplayBuffer))
        taken.setdefault(name, set()).add(assert_as_sb3(sb3, ours, transition, name))
    assert all(results == {True, False} for results in taken.values())


def test_lists_are_taken():
    buffer = make(SoftReplayBuffer, BOX, 1)
    obs = [[[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]]
    buffer.add(obs, obs, [[1, 2]], [1.0], [False], ({},))
    np.testing.assert_array_equal(buffer.observations[0], np.float32(obs))


@pytest.mark.parametrize("shape", [HWC, (1, *HWC), (6, 3, 8)])
def test_pictures_with_the_channels_elsewhere(shape):
    buffer = make(SoftReplayBuffer, CHW, 1)
    picture, right = np.zeros(shape, np.uint8), np.zeros((1, 3, 8, 6), np.uint8)
    for pair in ((picture, right), (right, picture)):
        with pytest.raises(ValueError, match=r"\(1, 3, 8, 6\).*channels-first.*VecTransposeImage"):
            buffer.add(*pair, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])
    with pytest.raises(ValueError) as error:
        buffer.add(right[..., :5], right, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])
    assert "channels" not in str(error.value)
    with pytest.raises(ValueError) as error:
        make(SoftReplayBuffer, BOX, 1).add(
            np.zeros((3, 2)), np.zeros((2, 3)), np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}]
        )
    assert "channels" not in str(error.value)


@pytest.mark.parametrize("column", [0, 1])
def test_keys_must_be_those_of_the_space(column):
    good = [*transitions(DICT, 1, 1)[0]]
    name, obs = ("obs", "next_obs")[column], good[column]
    wrong = [{"vector": obs["vector"]}, {**obs, "other": obs["vector"]}, {}, obs["vector"]]
    for value in wrong:
        buffer, transition = make(SoftReplayBuffer, DICT, 1), [*good]
        transition[column] = value
        with pytest.raises(ValueError, match=rf"^{name} must be a dictionary with the keys \['image', 'vector'\]"):
            buffer.add(*transition)
        assert buffer.pos == 0
    transition = [*transitions(BOX, 1, 1)[0]]
    transition[column] = {"": transition[column]}
    with pytest.raises(ValueError, match=rf"^{name} must be an array"):
        make(SoftReplayBuffer, BOX, 1).add(*transition)


@pytest.mark.parametrize("truncated", [np.array([True]), np.array(True), np.bool_(True), 1])
def test_time_limits_may_be_arrays(truncated):
    buffer = make(SoftReplayBuffer, BOX, 2)
    obs, _, actions, rewards, _, _ = transitions(BOX, 2, 1)[0]
    buffer.add(obs, obs, actions, rewards, np.ones(2, bool), [{"TimeLimit.truncated": truncated}, {}])
    assert buffer.timeouts[0].tolist() == [True, False]


def test_reset_frees_everything():
    buffer = make(SoftReplayBuffer, DICT, 2, n_steps=3)
    stream = transitions(DICT, 2, SIZE + 5)
    sizes = set()
    for _ in range(4):
        fill(buffer, stream)
        buffer.end_episodes()
        sizes.add(tuple(len(store.pieces) for store in buffer.stores.values()))
        added = buffer.n_added
        buffer.reset()
        assert (buffer.size(), buffer.pos, buffer.full) == (0, 0, False) and not buffer.timeouts.any()
        assert not any(store.index.any() or store._n_free for store in buffer.stores.values())
        assert buffer.n_added == added  # who follows the buffer is not led to believe that nothing was added
    assert len(sizes) == 1
    fresh = make(SoftReplayBuffer, DICT, 2, n_steps=3)
    assert_same(sample(fill(buffer, stream[:7])), sample(fill(fresh, stream[:7])))


@pytest.mark.parametrize("space", [BOX, DICT], ids=["box", "dict"])
def test_extend_adds_one_transition_after_another(space):
    stream = transitions(space, 2, 6)
    columns = [list(column) for column in zip(*stream, strict=True)]
    extended, added = make(SoftReplayBuffer, space, 2), fill(make(SoftReplayBuffer, space, 2), stream)
    extended.extend(*columns)
    assert_same(sample(extended), sample(added))
    if space is BOX:
        sb3 = make(ReplayBuffer, space, 2)
        sb3.extend(*map(np.array, columns[:5]), columns[5])
        assert_same(sample(extended), sample(sb3))
    with pytest.raises(ValueError):
        extended.extend(*columns[:5], columns[5][:3])


def test_extend_with_arrays_by_name():
    stream, extras = transitions(DICT, 2, 6), {"mask": ((4,), bool), "entropy": ((), np.float32)}
    given = {"mask": np.random.random((6, 2, 4)) < 0.5, "entropy": np.random.random((6, 2))}
    added, extended, named = (make(SoftReplayBuffer, DICT, 2, extras=extras) for _ in range(3))
    for step, transition in enumerate(stream):
        add(added, transition, {name: values[step] for name, values in given.items()})
    columns = [list(column) for column in zip(*stream, strict=True)]
    for place in (0, 1):
        columns[place] = {key: np.stack([obs[key] for obs in columns[place]]) for key in DICT.spaces}
    columns[5] = [
        with_extras(infos, {name: values[step] for name, values in given.items()}) for step, infos in enumerate(columns[5])
    ]
    extended.extend(*columns)
    names = ("obs", "next_obs", "action", "reward", "done", "infos")
    named.extend(**dict(zip(names, columns, strict=True)))
    for buffer in (extended, named):
        assert_same(sample(buffer), sample(added))
        for name in extras:
            assert th.equal(sample(buffer).extras[name], sample(added).extras[name])


@pytest.mark.parametrize("space", [BOX, IMAGE, DICT], ids=["box", "image", "dict"])
def test_warning_about_memory(space, monkeypatch):
    def available(number):
        memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=number))
        monkeypatch.setattr(sb3_buffers, "psutil", memory)

    buffer = make(SoftReplayBuffer, space, 2, extras={"mask": ((4,), bool)})
    arrays = [buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts, buffer.extras["mask"]]
    arrays += [part for store in buffer.stores.values() for part in (store.pieces, store.index)]
    needed = sum(array.nbytes for array in arrays)
    available(needed)
    make(SoftReplayBuffer, space, 2, extras={"mask": ((4,), bool)})
    available(needed - 1)
    with pytest.warns(UserWarning, match="not have enough memory for the full replay buffer.*buffer_size"):
        make(SoftReplayBuffer, space, 2, extras={"mask": ((4,), bool)})


def test_views_of_dictionaries_can_be_stored():
    buffer = make(SoftReplayBuffer, DICT, 2)
    for copied in (pickle.loads(pickle.dumps(buffer.observations)), copy.deepcopy(buffer.observations)):
        assert type(copied) is dict and copied.keys() == buffer.observations.keys()
        assert all((part == buffer.observations[key]).all() and part.flags.writeable for key, part in copied.items())


def test_warning_about_images_that_are_not_stacked(monkeypatch):
    """Only when they come can it be seen that they share nothing: then what is missing is compared with the free memory."""
    frames = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    buffer = SoftReplayBuffer(60, frames, spaces.Box(-1, 1, (1,)), device="cpu")
    frames.seed(0)
    free = 90 * 36 * 36  # pieces
    memory = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(sb3_buffers, "psutil", memory)
    obs = frames.sample()
    with pytest.warns(UserWarning, match="not have enough memory for the full replay buffer"):
        for _ in range(60):
            next_obs = frames.sample()
            buffer.add(obs[None], next_obs[None], np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
            obs = next_obs


@pytest.mark.parametrize("handle", [True, False])
@pytest.mark.parametrize("number", [5, SIZE, SIZE + 7])
@pytest.mark.parametrize("n_steps", [1, 3, 30])
def test_targets_end_where_episodes_were_ended(n_steps, number, handle):
    """As a time limit in that place, but for the flag of the last transition."""
    n_envs, marks = 2, {3, number - 4, number - 1}
    stream = transitions(BOX, n_envs, number)
    ours = make(SoftReplayBuffer, BOX, n_envs, n_steps=n_steps, gamma=0.9, handle_timeout_termination=handle)
    kwargs = dict(n_steps=n_steps, gamma=0.9) if n_steps > 1 else {}
    cls = NStepReplayBuffer if n_steps > 1 else ReplayBuffer
    sb3 = make(cls, BOX, n_envs, **kwargs, handle_timeout_termination=True)
    for step, transition in enumerate(stream):
        ours.add(*transition)
        limits = [dict(info) if handle else {} for info in transition[5]]
        if step in marks:
            ours.end_episodes()
            limits = [
                limit if done else {"TimeLimit.truncated": True} for limit, done in zip(limits, transition[4], strict=True)
            ]
        sb3.add(*transition[:5], limits)
    assert_same(sample(ours), sample(sb3), rtol=1e-5)
    unmarked = fill(make(SoftReplayBuffer, BOX, n_envs, n_steps=n_steps, gamma=0.9, handle_timeout_termination=handle), stream)
    rewards = sample(unmarked).rewards
    assert th.equal(sample(ours).rewards, rewards) is (n_steps == 1)


def test_ends_of_episodes_are_saved_and_overwritten(tmp_path):
    for handle in (True, False):
        stream = transitions(BOX, 2, 3 * SIZE)
        buffer, unmarked = (make(SoftReplayBuffer, BOX, 2, n_steps=5, handle_timeout_termination=handle) for _ in range(2))
        buffer.end_episodes()  # nothing to end yet
        assert not buffer.timeouts.any()
        fill(buffer, stream[:8]), fill(unmarked, stream)
        buffer.end_episodes()
        save_to_pkl(tmp_path / "buffer.pkl", buffer)
        copy = load_from_pkl(tmp_path / "buffer.pkl")
        for one in (buffer, copy):
            fill(one, stream[8:12])
        assert_same(sample(copy), sample(buffer))
        assert not th.equal(
            sample(copy).discounts, sample(fill(make(SoftReplayBuffer, BOX, 2, n_steps=5), stream[:12])).discounts
        )
        assert_same(sample(fill(copy, stream[12:])), sample(unmarked))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(buffer_size=0), "buffer_size must be an integer, at least 1, got 0"),
        (dict(buffer_size=-5), "buffer_size"),
        (dict(n_envs=0), "n_envs must be an integer, at least 1"),
        (dict(n_steps=0), "n_steps must be an integer, at least 1, got 0"),
        (dict(n_steps=1.5), "n_steps"),
        (dict(n_steps=-1), "n_steps"),
        (dict(gamma=-0.1), "gamma must be a number between 0 and 1, got -0.1"),
        (dict(gamma=1.01), "gamma"),
        (dict(gamma=float("nan")), "gamma"),
    ],
)
def test_impossible_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SoftReplayBuffer(**{"buffer_size": 5, "observation_space": BOX, "action_space": MULTI, "device": "cpu"} | kwargs)


def test_smallest_and_largest_arguments():
    assert SoftReplayBuffer(2, BOX, MULTI, device="cpu", n_envs=3).buffer_size == 1
    for gamma in (0.0, 1.0):
        SoftReplayBuffer(1, BOX, MULTI, device="cpu", gamma=gamma, n_steps=1)


@pytest.mark.parametrize("draw", ["sample", "draw"])
def test_nothing_to_draw(draw):
    buffer = make(SoftReplayBuffer, BOX, 1)
    with pytest.raises(ValueError, match=r"replay buffer is empty: .*add\(\)"):
        getattr(buffer, draw)(4)
    fill(buffer, transitions(BOX, 1, 2))
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {number}"):
            getattr(buffer, draw)(number)
    buffer.reset()
    with pytest.raises(ValueError, match="empty"):
        getattr(buffer, draw)(1)
