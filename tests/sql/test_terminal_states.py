"""Behind the last step of an episode no Q-value is ever trained: nothing may be read off there."""

import numpy as np
import pytest
import torch as th
from scipy.optimize import brentq
from stable_baselines3.common.logger import Logger

from sb3_softac.common.batch import Batch
from sb3_softac.tabular import BoltzmannOracle
from tests.softac_v1.helpers import QuadraticBandit
from tests.sql.helpers import make_model


def make_batch(dones, next_obs):
    n = len(dones)
    return Batch(th.zeros(n, 1), th.zeros(n, 1), th.zeros(n), dones, th.full((n,), 0.9), next_obs, {})


def update(batch, **kwargs):
    model = make_model(QuadraticBandit(), **kwargs)
    th.manual_seed(1)
    logs = model._update(batch)
    return {name: value.item() for name, value in logs.items()}


@pytest.mark.parametrize("ent_coef", [1.0, "auto"])
def test_terminal_next_states_do_not_count(ent_coef):
    dones = th.tensor([0.0, 1.0, 0.0, 1.0])
    near, far = th.tensor([[0.1], [0.2], [0.3], [0.4]]), th.tensor([[0.1], [-50.0], [0.3], [70.0]])
    first, second = (update(make_batch(dones, next_obs), ent_coef=ent_coef) for next_obs in (near, far))
    assert first == pytest.approx(second, rel=1e-5) and 1.0 <= first["effective_sample_size"] <= 8.0
    moved = update(make_batch(dones, far.roll(1, dims=0)), ent_coef=ent_coef)
    for name in ("v_mean", "effective_sample_size"):
        assert moved[name] != pytest.approx(first[name], rel=1e-3)


def test_nothing_but_terminal_next_states():
    logs = update(make_batch(th.ones(4), th.full((4, 1), 5.0)))
    assert logs["v_mean"] == logs["entropy"] == logs["effective_sample_size"] == 0.0
    assert all(np.isfinite(value) for value in logs.values())


def test_learned_temperature_of_a_bandit():
    """Every next state is terminal. The entropy of exp(Q / alpha) must come out at its target in the one state there is."""
    env = QuadraticBandit(curvature=10.0, peak=0.3)

    def oracle(alpha):
        return BoltzmannOracle(lambda a: -0.5 * env.curvature * (a[:, 0] - env.peak) ** 2, alpha)

    target = -0.5
    exact = brentq(lambda log_alpha: oracle(np.exp(log_alpha)).entropy - target, np.log(0.02), np.log(2.0))
    model = make_model(
        env, ent_coef="auto_0.5", target_entropy=target, policy_kwargs=dict(net_arch=[64, 64], n_critics=1),
        buffer_size=1_000, value_particles=32, learning_rate=3e-3,
    )  # fmt: skip
    for action in np.random.default_rng(0).uniform(-1, 1, (1_000, 1, 1)):
        reward = -0.5 * env.curvature * (action[:, 0] - env.peak) ** 2
        # terminal observations that the agent never acts on
        model.replay_buffer.add(np.zeros((1, 1)), np.ones((1, 1)), action, reward, np.ones(1), [{}])
    model.set_logger(Logger(None, []))
    for learning_rate in (3e-3, 1e-3):
        model.lr_schedule = lambda _, value=learning_rate: value
        model.train(500, batch_size=32)
    assert model.temperature.alpha.item() == pytest.approx(np.exp(exact), rel=0.05)
    assert model.logger.name_to_value["train/entropy"] == pytest.approx(target, abs=0.1)
