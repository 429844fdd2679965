"""
What the search for gradients that are not finite costs on the plain way: its share of the time of a gradient step.

    python benchmarks/finite_check.py

One thread, two hidden layers of 256. Writes ``benchmarks/results/finite_check.csv``. In C the search is part of the step: it
reads each gradient once more, 30 microseconds for 290000 of them.
"""

import csv
import os
import time
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import torch as th

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm import off_policy

RESULT = Path(__file__).parent / "results" / "finite_check.csv"
CASES = {SoftAC_v1: ("Walker2d-v4", 256), DiscreteSAC: ("CartPole-v1", 64), SQL: ("Pendulum-v1", 128)}
BLOCKS, SECONDS = 7, 1.0


def main() -> None:
    os.environ["SB3_SOFTAC_FAST"] = "0"
    th.set_num_threads(1)
    search, spent, rows = off_policy.largest_norms, [0.0], []

    def timed(gradients: dict[str, list[th.Tensor]]) -> dict[str, th.Tensor]:
        start = time.perf_counter()
        try:
            return search(gradients)
        finally:
            spent[0] += time.perf_counter() - start

    for algorithm, (env, batch) in CASES.items():
        settings = dict(learning_starts=1_000, seed=0, device="cpu", policy_kwargs=dict(net_arch=[256, 256]))
        model, shares, whole = algorithm("MlpPolicy", gym.make(env), **settings).learn(1_000), [], []
        model.train(3, batch)
        with mock.patch.object(off_policy, "largest_norms", timed):
            for _ in range(BLOCKS):
                spent[0], start, number = 0.0, time.perf_counter(), 0
                while time.perf_counter() - start < SECONDS:
                    model.train(1, batch)
                    number += 1
                whole.append(1e3 * (time.perf_counter() - start) / number)
                shares.append(1e3 * spent[0] / number / whole[-1])
        spread = f"{np.median(shares):.1%} ({min(shares):.1%}-{max(shares):.1%})"
        rows.append([algorithm.__name__, f"{np.median(whole):.1f}", spread])
        print(*rows[-1], flush=True)
    with open(RESULT, "w", newline="") as file:
        csv.writer(file).writerows([["algorithm", "ms per gradient step", "share of the search"], *rows])


if __name__ == "__main__":
    main()
