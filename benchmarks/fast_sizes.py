"""
Where gradient steps in C pay: one step of each algorithm in PyTorch and in C, over batch sizes, widths and threads.

    python benchmarks/fast_sizes.py

The two ways take turns, in blocks. Writes ``benchmarks/results/fast_sizes.csv``, milliseconds (smallest block) and the ratio
of the two (median over the blocks, with its range), and a plot of the ratios.
"""

import csv
import os
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from matplotlib.figure import Figure

from sb3_softac import DiscreteSAC, SoftAC_v1

RESULTS = Path(__file__).parent / "results"
ALGORITHMS = {"SoftAC_v1": (SoftAC_v1, "Walker2d-v4"), "DiscreteSAC": (DiscreteSAC, "CartPole-v1")}
BATCHES = (32, 64, 256, 1024)
WIDTHS = (64, 128, 256, 512)
THREADS = (1, 2)
BLOCKS, SECONDS = 5, 0.05
WAYS = {"PyTorch": "0", "C": "1"}


def block(model: SoftAC_v1 | DiscreteSAC, way: str, batch: int, steps: int) -> float:
    """:return: Milliseconds per gradient step."""
    os.environ["SB3_SOFTAC_FAST"] = WAYS[way]
    start = time.perf_counter()
    model.train(steps, batch)
    return 1e3 * (time.perf_counter() - start) / steps


def measure(name: str, batch: int, width: int, threads: int) -> list[str]:
    """:return: One row of the table."""
    th.set_num_threads(threads)
    algorithm, env = ALGORITHMS[name]
    models = {}
    for way in WAYS:  # each has a model of its own, so that nothing is prepared anew when they take turns
        os.environ["SB3_SOFTAC_FAST"] = WAYS[way]
        policy_kwargs = dict(net_arch=[width, width])
        models[way] = algorithm(
            "MlpPolicy", gym.make(env), learning_starts=1_000, policy_kwargs=policy_kwargs, device="cpu", seed=0
        )
        models[way].learn(1_000)
        models[way].train(2, batch)
    steps = {way: max(1, int(1e3 * SECONDS / block(model, way, batch, 3))) for way, model in models.items()}
    times = {way: np.array([0.0] * BLOCKS) for way in WAYS}
    for k in range(BLOCKS):
        for way, model in models.items():
            times[way][k] = block(model, way, batch, steps[way])
    ratios = times["PyTorch"] / times["C"]
    best = [f"{times[way].min():.2f}" for way in WAYS]
    return [
        name,
        str(batch),
        str(width),
        str(threads),
        *best,
        f"{np.median(ratios):.2f}",
        f"{ratios.min():.2f}",
        f"{ratios.max():.2f}",
    ]


def draw(rows: list[list[str]]) -> None:
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(len(THREADS), 2, sharex=True, sharey=True)
    for axis_row, threads in zip(axes, THREADS, strict=True):
        for axis, name in zip(axis_row, ALGORITHMS, strict=True):
            for width, marker in zip(WIDTHS, "os^D", strict=True):
                points = [row for row in rows if row[0] == name and row[2] == str(width) and row[3] == str(threads)]
                axis.plot(
                    [int(row[1]) for row in points], [float(row[6]) for row in points], marker=marker, label=f"2 x {width}"
                )
            axis.axhline(1.0, color="black", linewidth=0.8)
            axis.set(title=f"{name}, threads: {threads}", xscale="log", xlabel="batch size", ylabel="times as fast as PyTorch")
            axis.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
            axis.minorticks_off()
    axes[0, 0].legend(title="hidden layers")
    figure.savefig(RESULTS / "fast_sizes.png", dpi=110)


def main() -> None:
    warnings.simplefilter("ignore")
    rows = []
    for name in ALGORITHMS:
        for threads in THREADS:
            for width in WIDTHS:
                for batch in BATCHES:
                    rows.append(measure(name, batch, width, threads))
                    print(*rows[-1], flush=True)
    with open(RESULTS / "fast_sizes.csv", "w", newline="") as file:
        header = ["algorithm", "batch", "width", "threads", "PyTorch (ms)", "C (ms)", "times as fast", "smallest", "largest"]
        csv.writer(file).writerows([header, *rows])
    draw(rows)


if __name__ == "__main__":
    main()
