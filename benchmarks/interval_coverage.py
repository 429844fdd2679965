"""
How often nominal 95 % intervals from a few seeds contain the true value.

    python benchmarks/interval_coverage.py

Draws samples of several sizes from populations whose interquartile mean (IQM) is known: five distributions, and the mean
returns of the 30 seeds of each algorithm of ``studies/thirty_seeds.yml``. For each it writes to
``benchmarks/results/interval_coverage.csv`` the share of percentile bootstrap intervals that contain the IQM, the share of
those that contain the probability of improvement over a second sample of the same size from the same population (one half),
and for comparison the share of t intervals of the trimmed mean (Tukey and McLaughlin 1963).
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import mstats

from sb3_softac.study import read_study
from sb3_softac.study.results import by_name, read_results
from sb3_softac.study.statistics import bootstrap, interquartile_mean, share_of_wins

HERE = Path(__file__).parent
RESULT = HERE / "results" / "interval_coverage.csv"
SIZES, SAMPLES, PAIRS = (3, 4, 5, 6, 8, 10, 20, 30), 4_000, 500
Population = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DISTRIBUTIONS: dict[str, Population] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(size=shape),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape),
    "Student's t, 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, size=shape),
    "one run in three fails": lambda rng, shape: np.where(
        rng.random(shape) < 1 / 3, rng.normal(-3, 1, shape), rng.normal(1, 0.5, shape)
    ),
}


def finished_runs() -> dict[str, Population]:
    """:return: Draws, with replacement, from the mean returns of 30 seeds over all evaluations; the last pile up at 500."""
    results, _, _ = read_results(read_study(HERE / "studies" / "thirty_seeds.yml"))
    returns = {
        name: np.array([result.returns["deterministic"].mean() for result in group])
        for name, group in by_name(results, "CartPole-v1").items()
    }
    return {f"CartPole-v1, {name}": lambda rng, shape, of=of: rng.choice(of, shape) for name, of in returns.items()}


def trimmed_t(samples: np.ndarray) -> np.ndarray:
    """
    :param samples: ``[n, samples]``.
    :return: Limits of the t intervals of the trimmed means ``[2, samples]``.
    """
    with np.errstate(invalid="ignore"):
        return np.array([mstats.trimmed_mean_ci(sample, limits=(0.25, 0.25), alpha=0.05) for sample in samples.T]).T


def main() -> None:
    rng, rows = np.random.default_rng(0), []
    for name, draw in (DISTRIBUTIONS | finished_runs()).items():
        truth = float(interquartile_mean(draw(rng, (2_000_000,))))
        for n in SIZES:
            samples = draw(rng, (n, SAMPLES))
            low, high = bootstrap((samples,), interquartile_mean)
            t_low, t_high = trimmed_t(samples)
            pairs = [bootstrap(tuple(draw(rng, (2, n))), share_of_wins, axis=-1) for _ in range(PAIRS)]
            rows.append(
                {
                    "distribution": name,
                    "seeds": n,
                    "IQM, percentile bootstrap": f"{np.mean((low <= truth) & (truth <= high)):.3f}",
                    "IQM, t interval of the trimmed mean": f"{np.mean((t_low <= truth) & (truth <= t_high)):.3f}",
                    "probability of improvement, percentile bootstrap": f"{np.mean([a <= 0.5 <= b for a, b in pairs]):.3f}",
                }
            )
            print(*rows[-1].values())
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
