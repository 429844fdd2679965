"""
Soft value iteration and soft policy iteration on a large sparse MDP.

100000 states, 10 actions, 4 random successors each: a dense P would take 800 GB. Each solver runs in a process of its own, so
that its peak memory can be told, and on one thread: the vectors are so short that more threads only wait for one another::

    python benchmarks/tabular.py
"""

import csv
import multiprocessing
import os
import resource
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from sb3_softac.tabular import TabularMDP, soft_policy_iteration, soft_value_iteration

RESULTS = Path(__file__).parent / "results"
N_STATES, N_ACTIONS, SUCCESSORS = 100_000, 10, 4
SOLVERS = {"soft value iteration": soft_value_iteration, "soft policy iteration": soft_policy_iteration}


def random_mdp(discount: float) -> TabularMDP:
    rng = np.random.default_rng(0)
    rows = N_STATES * N_ACTIONS
    probabilities = rng.dirichlet(np.ones(SUCCESSORS), size=rows).ravel()
    successors = rng.integers(N_STATES, size=rows * SUCCESSORS)
    row_starts = np.arange(0, rows * SUCCESSORS + 1, SUCCESSORS)
    transitions = sparse.csr_matrix((probabilities, successors, row_starts), shape=(rows, N_STATES))
    transitions.sum_duplicates()
    return TabularMDP.from_arrays(transitions, rng.normal(size=(N_STATES, N_ACTIONS)), discount)


def measure(solver: str, discount: float) -> list[str]:
    mdp = random_mdp(discount)
    start = time.perf_counter()
    solution = SOLVERS[solver](mdp, temperature=0.2)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    iterations = str(len(solution.residuals))
    return [
        solver,
        str(discount),
        f"{seconds:.1f}",
        iterations,
        f"{solution.error_bound:.1e}",
        f"{peak:.0f}",
        f"{solution.v[0]:.9f}",
    ]


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes that are started below
    rows = [["solver", "discount", "seconds", "iterations", "error bound", "peak MB", "V(0)"]]
    for discount in (0.95, 0.99):
        for solver in SOLVERS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (solver, discount)))
            print(rows[-1], flush=True)
    for row in rows:
        print("  ".join(f"{cell:>21}" for cell in row))
    with open(RESULTS / "tabular.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
