"""Actions of any bounds, networks, and features of SB3; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise

from sb3_softac import SoftAC_v1
from sb3_softac.softac_v1 import SoftACPolicy
from tests.softac_v1.helpers import draw_batch, make_model
from tests.toys import random_envs

IMAGES = dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=16))


def images():
    return FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=False)


@pytest.mark.parametrize(
    ("low", "high", "shape", "dtype"),
    [(-0.4, 0.4, (3,), np.float32), (1.0, 5.0, (1,), np.float64), (-2.0, 7.0, (2, 2), np.float32)],
)
@pytest.mark.parametrize("use_sde", [False, True])
def test_box_actions_of_any_bounds_and_shape(low, high, shape, dtype, use_sde):
    space = spaces.Box(np.full(shape, low, dtype), np.full(shape, high, dtype), dtype=dtype)
    model = make_model(random_envs(SoftAC_v1, actions=space), use_sde=use_sde, ent_coef="auto")
    step, taken = model.env.step_async, []
    model.env.step_async = lambda actions: (taken.extend(actions), step(actions))[1]
    model.learn(40)
    assert len(taken) == 40 and all(space.contains(action.astype(dtype)) for action in taken)
    action, _ = model.predict(np.zeros(3, np.float32))
    assert action.shape == shape and space.contains(action.astype(dtype))
    assert model.predict(np.zeros((5, 3), np.float32))[0].shape == (5, *shape)
    assert model.target_entropy == -np.prod(shape)


def test_shared_extractor_is_trained_by_the_actor_alone(monkeypatch):
    model = make_model(images(), "CnnPolicy", policy_kwargs=dict(IMAGES, share_features_extractor=True))
    model.learn(20)
    shared = model.actor.features_extractor
    assert model.critic.features_extractor is shared and model.value_net.features_extractor is shared
    assert model.value_net_target.features_extractor is not shared
    seen = {}
    with monkeypatch.context() as patch:
        patch.setattr(model, "_minimize", seen.update)
        model._update(draw_batch(model))
    for name, trains in (("critic_loss", False), ("value_loss", False), ("actor_loss", True)):
        model._minimize({name: seen[name]})
        assert any(p.grad is not None for p in shared.parameters()) is trains, name


@pytest.mark.parametrize("noise", [NormalActionNoise, OrnsteinUhlenbeckActionNoise])
def test_action_noise(noise):
    kinds = (noise(np.zeros(1), 0.1 * np.ones(1)), None)
    noisy, quiet = (make_model(action_noise=kind, learning_starts=0, gradient_steps=0).learn(30) for kind in kinds)
    assert not np.array_equal(noisy.replay_buffer.actions[:30], quiet.replay_buffer.actions[:30])
    envs = random_envs(SoftAC_v1, n_envs=2)
    make_model(envs, action_noise=VectorizedActionNoise(noise(np.zeros(2), 0.1 * np.ones(2)), 2)).learn(30)


@pytest.mark.parametrize("kwargs", [dict(sde_sample_freq=4), dict(use_sde_at_warmup=True, ent_coef="auto")])
def test_state_dependent_exploration(kwargs):
    model = make_model(use_sde=True, **kwargs).learn(40)
    assert model._n_updates == 30
    actions = [model.predict(np.zeros(3), deterministic=False)[0] for _ in range(2)]
    assert actions[0] == actions[1]  # the noise is a function of the state until it is drawn anew


@pytest.mark.parametrize("net_arch", [[], [4], dict(pi=[3], qf=[4, 5]), dict(pi=[3], qf=[4], vf=[7])])
@pytest.mark.parametrize("n_critics", [1, 3])
def test_networks(net_arch, n_critics):
    model = make_model(policy_kwargs=dict(net_arch=net_arch), n_critics=n_critics).learn(15)
    same = make_model(policy_kwargs=dict(net_arch=net_arch, n_critics=n_critics))
    for each in (model, same):
        assert len(each.critic(th.zeros(4, 3), th.zeros(4, 1))) == n_critics
    if isinstance(net_arch, dict):
        assert model.critic.q_networks.layers[0].weight.shape == (n_critics, 4, 4)
        assert model.value_net.v_network[0].out_features == net_arch.get("vf", net_arch["qf"])[0]


@pytest.mark.parametrize(("kwargs", "random"), [(dict(random_steps=0), 0), (dict(random_steps=30), 30), (dict(), 10)])
def test_random_steps_are_separate_from_learning_starts(kwargs, random):
    model, asked = make_model(learning_starts=10, **kwargs), []
    model.actor.register_forward_hook(lambda *_: asked.append(1))
    model.learn(50)
    assert 50 - len(asked) == random and model._n_updates == 40


def test_the_other_algorithm_is_named():
    with pytest.raises(AssertionError, match="DiscreteSAC"):
        make_model("CartPole-v1")


def test_policy_class_and_callers_policy_kwargs():
    policy_kwargs = dict(net_arch=[8])
    assert type(make_model(policy=SoftACPolicy, policy_kwargs=policy_kwargs).learn(15).policy) is SoftACPolicy
    assert policy_kwargs == dict(net_arch=[8])
