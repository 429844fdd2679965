"""
What ``torch.compile`` would do to the update of SoftAC_v1 on a CPU (Walker2d-v4, batch 256, nets 2x256)::

    python benchmarks/compiled.py

It needs a C++ compiler. Compiled are the losses and their gradients; the step of the optimizer is not. oneDNN's products are
opaque to the compiler, which takes MKL's, so the update is timed without it in three ways: as it is, with MKL's products, and
compiled with MKL's products. They take turns in one process. Writes ``benchmarks/results/compiled.csv``: median milliseconds
per gradient step (quartiles), and the seconds of the first one, in which it is compiled.
"""

import csv
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th

from sb3_softac import SoftAC_v1
from sb3_softac.nets import mlp

RESULT = Path(__file__).parent / "results" / "compiled.csv"
BLOCKS, CALLS, BATCH = 15, 30, 256
LARGE = mlp.LARGE


def make_model(compiled: bool) -> SoftAC_v1:
    model = SoftAC_v1("MlpPolicy", gym.make("Walker2d-v4"), seed=0, learning_starts=1_000, device="cpu")
    model.learn(1_100)
    if compiled:
        model._minimize = th._dynamo.disable(model._minimize)  # type: ignore[method-assign]
        model._update = th.compile(model._update)  # type: ignore[method-assign]
    return model


def milliseconds(model: SoftAC_v1, large: int, calls: int) -> float:
    mlp.LARGE = large
    start = time.perf_counter()
    model.train(calls, BATCH)
    return 1e3 * (time.perf_counter() - start) / calls


def main() -> None:
    rows = []
    for threads in (1, 2):
        th.set_num_threads(threads)
        th._dynamo.reset()
        variants = {
            "oneDNN": (make_model(False), LARGE),
            "MKL": (make_model(False), sys.maxsize),
            "MKL, compiled": (make_model(True), sys.maxsize),
        }
        first = {name: milliseconds(*variant, 1) / 1e3 for name, variant in variants.items()}
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(BLOCKS):
            for name, variant in variants.items():
                times[name].append(milliseconds(*variant, CALLS))
        for name, values in times.items():
            low, median, high = np.percentile(values, [25, 50, 75])
            rows.append([threads, name, f"{median:.2f} ({low:.2f}-{high:.2f})", f"{first[name]:.1f}"])
            print(rows[-1], flush=True)
    with open(RESULT, "w", newline="") as file:
        csv.writer(file).writerows([["threads", "update", "ms per gradient step", "seconds of the first"], *rows])


if __name__ == "__main__":
    main()
