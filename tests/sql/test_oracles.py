"""SQL against exact Boltzmann policies of a fixed reward."""

from functools import cache

import numpy as np
import pytest

from sb3_softac.tabular import BoltzmannOracle, ks_distance, sliced_wasserstein_distance
from tests.sql.helpers import sample, solve_bandit

REWARDS = {
    "one mode": lambda a: -4.0 * (a[:, 0] - 0.4) ** 2,
    "two modes": lambda a: -10.0 * (a[:, 0] ** 2 - 0.35) ** 2,
    "at the edge": lambda a: 3.0 * a[:, 0],
}


@cache
def solved(name):
    return solve_bandit(REWARDS[name], 1, steps=600)


@pytest.mark.parametrize(
    "name", ["one mode", *(pytest.param(n, marks=pytest.mark.slow) for n in ("two modes", "at the edge"))]
)
def test_the_sampler_draws_from_the_boltzmann_density(name):
    model = solved(name)
    assert ks_distance(BoltzmannOracle(REWARDS[name], 1.0), sample(model, 2_000)[:, 0]) < 0.1


@pytest.mark.slow
def test_two_correlated_dimensions():
    def reward(a):
        return -8.0 * (a[:, 0] - 0.8 * a[:, 1]) ** 2 - (a[:, 0] + a[:, 1] - 0.3) ** 2

    oracle = BoltzmannOracle(reward, 1.0, dim=2)
    samples = sample(solve_bandit(reward, 2), 1_000)
    assert sliced_wasserstein_distance(oracle, samples, np.random.default_rng(0)) < 0.1
    assert np.corrcoef(samples.T)[0, 1] > 0.4


def test_deterministic_actions_are_the_best_of_many():
    model = solved("one mode")
    actions, _ = model.predict(np.zeros(200, dtype=np.int64), deterministic=True)
    assert np.abs(actions - 0.4).mean() < 0.1 < np.abs(sample(model, 200) - 0.4).mean()
