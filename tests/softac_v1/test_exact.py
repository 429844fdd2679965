"""SoftAC_v1 against answers that are known in closed form."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import TimeLimit

from tests.softac_v1.helpers import ConstantReward, QuadraticBandit, make_model


@pytest.mark.parametrize("action_dim", [2])
def test_bandit_reaches_the_boltzmann_policy(action_dim):
    """
    With reward -k/2 (a - c)^2 the optimal density exp(r / alpha) / Z is a Gaussian of variance alpha / k around c, and
    V = alpha log Z = D alpha / 2 log(2 pi alpha / k); the box cuts off less than 1e-6 of it.
    """
    alpha, curvature, peak = 0.2, 10.0, 0.3
    model = make_model(
        QuadraticBandit(curvature, peak, action_dim),
        ent_coef=alpha,
        learning_rate=1e-2,
        learning_starts=200,
        batch_size=64,
        buffer_size=5_000,
        tau=0.05,
        policy_kwargs=dict(net_arch=[32, 32]),
    )
    model.learn(700)
    model.lr_schedule = lambda _: 1e-3
    model.train(200, 256)
    obs = th.zeros(20_000, 1)
    with th.no_grad():
        actions, log_pi = model.actor.action_log_prob(obs)
        v = model.value_net(obs[:1]).item()
    np.testing.assert_allclose(actions.mean(0), peak, atol=0.03)
    np.testing.assert_allclose(actions.std(0), math.sqrt(alpha / curvature), atol=0.02)
    exact_entropy = action_dim * 0.5 * math.log(2 * math.pi * math.e * alpha / curvature)
    assert -log_pi.mean().item() == pytest.approx(exact_entropy, abs=0.15)
    assert v == pytest.approx(action_dim * alpha * 0.5 * math.log(2 * math.pi * alpha / curvature), abs=0.05)


def test_time_limits_bootstrap_and_the_entropy_counts():
    """
    Reward 1 without end: V = (1 + alpha H) / (1 - gamma) with H close to log 2, the entropy of the uniform policy. Taking the
    time limit of 5 steps for an end would give less than half of that; leaving the entropy out of V gives 10 instead of 13.4.
    """
    alpha, gamma = 0.5, 0.9
    model = make_model(
        TimeLimit(ConstantReward(), 5),
        ent_coef=alpha,
        gamma=gamma,
        learning_rate=1e-2,
        tau=0.2,
        learning_starts=100,
        batch_size=64,
    )
    model.learn(600)
    model.lr_schedule = lambda _: 1e-3
    model.train(200, 128)
    with th.no_grad():
        v = model.value_net(th.full((1, 2), 0.5)).item()
        entropy = -model.actor.action_log_prob(th.full((20_000, 2), 0.5))[1].mean().item()
    assert entropy == pytest.approx(math.log(2), abs=0.03)  # a tanh-Gaussian comes within 0.01 of the uniform density
    assert v == pytest.approx((1 + alpha * math.log(2)) / (1 - gamma), rel=0.02)


@pytest.mark.slow
def test_pendulum_is_solved(monkeypatch):
    monkeypatch.setenv("SB3_SOFTAC_FAST", "1")  # as users train, where there is a compiler
    model = make_model(
        gym.make("Pendulum-v1"), learning_rate=1e-3, learning_starts=100, batch_size=256, policy_kwargs={}, buffer_size=20_000
    )
    model.learn(8_000)
    env = gym.make("Pendulum-v1")
    returns = []
    for episode in range(10):
        obs, _ = env.reset(seed=episode)
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    assert np.mean(returns) > -250
