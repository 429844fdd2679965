"""
Error of the importance-sampled soft value on a quadratic Q of curvature 30, next to the exact value by quadrature.

The rows "exact" fit the mixture proposal to particles of the exact policy, as a sampler trained to perfection would give them.
The other samplers are wrong in every action dimension, before the squash: twice too wide, half as wide, one standard
deviation off, or five, where only the uniform half of the proposal is of use::

    python benchmarks/soft_value.py
"""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch as th

from sb3_softac.equations.soft_q import effective_sample_size, importance_sampled_soft_value
from sb3_softac.sql.proposal import FITTED_PARTICLES, mixture_proposal, uniform_proposal
from sb3_softac.tabular import BoltzmannOracle

RESULTS = Path(__file__).parent / "results"
CENTRE, CURVATURE, ALPHA = 0.3, 30.0, 1.0
DIMS, PARTICLES = (1, 3, 6, 17), (16, 32, 64)
IMPERFECT_DIMS, IMPERFECT_PARTICLES = (6, 17), 64
BLOCKS, STATES = 80, 2_000  # one estimate per state
HEADER = ["proposal", "sampler", "dimensions", "particles", "bias (nats)", "standard error", "standard deviation"]
HEADER += ["effective sample size"]
ORACLE = BoltzmannOracle(lambda a: -0.5 * CURVATURE * (a[:, 0] - CENTRE) ** 2, ALPHA)  # of one dimension: they are independent
EXACT = np.arctanh(ORACLE.sample(100_000, np.random.default_rng(0)))
MEAN, STD = EXACT.mean(), EXACT.std()
SAMPLERS: dict[str, Callable[[th.Tensor], th.Tensor]] = {
    "exact": lambda u: u,
    "twice too wide": lambda u: MEAN + 2.0 * (u - MEAN),
    "half as wide": lambda u: MEAN + 0.5 * (u - MEAN),
    "one std off": lambda u: u + STD,
    "five stds off": lambda u: u - 5.0 * STD,
}


def propose(sampler: str, dim: int, m: int, rng: np.random.Generator) -> tuple[th.Tensor, th.Tensor]:
    """:return: Actions ``[STATES, m, dim]`` and their log-densities; uniform ones if there is no sampler."""
    if not sampler:
        return uniform_proposal(STATES, m, dim, th.device("cpu"))
    exact = np.arctanh(ORACLE.sample(STATES * FITTED_PARTICLES * dim, rng)).reshape(STATES, FITTED_PARTICLES, dim)
    return mixture_proposal([SAMPLERS[sampler](th.as_tensor(exact, dtype=th.float32))], m)


def measure(sampler: str, dim: int, m: int) -> list[str]:
    """:return: A row of the table."""
    th.manual_seed(0)
    rng = np.random.default_rng(0)
    errors, sizes = [], []
    for _ in range(BLOCKS):
        actions, log_proposal = propose(sampler, dim, m, rng)
        q = -0.5 * CURVATURE * (actions - CENTRE).square().sum(dim=-1)
        errors.append(importance_sampled_soft_value(q, log_proposal, ALPHA) - dim * ORACLE.soft_value)
        sizes.append(effective_sample_size(q, log_proposal, ALPHA))
    error = th.cat(errors).double()
    std = error.std().item()
    numbers = [error.mean().item(), std / len(error) ** 0.5, std]
    row = ["mixture" if sampler else "uniform", sampler, str(dim), str(m), *(f"{x:.3f}" for x in numbers)]
    return [*row, f"{th.cat(sizes).mean().item():.1f}"]


def main() -> None:
    cases = [(sampler, dim, m) for sampler in ("", "exact") for dim in DIMS for m in PARTICLES]
    cases += [(sampler, dim, IMPERFECT_PARTICLES) for sampler in list(SAMPLERS)[1:] for dim in IMPERFECT_DIMS]
    rows = [HEADER]
    for case in cases:
        rows.append(measure(*case))
        print(rows[-1], flush=True)
    with open(RESULTS / "soft_value.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
