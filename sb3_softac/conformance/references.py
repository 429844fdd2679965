"""Exact references beyond the tabular solvers: the best squashed Gaussian, divergences from samples, and their intervals."""

from collections.abc import Callable
from functools import cache
from math import log

import numpy as np
from scipy.optimize import brentq, minimize

from sb3_softac.tabular import BoltzmannOracle

Z = 3.29
"""Standard errors on either side of an interval that holds with 99.9 %."""


@cache
def _gauss_hermite(dim: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    grid = np.stack(np.meshgrid(*[nodes] * dim), axis=-1).reshape(-1, dim)
    return grid, np.prod(np.stack(np.meshgrid(*[weights / weights.sum()] * dim), axis=-1), axis=-1).ravel()


def squashed_gaussian_entropy(mean: np.ndarray, std: np.ndarray) -> float:
    """:return: Differential entropy of tanh(mean + std z) in nats, by quadrature; exact also where tanh saturates."""
    nodes, weights = _gauss_hermite(1)
    u = mean + std * nodes  # [N, dim]
    log_slope = 2.0 * (log(2.0) - np.abs(u) - np.log1p(np.exp(-2.0 * np.abs(u))))
    return float((0.5 * np.log(2.0 * np.pi * np.e) + np.log(std) + weights @ log_slope).sum())


def best_squashed_gaussian(oracle: BoltzmannOracle) -> float:
    """:return: Smallest KL divergence in nats of a squashed diagonal Gaussian to the exact policy, from several starts."""
    nodes, weights = _gauss_hermite(oracle.dim)

    def divergence(parameters: np.ndarray) -> float:
        mean, std = parameters[: oracle.dim], np.exp(parameters[oracle.dim :])
        return -squashed_gaussian_entropy(mean, std) - float(weights @ oracle.log_density(np.tanh(mean + std * nodes)))

    starts = [np.repeat([mean, log(0.5)], oracle.dim) for mean in (-1.0, 0.0, 1.0)]
    return min(minimize(divergence, start, method="Nelder-Mead", options={"maxiter": 2_000}).fun for start in starts)


def temperature_of_entropy(entropy_at: Callable[[float], float], entropy: float) -> float:
    """:return: The temperature at which the exact policy has this entropy in nats."""
    return float(np.exp(brentq(lambda x: entropy_at(np.exp(x)) - entropy, log(1e-2), log(1e2))))


def divergence_from_counts(counts: np.ndarray, p: np.ndarray) -> tuple[float, tuple[float, float]]:
    """
    KL divergence in nats of the distribution that samples were drawn from to an exact one, over the same bins, corrected for
    its bias (Miller and Madow), and its interval.
    """
    n = counts.sum()

    def estimate(counts: np.ndarray) -> np.ndarray:
        f = counts / n
        terms = f * np.log(np.where(counts > 0, f, 1.0) / p)
        return terms.sum(axis=-1) - ((counts > 0).sum(axis=-1) - 1) / (2 * n)

    spread = estimate(np.random.default_rng(0).multinomial(n, counts / n, size=400)).std()
    value = float(estimate(counts))
    return value, (value - Z * float(spread), value + Z * float(spread))


def divergence_from_samples(oracle: BoltzmannOracle, actions: np.ndarray) -> tuple[float, tuple[float, float]]:
    """The same for scaled continuous actions ``[n, dim]``. Bins can only make it smaller."""
    bins = {1: 40, 2: 16}[oracle.dim]
    mass = oracle.weights * np.exp(oracle.log_density(oracle.nodes))
    p, _ = np.histogramdd(oracle.nodes, bins, [(-1.0, 1.0)] * oracle.dim, weights=mass)
    counts, _ = np.histogramdd(np.clip(actions, -1.0, 1.0), bins, [(-1.0, 1.0)] * oracle.dim)
    p = p.ravel() + 1e-12
    return divergence_from_counts(counts.ravel().astype(np.int64), p / p.sum())


def mean_with_interval(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    """:return: Mean of independent values and its interval."""
    mean, error = float(values.mean()), Z * float(values.std()) / len(values) ** 0.5
    return mean, (mean - error, mean + error)
