"""Action spaces, encoders, and features of SB3; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_softac import DiscreteSAC
from tests import toys
from tests.toys import random_envs, saved

make_model = partial(toys.make_model, DiscreteSAC)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
CNN = dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=8))
# Space of the actions, and the largest index of each branch
ACTIONS = [
    (spaces.Discrete(3, start=3), [2]),
    (spaces.MultiDiscrete([2, 4, 3], start=[5, -2, 0]), [1, 3, 2]),
    (spaces.MultiDiscrete([3, 3], dtype=np.int32), [2, 2]),
    (spaces.MultiBinary(3), [1, 1, 1]),
]


def recorded(env):
    """:return: The list to which the environment's actions are added."""
    step, taken = env.step_async, []
    env.step_async = lambda actions: (taken.append(np.reshape(actions, (env.num_envs, -1))), step(actions))[1]
    return taken


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(("space", "largest"), ACTIONS, ids=str)
def test_actions(space, largest, n_envs):
    """Stored counting from 0, handed to the environment as its space has them."""
    env = random_envs(DiscreteSAC, actions=space, n_envs=n_envs)
    taken = recorded(env)
    model = make_model(env, learning_starts=20).learn(150)
    assert model._n_updates >= 40
    stored = model.replay_buffer.actions[: model.replay_buffer.pos]
    np.testing.assert_array_equal(stored + model.branches.start, taken)
    np.testing.assert_array_equal(stored.min(axis=(0, 1)), np.zeros(len(largest)))
    np.testing.assert_array_equal(stored.max(axis=(0, 1)), largest)
    for deterministic in (False, True):
        action, _ = model.predict(np.zeros(3), deterministic=deterministic)
        assert space.contains(action) and action.shape == space.shape and action.dtype == space.dtype
        batch, _ = model.predict(np.zeros((5, 3)), deterministic=deterministic)
        assert batch.shape == (5, *space.shape) and all(space.contains(action) for action in batch)


def test_warm_up_actions_are_uniform_and_not_the_policys():
    env = random_envs(DiscreteSAC, actions=spaces.MultiDiscrete([2, 4], start=[5, -2]))
    taken, model = recorded(env), make_model(env, random_steps=600, learning_starts=1_000)
    with th.no_grad():
        model.actor.logits[-1].bias.copy_(th.tensor([50.0, 0.0, 50.0, 0.0, 0.0, 0.0]))
    model.learn(650)
    warm_up, later = np.concatenate(taken[:600]), np.concatenate(taken[600:])
    for column, low, size in ((0, 5, 2), (1, -2, 4)):
        frequencies = np.bincount(warm_up[:, column] - low, minlength=size) / 600
        np.testing.assert_allclose(frequencies, 1 / size, atol=0.08)
    np.testing.assert_array_equal(later, np.tile([5, -2], (50, 1)))


def test_arguments_changed_at_loading_reach_the_replay_buffer(tmp_path):
    path = saved(make_model("CartPole-v1", n_steps=3, replay_buffer_kwargs=dict(handle_timeout_termination=False)), tmp_path)
    loaded = DiscreteSAC.load(path, env=gym.make("CartPole-v1"))
    assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (3, 0.99)
    assert not loaded.replay_buffer.handle_timeout_termination
    changes = dict(n_steps=5, gamma=0.5, stable_kwargs=dict(entropy_penalty=0.5))
    loaded = DiscreteSAC.load(path, env=gym.make("CartPole-v1"), **changes)
    assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (5, 0.5)
    assert loaded.replay_buffer.extras.keys() == {"old_entropy"}
    assert loaded.learn(50).replay_buffer.sample(200).discounts.min().item() == pytest.approx(0.5**5)


def test_replay_buffers_of_sb3():
    env = random_envs(DiscreteSAC, actions=spaces.Discrete(3, start=2))
    kwargs = dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))
    model = make_model(env, **kwargs).learn(60)
    assert type(model.replay_buffer) is ReplayBuffer and model.replay_buffer.optimize_memory_usage
    assert set(np.unique(model.replay_buffer.actions[:60])) == {0, 1, 2} and model._n_updates == 50
    with pytest.warns(
        UserWarning, match="n_steps=3 has no effect: ReplayBuffer computes targets of 1 step. Set n_steps=1, or leave out"
    ):
        make_model(env, n_steps=3, replay_buffer_class=ReplayBuffer)
    with pytest.warns(UserWarning, match="n_steps=4 has no effect: SoftReplayBuffer computes targets of 2 steps"):
        make_model(env, n_steps=4, replay_buffer_kwargs=dict(n_steps=2))
    assert make_model(env, replay_buffer_kwargs=dict(n_steps=2)).replay_buffer.n_steps == 2


def test_observation_with_info_given_to_predict():
    with pytest.raises(ValueError, match=r"reset\(\) returns \(obs, info\)"):
        make_model("CartPole-v1").predict(gym.make("CartPole-v1").reset())
