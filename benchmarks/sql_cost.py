"""
What a gradient step of SQL costs, in steps of SB3's SAC with the same networks and batches, on one thread.

    python benchmarks/sql_cost.py

All take turns in blocks of ten steps; ratios are taken within a round of turns. Processor time is measured, not time on the
clock, so that other programs disturb little. Writes ``benchmarks/results/sql_cost.csv``.
"""

import csv
import time
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac import SQL

RESULT = Path(__file__).parent / "results" / "sql_cost.csv"
ENV, BATCH, ROUNDS, STEPS = "Walker2d-v5", 256, 5, 10
PARTICLES = ((32, 64), (16, 32), (16, 16))  # kernel and value particles; the second are the default
WIDTHS = (128, 256)


def make(algorithm: type[OffPolicyAlgorithm], width: int, **arguments: int) -> OffPolicyAlgorithm:
    model = algorithm(
        "MlpPolicy", ENV, learning_starts=300, policy_kwargs=dict(net_arch=[width] * 2), device="cpu", **arguments
    )
    return model.learn(301)


def milliseconds(model: OffPolicyAlgorithm) -> float:
    start = time.process_time()
    model.train(gradient_steps=STEPS, batch_size=BATCH)
    return 1e3 * (time.process_time() - start) / STEPS


def main() -> None:
    th.set_num_threads(1)
    rows = []
    for width in WIDTHS:
        models = {(k, v): make(SQL, width, kernel_particles=k, value_particles=v) for k, v in PARTICLES}
        sac = make(SAC, width)
        rounds = [(milliseconds(sac), {key: milliseconds(model) for key, model in models.items()}) for _ in range(ROUNDS + 1)][
            1:
        ]
        for kernel, value in PARTICLES:
            ratios = [times[kernel, value] / of_sac for of_sac, times in rounds]
            rows.append(
                {
                    "layers": f"2 x {width}",
                    "kernel_particles": kernel,
                    "value_particles": value,
                    "times a step of SAC, median (range)": f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
                }
            )
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
