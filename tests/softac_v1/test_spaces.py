"""Observation and action spaces, features of SB3, and refusals."""

import importlib

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_softac.softac_v1 import SoftACPolicy
from tests.softac_v1.helpers import ConstantReward, QuadraticBandit, draw_batch, make_model


class BoxActions(gym.Env):
    """Any Box of actions; remembers the actions it got."""

    def __init__(self, low, high, shape, dtype=np.float32):
        self.observation_space = spaces.Box(-1, 1, (3,), np.float64)
        self.action_space = spaces.Box(np.full(shape, low, dtype), np.full(shape, high, dtype), dtype=dtype)
        self.actions, self.steps = [], 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 3), {}

    def step(self, action):
        self.actions.append(np.array(action))
        self.steps += 1
        return self.np_random.uniform(-1, 1, 3), float(action.sum()), False, self.steps >= 10, {}


@pytest.mark.parametrize(
    ("low", "high", "shape", "dtype"),
    [(-0.4, 0.4, (3,), np.float32), (1.0, 5.0, (1,), np.float64), (-2.0, 7.0, (2, 2), np.float32)],
)
@pytest.mark.parametrize("use_sde", [False, True])
def test_box_actions_of_any_bounds_and_shape(low, high, shape, dtype, use_sde):
    env = BoxActions(low, high, shape, dtype)
    model = make_model(env, use_sde=use_sde)
    model.learn(40)
    assert all(env.action_space.contains(action.astype(dtype)) for action in env.actions)
    action, _ = model.predict(np.zeros(3))
    assert action.shape == shape and env.action_space.contains(action.astype(dtype))
    batch, _ = model.predict(np.zeros((5, 3)))
    assert batch.shape == (5, *shape)
    assert model.temperature.alpha.item() == pytest.approx(0.2)
    assert make_model(env, ent_coef="auto").target_entropy == -np.prod(shape)


def test_images():
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=False)
    model = make_model(env, "CnnPolicy", policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=16)))
    before = [p.detach().clone() for p in model.critic.features_extractor.parameters()]
    model.learn(20)
    assert any(not th.equal(a, b) for a, b in zip(before, model.critic.features_extractor.parameters(), strict=True))
    assert model.predict(env.observation_space.sample())[0].shape == env.action_space.shape
    extractors = {id(getattr(model, n).features_extractor) for n in ("actor", "critic", "value_net", "value_net_target")}
    assert len(extractors) == 4


def test_shared_extractor_is_trained_by_the_actor_alone(monkeypatch):
    env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=False)
    kwargs = dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=16), share_features_extractor=True)
    model = make_model(env, "CnnPolicy", policy_kwargs=kwargs)
    model.learn(20)
    shared = model.actor.features_extractor
    assert model.critic.features_extractor is shared and model.value_net.features_extractor is shared
    assert model.value_net_target.features_extractor is not shared
    seen = {}
    with monkeypatch.context() as patch:
        patch.setattr(model, "_minimize", lambda losses: seen.update(losses) or {})
        model._update(draw_batch(model))
    for name, trains in (("critic_loss", False), ("value_loss", False), ("actor_loss", True)):
        model._minimize({name: seen[name]})
        assert any(p.grad is not None for p in shared.parameters()) is trains, name


def test_dictionaries():
    env = SimpleMultiObsEnv(discrete_actions=False)
    model = make_model(env, "MultiInputPolicy")
    model.learn(30)
    assert model.predict(env.observation_space.sample())[0].shape == env.action_space.shape


def test_hindsight_experience_replay(tmp_path):
    env = BitFlippingEnv(n_bits=4, continuous=True, max_steps=4)
    model = make_model(
        env,
        "MultiInputPolicy",
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs=dict(n_sampled_goal=2),
        learning_starts=20,
    )
    model.learn(60)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=env, learning_rate=1e-5)
    model.save_replay_buffer(tmp_path / "buffer")
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps == 90


@pytest.mark.parametrize("vec_env_class", [DummyVecEnv, SubprocVecEnv])
def test_several_environments_and_normalisation(vec_env_class):
    vec_env = VecNormalize(vec_env_class([lambda: gym.make("Pendulum-v1")] * 2))
    model = make_model(vec_env, gradient_steps=-1)
    model.learn(60)
    assert model._n_updates == 50  # two per round, from the 12th step on
    vec_env.close()


def test_n_step_returns_use_their_discounts(monkeypatch):
    model = make_model(n_steps=3, gamma=0.9)
    model.learn(40)
    seen = []
    module = importlib.import_module("sb3_softac.softac_v1.softac_v1")
    original = module.soft_bellman_target
    monkeypatch.setattr(module, "soft_bellman_target", lambda *args: (seen.append(args[3]), original(*args))[1])
    model.train(1, 16)
    assert seen[0].shape == (16,)
    assert set(np.round(seen[0].tolist(), 6)) <= {0.9, 0.81, 0.729}  # fewer steps at the end of the buffer
    assert seen[0].min().item() == pytest.approx(0.9**3)


