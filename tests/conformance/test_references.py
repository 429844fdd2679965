"""The references that measurements are held against, themselves against closed forms and other ways to the same number."""

import numpy as np
import pytest
from scipy.stats import norm

from sb3_softac.conformance.check import Measurement
from sb3_softac.conformance.problems import CURVES, random_mdp
from sb3_softac.conformance.references import (
    best_squashed_gaussian,
    divergence_from_counts,
    divergence_from_samples,
    squashed_gaussian_entropy,
    temperature_of_entropy,
)
from sb3_softac.tabular import BoltzmannOracle

ORACLE = BoltzmannOracle(CURVES["one optimum"][1], 0.2)


@pytest.mark.parametrize("mean", [0.0, 0.8, 7.0])
def test_entropy_of_a_squashed_gaussian(mean):
    """Minus the mean log-density of a million samples, by another form of 1 - tanh^2."""
    u = mean + 0.5 * np.random.default_rng(0).standard_normal(1_000_000)
    sampled = (np.log(4.0) - 2.0 * np.logaddexp(u, -u) - norm.logpdf(u, mean, 0.5)).mean()
    assert squashed_gaussian_entropy(np.array([mean]), np.array([0.5])) == pytest.approx(sampled, abs=0.01)


def test_a_boltzmann_policy_that_is_a_squashed_gaussian_is_reached():
    def q(a):
        u = np.arctanh(np.clip(a[:, 0], -1 + 1e-12, 1 - 1e-12))
        return norm.logpdf(u, 0.3, 0.4) - np.log1p(-(np.tanh(u) ** 2))

    assert best_squashed_gaussian(BoltzmannOracle(q, 1.0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_divergence_from_samples(shift):
    """Of exact samples it is 0; of shifted ones that of two normal densities, shift^2 / (2 variance)."""
    value, (low, high) = divergence_from_samples(ORACLE, ORACLE.sample(20_000, np.random.default_rng(0)) - shift)
    variance = 0.2 / 8.0
    assert low <= shift**2 / (2.0 * variance) * 1.02 <= high + 0.02 and value < 0.3


def test_divergence_from_counts_has_no_bias():
    p, rng = np.array([0.6, 0.3, 0.1]), np.random.default_rng(0)
    values = [divergence_from_counts(rng.multinomial(500, p), p)[0] for _ in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 300**0.5 + 1e-4


def test_temperature_of_an_entropy():
    assert temperature_of_entropy(lambda alpha: alpha**2, 0.25) == pytest.approx(0.5)


def test_forbidden_actions_tempt():
    mdp, allowed = random_mdp(0, masked=True)
    assert mdp.rewards[~allowed].min() >= mdp.rewards[allowed].max() + 3.0 and (~allowed).sum() == 4


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        (Measurement(1.0, 1.1, 0.2), True),
        (Measurement(1.0, 1.3, 0.2), False),
        (Measurement(1.0, 1.3, 0.2, (1.15, 1.45)), True),
        (Measurement(1.0, 0.5, 0.2), False),
        (Measurement(1.0, 0.5, 0.2, at_most=True), True),
        (Measurement(1.0, float("nan"), 0.2), False),
    ],
)
def test_verdicts(found, passed):
    assert found.passed is passed
