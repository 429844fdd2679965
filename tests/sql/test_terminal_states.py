"""Behind the last step of an episode no Q-value is ever trained: nothing may be read off there."""

import numpy as np
import pytest
import torch as th
from scipy.optimize import brentq

from sb3_softac.replay.batch import Batch
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
    env = QuadraticBandit(curvature=16.0, peak=0.3)

    def oracle(alpha):
        return BoltzmannOracle(lambda a: -0.5 * env.curvature * (a[:, 0] - env.peak) ** 2, alpha)

    exact = np.exp(brentq(lambda x: oracle(np.exp(x)).entropy + 1.0, np.log(0.02), np.log(2.0)))
    assert exact == pytest.approx(0.127, abs=1e-3)
    model = make_model(env, ent_coef="auto_0.2", value_particles=64)
    # what the critic comes to; the target knows nothing of it, and next states lie elsewhere
    model.critic.q_particles = lambda _, a: -0.5 * env.curvature * (a - env.peak).square().sum(dim=-1).unsqueeze(0)
    model.temperature.optimizer.param_groups[0]["lr"] = 0.02
    alphas = []
    for _ in range(150):
        logs = model._update(make_batch(th.ones(32), th.ones(32, 1)))
        alphas.append(model.temperature.alpha.item())
    assert np.mean(alphas[-50:]) == pytest.approx(exact, rel=0.05)
    assert logs["entropy"].item() == pytest.approx(-1.0, abs=0.1)
