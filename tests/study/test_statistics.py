"""The statistics of a report, against numbers worked out by hand and by simulation."""

import numpy as np
import pytest
from scipy import stats

from sb3_softac.study import statistics
from sb3_softac.study.statistics import (
    coverage,
    interquartile_mean,
    iqm_band,
    iqm_interval,
    probability_of_improvement,
    tolerance_interval,
)


def test_interquartile_mean_by_hand():
    # Two of eight at each end are left out: (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([100.0, 2, 3, 4, 5, 6, 1, -50])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean(np.array([3.0, 1, 5])) == pytest.approx(3)  # a quarter of three is no whole run
    assert interquartile_mean(np.array([[1.0, 2], [3, 4]]), axis=1) == pytest.approx([1.5, 3.5])


def test_interval_of_the_mean():
    ten = [0.0, *range(1, 9), 50]
    found = iqm_interval(ten)
    assert found.value == pytest.approx(4.5) and 1 < found.low < 4.5 < found.high < 50  # two at each end are left out
    assert found == iqm_interval(ten)  # the same at each call
    assert iqm_interval([2.0] * 10) == (2, 2, 2)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_no_intervals_from_few_runs(n):
    few, ten = np.arange(n, dtype=float), np.arange(10.0)
    assert iqm_interval(few).value == interquartile_mean(few) and np.isnan(iqm_interval(few)[1:]).all()
    for found in (probability_of_improvement(few, ten), probability_of_improvement(ten, few)):
        assert 0 <= found.value <= 1 and np.isnan(found[1:]).all()


def test_interval_of_the_mean_covers_it():
    """A 95 % interval from 30 Gaussian runs; the percentile bootstrap is known to be a little too narrow."""
    rng = np.random.default_rng(1)
    found = [iqm_interval(rng.normal(size=30)) for _ in range(200)]
    share = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.87 <= share <= 0.98
    # and it is not so wide that it would always: the deviation of the mean of the middle half is about 1.1 / sqrt(n)
    assert np.mean([one.high - one.low for one in found]) == pytest.approx(2 * 1.96 * 1.1 / 30**0.5, rel=0.15)


def test_band():
    returns = np.array([np.arange(10.0), np.ones(10)]).T
    value, low, high = iqm_band(returns)
    assert value == pytest.approx([4.5, 1]) and low[1] == high[1] == 1
    assert (value[0], low[0], high[0]) == iqm_interval(np.arange(10.0))


@pytest.mark.parametrize(("n", "share"), [(3, 0.14), (5, 0.34), (10, 0.61), (20, 0.78), (30, 0.85), (50, 0.91)])
def test_share_within_the_range_of_a_sample(n, share):
    found = tolerance_interval(np.arange(n), share=1.0)
    assert (found.low, found.high) == (0, n - 1) and found.share == pytest.approx(share, abs=0.006)


def test_share_by_hand():
    """Between the ends of n values there is a share above b with probability 1 - n b^(n-1) + (n-1) b^n."""
    for n in (2, 4, 9):
        b = coverage(n, 0)
        assert 1 - n * b ** (n - 1) + (n - 1) * b**n == pytest.approx(0.95)


def test_narrowest_tolerance_interval():
    values = np.random.default_rng(0).permutation(100.0 + np.arange(100))
    found = tolerance_interval(values, share=0.9)
    # Of 100 values, 4 may be left out: binom.cdf(95, 100, 0.9) = 0.976 of drawing 96 or fewer within, and 5 are too many
    beyond = 100 - 1 - (found.high - found.low)
    assert beyond == max(k for k in range(20) if stats.binom.cdf(100 - k - 2, 100, 0.9) >= 0.95)
    assert found.share >= 0.9 and coverage(100, int(beyond) + 1) < 0.9
    assert abs((found.low - 100) - (199 - found.high)) <= 1


@pytest.mark.parametrize(("n", "beyond"), [(60, 0), (70, 1), (30, 0)])
def test_tolerance_interval_holds_its_share(n, beyond):
    """As often as it must: with a probability that is binomial, and at least 0.95 if there are enough runs."""
    rng, share = np.random.default_rng(0), 0.9 if n > 30 else coverage(n, 0)
    expected = stats.binom.cdf(n - beyond - 2, n, share)
    assert expected >= 0.95 - 1e-9
    hits = 0
    for _ in range(2_000):
        found = tolerance_interval(rng.exponential(size=n), share=0.9)
        hits += np.exp(-found.low) - np.exp(-found.high) >= share
    assert hits / 2_000 == pytest.approx(expected, abs=0.015)


def test_tolerance_of_a_single_run():
    found = tolerance_interval([3.0])
    assert np.isnan(found.low) and np.isnan(found.high) and found.share == 0


def test_probability_of_improvement_by_hand():
    # Of six pairs (3, 1) (3, 3) (3, 5) (4, 1) (4, 3) (4, 5) three are better and one is a tie
    assert probability_of_improvement([3, 4], [1, 3, 5]).value == pytest.approx(3.5 / 6)
    assert probability_of_improvement([1, 3, 5], [3, 4]).value == pytest.approx(2.5 / 6)
    assert probability_of_improvement(np.arange(10, 20), np.arange(10)) == (1, 1, 1)


def test_probability_of_improvement_covers_it():
    """Of two Gaussians one standard deviation apart the first is larger with probability Phi(1 / sqrt(2)) = 0.76."""
    rng, true = np.random.default_rng(0), stats.norm.cdf(0.5**0.5)
    found = [probability_of_improvement(rng.normal(1, size=20), rng.normal(size=20)) for _ in range(200)]
    assert np.mean([one.value for one in found]) == pytest.approx(true, abs=0.02)
    assert 0.88 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.99


def test_the_memory_of_resamples_is_bounded(monkeypatch):
    sizes, original = [], statistics.share_of_wins

    def recorded(x, y, axis=-1):
        sizes.append(x[..., :, None].size * y.shape[-1])
        return original(x, y, axis)

    monkeypatch.setattr(statistics, "share_of_wins", recorded)
    monkeypatch.setattr(statistics, "DRAWN_AT_ONCE", 100_000)
    found = probability_of_improvement(np.arange(30.0), np.arange(20.0))
    assert max(sizes) <= 100_000 and found.low < found.value < found.high
