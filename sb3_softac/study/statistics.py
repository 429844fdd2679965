"""
Statistics of a few runs: robust means with their uncertainty, tolerance intervals of agents, comparisons.

The uncertainty of a mean says how well it is known, and shrinks with more seeds. A tolerance interval says how good or bad an
agent with another seed may be, and does not shrink (arXiv:2304.01315, section 4).
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2_000
DRAWN_AT_ONCE = 10_000_000
"""Numbers in an array of resamples, 80 MB."""
SEEDS_FOR_INTERVAL = 10
"""From fewer runs, a 95 % bootstrap interval misses the true value too often (benchmarks/interval_coverage.py)."""


class Interval(NamedTuple):
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


class Tolerance(NamedTuple):
    """A range that contains a share of all agents."""

    low: float
    high: float
    share: float
    """At least this share of agents, with confidence 0.95."""


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the middle half (arXiv:2108.13264, section 4.3); NaN where a number is not finite."""
    finite = np.isfinite(values).all(axis=axis)
    return np.where(finite, stats.trim_mean(np.where(np.isfinite(values), values, 0.0), 0.25, axis=axis), np.nan)


def iqm_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """The interquartile mean of one number per run, with its 95 % interval; NaN for the interval of fewer than 10 runs."""
    value, low, high = iqm_band(np.asarray(values, float)[:, None])
    return Interval(float(value[0]), float(low[0]), float(high[0]))


def iqm_band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for one curve per run ``[n, evaluations]``: mean and limits at each evaluation."""
    value = interquartile_mean(curves)
    if len(curves) < SEEDS_FOR_INTERVAL or not np.isfinite(value).any():
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    return value, *bootstrap((curves,), interquartile_mean)


def bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray], axis: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the 95 % percentile bootstrap interval of a statistic; whole runs are drawn, in each sample by itself."""
    with warnings.catch_warnings():  # of returns that are not finite, whose limits are NaN
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            n_resamples=RESAMPLES,
            batch=max(1, DRAWN_AT_ONCE // math.prod(sample.size for sample in samples)),
            vectorized=True,
            axis=axis,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    return found.confidence_interval.low, found.confidence_interval.high


def coverage(n: int, beyond: int) -> float:
    r"""
    Share of a distribution that lies between two order statistics of a sample, with confidence 0.95.

    The share between two order statistics that leave out ``beyond`` values in total is Beta-distributed with the parameters
    :math:`n - \text{beyond} - 1` and :math:`\text{beyond} + 2`, whatever the distribution (Wilks 1941).

    :param n: Size of the sample, at least 2.
    :param beyond: Number of values outside, at both ends together.
    :return: The share in [0, 1].
    """
    return float(stats.beta.ppf(1 - CONFIDENCE, n - beyond - 1, beyond + 2)) if n - beyond >= 2 else 0.0


def tolerance_interval(values: Sequence[float] | np.ndarray, share: float = 0.9) -> Tolerance:
    """
    The narrowest range between two order statistics, as symmetric as possible, that contains a share of all agents with
    confidence 0.95. With too few values (fewer than 46 for 0.9) it is the whole range of the sample, with the share that this
    contains.

    :param values: One number per run ``[n]``.
    :param share: Share of agents.
    :return: The interval; NaN and a share of 0 for a single run, or if a number is not finite.
    """
    values = np.sort(np.asarray(values, float))
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return Tolerance(np.nan, np.nan, 0.0)
    beyond = 0
    while coverage(n, beyond + 1) >= share:
        beyond += 1
    low = beyond // 2
    return Tolerance(float(values[low]), float(values[n - 1 - (beyond - low)]), coverage(n, beyond))


def share_of_wins(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
    """Share of pairs of runs in which the first is larger; ties count half (the Mann-Whitney statistic over n * m)."""
    return 0.5 + 0.5 * np.sign(x[..., :, None] - y[..., None, :]).mean(axis=(-2, -1))


def probability_of_improvement(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Interval:
    """
    How often a run of the first algorithm is better than one of the second; ties count half (arXiv:2108.13264,
    section 4.3).

    :param first: One number per run ``[n]``.
    :param second: One number per run ``[m]``.
    :return: The probability with its 95 % interval; NaN for the interval if either has fewer than 10 runs, and for all if a
        number is not finite.
    """
    x, y = np.asarray(first, float), np.asarray(second, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Interval(np.nan, np.nan, np.nan)
    value = float(share_of_wins(x, y))
    if min(len(x), len(y)) < SEEDS_FOR_INTERVAL:
        return Interval(value, np.nan, np.nan)
    return Interval(value, *map(float, bootstrap((x, y), share_of_wins, axis=-1)))