@pytest.mark.parametrize("noise", [NormalActionNoise, OrnsteinUhlenbeckActionNoise])
def test_action_noise(noise):
    noisy, quiet = (
        make_model(action_noise=action_noise, learning_starts=0, gradient_steps=0).learn(30)
        for action_noise in (noise(np.zeros(1), 0.1 * np.ones(1)), None)
    )
    assert not np.array_equal(noisy.replay_buffer.actions[:30], quiet.replay_buffer.actions[:30])
    envs = DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2)
    make_model(envs, action_noise=VectorizedActionNoise(noise(np.zeros(1), 0.1 * np.ones(1)), 2)).learn(30)


@pytest.mark.parametrize("kwargs", [dict(sde_sample_freq=4), dict(use_sde_at_warmup=True), dict(ent_coef="auto")])
def test_state_dependent_exploration(kwargs):
    model = make_model(use_sde=True, **kwargs).learn(40)
    assert model._n_updates == 30
    actions = [model.predict(np.zeros(3), deterministic=False)[0] for _ in range(2)]
    assert actions[0] == actions[1]  # the noise is a function of the state until it is drawn anew


@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("actor_q", ["min", "first"])
def test_number_of_critics(n_critics, actor_q):
    model = make_model(n_critics=n_critics, actor_q=actor_q)
    model.learn(20)
    assert len(model.critic(th.zeros(4, 3), th.zeros(4, 1))) == n_critics
    assert len(make_model(policy_kwargs=dict(n_critics=n_critics)).critic(th.zeros(4, 3), th.zeros(4, 1))) == n_critics


@pytest.mark.parametrize("net_arch", [[], [4], [4, 4], dict(pi=[3], qf=[4, 5]), dict(pi=[3], qf=[4], vf=[7])])
def test_network_architectures(net_arch):
    model = make_model(policy_kwargs=dict(net_arch=net_arch))
    model.learn(15)
    if isinstance(net_arch, dict):
        assert model.critic.q_networks.layers[0].weight.shape == (2, 4, 4)
        assert model.value_net.v_network[0].out_features == net_arch.get("vf", net_arch["qf"])[0]


@pytest.mark.parametrize("train_freq", [4, (4, "step"), (1, "episode")])
@pytest.mark.parametrize("gradient_steps", [0, 1, -1])
def test_train_frequencies(train_freq, gradient_steps):
    model = make_model(QuadraticBandit(), train_freq=train_freq, gradient_steps=gradient_steps)
    model.learn(40)
    period = train_freq[0] if isinstance(train_freq, tuple) else train_freq
    rounds = sum(1 for step in range(period, 41, period) if step > 10)
    assert model._n_updates == rounds * (gradient_steps if gradient_steps >= 0 else period)


def test_random_steps_are_separate_from_learning_starts():
    model = make_model(random_steps=0, learning_starts=50)
    assert _uniform_steps(model, 50) == 0
    model = make_model(random_steps=30, learning_starts=10)
    assert _uniform_steps(model, 50) == 30
    assert model._n_updates == 40
    assert _uniform_steps(make_model(learning_starts=20), 50) == 20


def _uniform_steps(model, total):
    """Count the steps for which the policy was not asked."""
    asked = []
    model.actor.register_forward_hook(lambda *_: asked.append(1))
    model.learn(total)
    return total - len(asked)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CartPole-v1", "DiscreteSAC"),
        (BoxActions(-np.inf, np.inf, (2,)), "finite bounds"),
    ],
)
def test_unsupported_action_spaces(env, message):
    with pytest.raises(AssertionError, match=message):
        make_model(env)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(ent_coef=0.0), "greater than 0"),
        (dict(ent_coef=-1.0), "greater than 0"),
        (dict(ent_coef="something"), "not valid"),
        (dict(tau=-0.1), r"tau must be a number in \[0, 1\]"),
        (dict(tau=1.5), r"tau must be a number in \[0, 1\]"),
        (dict(n_critics=0), "n_critics must be an integer, at least 1"),
        (dict(actor_q="mean"), "'min' .* or 'first'"),
        (dict(target_update_interval=0), "target_update_interval"),
        (dict(random_steps=-1), "random_steps"),
        (dict(target_entropy="lots"), "target_entropy"),
        (dict(policy="LstmPolicy"), "use one of .*MlpPolicy"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(ConstantReward(), **kwargs)


def test_the_callers_policy_kwargs_are_left_alone():
    policy_kwargs = dict(net_arch=[8])
    make_model(policy_kwargs=policy_kwargs)
    assert policy_kwargs == dict(net_arch=[8])


def test_policy_class_instead_of_a_name():
    assert type(make_model(policy=SoftACPolicy).learn(15).policy) is SoftACPolicy
