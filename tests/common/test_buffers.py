"""SoftReplayBuffer against SB3's buffers on the same transitions, and what those leave out against a slow computation."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_softac.common.buffers import SoftReplayBuffer

BOX = spaces.Box(-1, 1, (2, 3), np.float32)
IMAGE = spaces.Box(0, 255, (3, 4, 4), np.uint8)
DICT = spaces.Dict(vector=spaces.Box(-1, 1, (3,), np.float32), image=IMAGE)
MULTI = spaces.MultiDiscrete([3, 4])
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
    theirs = sample(sb3)
    if isinstance(space, spaces.Discrete):  # a column there, which SB3's policies flatten
        theirs = theirs._replace(
            observations=theirs.observations.squeeze(1), next_observations=theirs.next_observations.squeeze(1)
        )
    assert_same(sample(ours), theirs)


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


def test_time_limits_can_be_terminations():
    stream = transitions(BOX, 2, SIZE)
    assert any(info["TimeLimit.truncated"] for *_, infos in stream for info in infos)
    for cls, kwargs in ((ReplayBuffer, {}), (NStepReplayBuffer, dict(n_steps=3))):
        kwargs = {**kwargs, "handle_timeout_termination": False}
        sb3, ours = (fill(make(kind, BOX, 2, **kwargs), stream) for kind in (cls, SoftReplayBuffer))
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


@pytest.mark.parametrize("number", [5, SIZE, SIZE + 7])
@pytest.mark.parametrize("space", [BOX, DICT], ids=["box", "dict"])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_n_step_targets_and_extra_columns_against_a_slow_computation(space, number, n_steps):
    n_envs, gamma = 2, 0.9
    extras = {"mask": ((4,), bool), "next_mask": ((4,), bool), "entropy": ((), np.float32)}
    buffer = make(SoftReplayBuffer, space, n_envs, n_steps=n_steps, gamma=gamma, extras=extras)
    stream, rng = transitions(space, n_envs, number), np.random.default_rng(5)
    staged = []
    for transition in stream:
        masks = [rng.random((n_envs, 4)) < 0.5 for _ in range(2)]
        staged.append(dict(mask=masks[0], next_mask=masks[1], entropy=rng.random(n_envs)))
        buffer.stage(**staged[-1])
        buffer.add(*transition)
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
        np.testing.assert_array_equal(batch.extras["mask"][i], staged[start]["mask"][env])
        np.testing.assert_array_equal(batch.extras["next_mask"][i], staged[last]["next_mask"][env])
        assert batch.extras["entropy"][i].item() == pytest.approx(staged[start]["entropy"][env])
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


def test_numbers_of_double_precision_become_single():
    space, actions = spaces.Box(-1, 1, (2,), np.float64), spaces.Box(-1, 1, (2,), np.float64)
    buffer = fill(make(SoftReplayBuffer, space, 1, actions), transitions(space, 1, 3, actions))
    batch = sample(buffer)
    tensors = (batch.observations, batch.next_observations, batch.actions, batch.rewards, batch.dones)
    assert all(tensor.dtype == th.float32 for tensor in tensors)


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
                store.stage(mask=np.full((2, 4), i % 2 == 0))
                store.add(*transition)
    assert_same(sample(copy), sample(buffer))
    assert th.equal(sample(copy).extras["mask"], sample(buffer).extras["mask"])


def test_extra_columns_must_be_given_each_time():
    buffer = make(SoftReplayBuffer, BOX, 1, extras={"mask": ((4,), bool), "entropy": ((), np.float32)})
    transition = transitions(BOX, 1, 1)[0]
    with pytest.raises(ValueError, match=r"\['entropy', 'mask'\] .* have no values: call stage\(\) before add\(\)"):
        buffer.add(*transition)
    buffer.stage(mask=np.ones((1, 4)), entropy=np.ones(1))
    buffer.add(*transition)
    with pytest.raises(ValueError, match=r"\['entropy', 'mask'\]"):
        buffer.add(*transition)  # those of before are not used twice
    buffer.stage(mask=np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"\['entropy'\]"):
        buffer.add(*transition)
    assert buffer.pos == 1


def test_bytes_per_transition():
    def size(obj):
        return sum(value.nbytes for value in vars(obj).values() if isinstance(value, np.ndarray))

    limits = {(17,): 0.4, (376,): 0.3, (4, 84, 84): 0.15}
    for shape, limit in limits.items():
        space = spaces.Box(0, 255, shape, np.uint8 if len(shape) == 3 else np.float64)
        sb3, ours = (cls(5_000, space, spaces.Box(-1, 1, (6,)), device="cpu") for cls in (ReplayBuffer, SoftReplayBuffer))
        assert size(ours) + sum(map(size, ours._stores.values())) < limit * size(sb3)


def test_memory_optimisation_is_sb3s():
    with pytest.raises(ValueError, match="replay_buffer_class=ReplayBuffer"):
        make(SoftReplayBuffer, BOX, 1, optimize_memory_usage=True)
