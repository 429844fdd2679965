"""
Where the time of an update of SoftAC_v1 goes (Walker2d-v4, batch 256, nets 2x256)::

    python benchmarks/breakdown.py

Its parts are timed inside ``train(1)``, which is called again and again as in a training loop, but for the environment. Writes
``benchmarks/results/breakdown.csv``: microseconds per update and their share, medians over blocks. Reading the clock is
included, about a microsecond per call.
"""

import csv
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch as th

from sb3_softac import SoftAC_v1
from sb3_softac.nets import mlp

RESULT = Path(__file__).parent / "results" / "breakdown.csv"
BLOCKS, CALLS, BATCH = 15, 40, 256


class Clock:
    """Sums up the time spent in functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """:return: The function, with its time added to a name."""

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            return result

        return call


def parts_of(model: SoftAC_v1) -> list[tuple[str, Any, str]]:
    """:return: Name, owner and attribute of the functions to time."""
    return [
        ("products", mlp, "affine"),
        ("products", mlp, "product"),
        ("MLPs", mlp.MLPFunction, "forward"),
        ("MLPs", mlp.MLPFunction, "backward"),
        ("draw the batch", model.replay_buffer, "sample"),
        ("Adam", model.policy.optimizer, "step"),
        ("targets", model, "_update_targets"),
        ("logs", model, "_flush_logs"),
        ("training mode", model.policy, "set_training_mode"),
    ]


def measure() -> dict[str, float]:
    """:return: Microseconds per update by part; the parts add up to the whole."""
    model = SoftAC_v1("MlpPolicy", gym.make("Walker2d-v4"), seed=0, learning_starts=1_000, device="cpu")
    model.learn(1_100)
    clock, blocks = Clock(), []
    with ExitStack() as stack:
        for name, owner, attribute in parts_of(model):
            timed = clock.timed(name, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, staticmethod(timed) if isinstance(owner, type) else timed))
        for _ in range(BLOCKS):
            clock.seconds.clear()
            start = time.perf_counter()
            for _ in range(CALLS):
                model.train(1, BATCH)
            blocks.append({**clock.seconds, "whole": time.perf_counter() - start})
    part = {name: 1e6 / CALLS * float(np.median([block[name] for block in blocks])) for name in blocks[0]}
    whole, networks, products = part.pop("whole"), part.pop("MLPs"), part.pop("products")
    result = {"matrix products and ReLUs of the MLPs": products, "the rest of the MLPs": networks - products, **part}
    return {**result, "losses, action, autograd, Python": whole - networks - sum(part.values()), "whole": whole}


def main() -> None:
    columns = []
    for threads in (1, 2):
        th.set_num_threads(threads)
        columns.append(measure())
    with open(RESULT, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "1 thread: microseconds", "share", "2 threads: microseconds", "share"])
        for name in columns[0]:
            cells = [cell for part in columns for cell in (f"{part[name]:.0f}", f"{100 * part[name] / part['whole']:.0f} %")]
            writer.writerow([name, *cells])
            print(f"{name:>40}", *(f"{cell:>8}" for cell in cells))


if __name__ == "__main__":
    main()
