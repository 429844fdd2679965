"""
What a turn of the training loop consists of, timed inside the loop::

    python benchmarks/throughput/loop.py --threads 2

Repeated alone (``worker.py``), a part finds its code and data in the caches, which in the loop others have filled meanwhile.
Here the parts are timed where they are. Models of one task take turns of 500 steps. Writes
``benchmarks/results/loop_<threads>_threads.csv``: microseconds per environment step, medians over the turns.
"""

import argparse
import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from worker import STARTS, make_sb3

RESULTS = Path(__file__).parents[1] / "results"
PAIRS = [["sac", "softac_v1"], ["dqn", "discrete_sac"]]
TURNS, STEPS = 7, 500
PARTS = {"act": "_sample_action", "environment": "step", "store": "_store_transition", "update": "train"}


def timed(seconds: dict[str, float], part: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """:return: What the function returns, its time added to that of its part."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    seconds[part] += time.perf_counter() - start
    return result


def watch(model: Any, seconds: dict[str, float]) -> None:
    """Have the parts of the model's loop add their time to a dictionary."""
    for part, attribute in PARTS.items():
        owner = model.env if part == "environment" else model
        setattr(owner, attribute, partial(timed, seconds, part, getattr(owner, attribute)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    th.set_num_threads(threads := parser.parse_args().threads)
    rows = []
    for pair in PAIRS:
        models = {name: make_sb3(name)[0] for name in pair}
        seconds = {name: dict.fromkeys(PARTS, 0.0) for name in pair}
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in pair}
        for name, model in models.items():
            model.learn(STARTS + STEPS)
            watch(model, seconds[name])
        for _ in range(TURNS):
            for name, model in models.items():
                seconds[name].update(dict.fromkeys(PARTS, 0.0))
                start = time.perf_counter()
                model.learn(STEPS, reset_num_timesteps=False)
                turns[name].append({**seconds[name], "loop": time.perf_counter() - start})
        for name in pair:
            parts = {part: 1e6 / STEPS * float(np.median([turn[part] for turn in turns[name]])) for part in [*PARTS, "loop"]}
            added = [sum(turn[part] for part in PARTS) / turn["loop"] for turn in turns[name]]
            faster = [other["loop"] / turn["loop"] for other, turn in zip(turns[pair[0]], turns[name], strict=True)]
            ratio = f"{np.median(faster):.2f} ({min(faster):.2f}-{max(faster):.2f}) of {pair[0]}"
            rows.append([name, *(f"{value:.0f}" for value in parts.values()), f"{np.median(added):.3f}", ratio])
            print(rows[-1], flush=True)
    with open(RESULTS / f"loop_{threads}_threads.csv", "w", newline="") as file:
        csv.writer(file).writerows([["name", *PARTS, "loop", "parts / loop", "loop: times as fast"], *rows])


if __name__ == "__main__":
    main()
