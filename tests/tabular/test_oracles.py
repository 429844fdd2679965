"""Quadrature against closed forms, samples against distances."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, truncnorm

from sb3_softac.tabular import BoltzmannOracle, ks_distance, sliced_wasserstein_distance


def bimodal(a):
    return np.logaddexp(-30 * (a[:, 0] - 0.5) ** 2, -30 * (a[:, 0] + 0.6) ** 2)


def correlated(a):
    precision = np.linalg.inv([[0.02, 0.012], [0.012, 0.02]])
    centred = a - [0.2, -0.1]
    return -0.5 * np.einsum("ni,ij,nj->n", centred, precision, centred)


def test_quadratic_is_a_truncated_gaussian():
    alpha, k, c = 0.3, 2.0, 0.4
    std = math.sqrt(alpha / k)
    exact = truncnorm((-1 - c) / std, (1 - c) / std, c, std)
    oracle = BoltzmannOracle(lambda a: -0.5 * k * (a[:, 0] - c) ** 2, alpha)
    mass = exact.cdf(1.0) - exact.cdf(-1.0)
    assert mass == pytest.approx(1.0)
    normaliser = (
        (truncnorm(-np.inf, np.inf, c, std).cdf(1) - truncnorm(-np.inf, np.inf, c, std).cdf(-1)) * std * math.sqrt(2 * math.pi)
    )
    assert oracle.soft_value == pytest.approx(alpha * math.log(normaliser), abs=1e-12)
    assert oracle.entropy == pytest.approx(exact.entropy(), abs=1e-10)
    a = np.linspace(-1, 1, 101)
    np.testing.assert_allclose(oracle.log_density(a[:, None]), exact.logpdf(a), atol=1e-10)
    np.testing.assert_allclose(oracle.cdf(a), exact.cdf(a), atol=2e-7)
    assert oracle.expectation(lambda a: a[:, 0]) == pytest.approx(exact.mean(), abs=1e-12)


def test_distribution_function_of_a_narrow_mode():
    oracle, a = BoltzmannOracle(lambda a: -0.5 * ((a[:, 0] - 0.3) / 0.05) ** 2, 1.0), np.linspace(-1, 1, 10_001)
    np.testing.assert_allclose(oracle.cdf(a), norm(0.3, 0.05).cdf(a), atol=1e-5)


@pytest.mark.parametrize("dim", [1, 2])
def test_constant_q_is_uniform(dim):
    oracle = BoltzmannOracle(lambda a: np.full(len(a), 7.0), 0.5, dim)
    assert oracle.soft_value == pytest.approx(7 + 0.5 * dim * math.log(2), abs=1e-12)
    assert oracle.entropy == pytest.approx(dim * math.log(2), abs=1e-12)


def test_correlated_gaussian_in_two_dimensions():
    oracle = BoltzmannOracle(correlated, 1.0, 2)
    exact = multivariate_normal([0.2, -0.1], [[0.02, 0.012], [0.012, 0.02]])
    # the box cuts off less than 1e-7
    assert oracle.entropy == pytest.approx(exact.entropy(), abs=1e-5)
    assert oracle.soft_value == pytest.approx(math.log(2 * math.pi) + 0.5 * math.log(0.02**2 - 0.012**2), abs=1e-6)
    actions = oracle.sample(40_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.cov(actions.T), [[0.02, 0.012], [0.012, 0.02]], rtol=0.04)


def test_distances_tell_right_from_wrong_samples():
    rng = np.random.default_rng(0)
    oracle, n = BoltzmannOracle(bimodal, 1.0), 4_000
    exact, one_mode = oracle.sample(n, rng), 0.5 + 0.13 * rng.normal(size=(n, 1))
    assert ks_distance(oracle, exact) < 1.63 / math.sqrt(n)  # 99 % of exact samples
    assert ks_distance(oracle, one_mode.clip(-1, 1)) > 0.4
    plane = BoltzmannOracle(correlated, 1.0, 2)
    assert sliced_wasserstein_distance(plane, plane.sample(n, rng), rng) < 0.01
    uncorrelated = [0.2, -0.1] + math.sqrt(0.02) * rng.normal(size=(n, 2))
    assert sliced_wasserstein_distance(plane, uncorrelated, rng) > 0.02
    assert sliced_wasserstein_distance(plane, rng.uniform(-1, 1, (n, 2)), rng) > 0.2


def test_samples_stay_in_the_box_and_follow_the_generator():
    oracle = BoltzmannOracle(lambda a: 40 * a.sum(axis=1), 1.0, 2)
    one, two = (oracle.sample(1_000, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one).max() <= 1.0


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0, 4.0])
def test_a_kink_costs_no_more_than_the_rule_admits(slope):
    """exp(-slope |a - 0.1234|) integrates to (2 - e^-l - e^-r) / slope with the exponents l and r at the edges."""
    left, right = slope * 1.1234, slope * 0.8766
    integral = (2 - math.exp(-left) - math.exp(-right)) / slope
    mean = -sum(1 - (1 + edge) * math.exp(-edge) for edge in (left, right)) / slope / integral
    oracle = BoltzmannOracle(lambda a: -slope * np.abs(a[:, 0] - 0.1234), 1.0)
    assert oracle.soft_value == pytest.approx(math.log(integral), abs=1e-6)
    assert oracle.entropy == pytest.approx(math.log(integral) - mean, abs=1e-6)


def test_too_sharp_for_the_panels():
    def sharp(a):
        return -((a[:, 0] - 0.123) ** 2) / 2e-8

    with pytest.raises(ValueError, match=r"has not converged.*use more panels"):
        BoltzmannOracle(sharp, 1.0)
    with pytest.raises(ValueError, match="panels must be an integer, at least 1, got 0"):
        BoltzmannOracle(sharp, 1.0, panels=0)
    assert BoltzmannOracle(sharp, 1.0, panels=4_000).entropy == pytest.approx(
        0.5 * math.log(2 * math.pi * math.e * 1e-8), abs=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((bimodal, 0.0), "temperature"),
        ((bimodal, 1.0, 3), "dim must be 1 or 2"),
        ((lambda a: a, 1.0), "finite values"),
        ((lambda a: np.full(len(a), np.nan), 1.0), "finite values"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BoltzmannOracle(*arguments)


def test_distances_need_the_right_dimension():
    line, plane = BoltzmannOracle(bimodal, 1.0), BoltzmannOracle(correlated, 1.0, 2)
    with pytest.raises(ValueError, match="ks_distance in 1-D"):
        sliced_wasserstein_distance(line, np.zeros((5, 1)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="sliced_wasserstein_distance in 2-D"):
        ks_distance(plane, np.zeros(5))
