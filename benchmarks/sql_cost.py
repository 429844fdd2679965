"""
What a gradient step of SQL costs, in steps of SB3's SAC with its default batch size and the same networks, on one thread::

    OMP_NUM_THREADS=1 python benchmarks/sql_cost.py

All take turns in blocks of five steps; ratios are taken within a round of turns. Processor time is measured, not time on the
clock, so that other programs disturb little. The memory is by how much a new process grows in its first steps. Writes
``benchmarks/results/sql_cost.csv``.
"""

import csv
import re
import time
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac import SQL

RESULT = Path(__file__).parent / "results" / "sql_cost.csv"
ENV, ROUNDS, STEPS = "Walker2d-v5", 5, 5
PARTICLES = ((32, 64), (16, 32), (16, 16))  # kernel and value particles; those in the middle are the default
WIDTHS, BATCHES = (128, 256), (128, 256)
OF_SAC = 256


def make(algorithm: type[OffPolicyAlgorithm], width: int, **arguments: int) -> OffPolicyAlgorithm:
    model = algorithm(
        "MlpPolicy",
        ENV,
        learning_starts=280,
        buffer_size=1_000,
        batch_size=8,
        policy_kwargs=dict(net_arch=[width] * 2),
        device="cpu",
        **arguments,
    )
    return model.learn(280)


def milliseconds(model: OffPolicyAlgorithm, batch_size: int) -> float:
    start = time.process_time()
    model.train(gradient_steps=STEPS, batch_size=batch_size)
    return 1e3 * (time.process_time() - start) / STEPS


def peak() -> float:
    """:return: Most megabytes that this process has had; on Linux. (What ``resource`` tells includes those of its parent.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def megabytes(width: int, kernel: int, value: int, batch_size: int) -> float:
    """:return: By how much a process grows when it does its first steps."""
    th.set_num_threads(1)
    model = make(SQL, width, kernel_particles=kernel, value_particles=value)
    milliseconds(model, 8)  # what grows with no batch
    before = peak()
    milliseconds(model, batch_size)
    return peak() - before


def main() -> None:
    th.set_num_threads(1)
    rows, processes = [], get_context("spawn").Pool(1, maxtasksperchild=1)
    for width in WIDTHS:
        models = {(k, v): make(SQL, width, kernel_particles=k, value_particles=v) for k, v in PARTICLES}
        sac = make(SAC, width)
        cases = list(product(PARTICLES, BATCHES))
        rounds = [(milliseconds(sac, OF_SAC), [milliseconds(models[p], batch) for p, batch in cases]) for _ in range(ROUNDS)]
        for number, ((kernel, value), batch) in enumerate(cases):
            ratios = [times[number] / of_sac for of_sac, times in rounds]
            rows.append(
                {
                    "layers": f"2 x {width}",
                    "batch size": batch,
                    "kernel_particles": kernel,
                    "value_particles": value,
                    "times a step of SAC, median (range)": f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
                    "ms": f"{np.median([times[number] for _, times in rounds]):.1f}",
                    "memory (MB)": f"{processes.apply(megabytes, (width, kernel, value, batch)):.0f}",
                }
            )
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
