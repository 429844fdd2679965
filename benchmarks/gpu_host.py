"""
What a launch of a CUDA graph costs the host, measured without a GPU::

    OMP_NUM_THREADS=1 python benchmarks/gpu_host.py

The engine does all that it does on a GPU, but replaying a graph does nothing, and what is sent to the device is copied on the
host. Processor time of one thread per call of ``train``, sampling and a new transition for the device included. Writes
``benchmarks/results/gpu_host.csv``: medians and ranges over the rounds in which all take turns.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.engines.cuda_graphs import GraphEngine

RESULT = Path(__file__).parent / "results" / "gpu_host.csv"
ROUNDS, CALLS, STARTS = 5, 100, 200
ALGORITHMS: dict[Any, str] = {SoftAC_v1: "Walker2d-v4", SQL: "Walker2d-v4", DiscreteSAC: "CartPole-v1"}


class NoReplay:
    """Captures nothing: the first steps are done, and replays leave their result as it is."""

    device_type = "cpu"

    def free_memory(self) -> int:
        return 1 << 40

    def warm_up(self, function: Callable[[], th.Tensor]) -> th.Tensor:
        return function()

    def capture(self, function: Callable[[], th.Tensor]) -> tuple[th.Tensor, Callable[[], None]]:
        return function(), lambda: None


def make(algorithm: Any) -> Any:
    env = make_vec_env(ALGORITHMS[algorithm], seed=0)
    model = algorithm("MlpPolicy", env, learning_starts=STARTS, buffer_size=10_000, seed=0, device="cpu")
    model.engines = [GraphEngine(model, NoReplay())]
    model._logs_stay_on_device = lambda: True
    return model.learn(STARTS + 50)


def milliseconds(model: Any, gradient_steps: int) -> float:
    """:return: Of one call of ``train``, each after a new transition."""
    env, seconds = model.get_env(), 0.0
    action, stored = model._sample_action(0, None, 1)
    for _ in range(CALLS):
        model._store_transition(model.replay_buffer, stored, *env.step(action))
        start = process_time()
        model.train(gradient_steps, 256)
        seconds += process_time() - start
    return 1e3 * seconds / CALLS


def main() -> None:
    th.set_num_threads(1)
    models = {algorithm.__name__: make(algorithm) for algorithm in ALGORITHMS}
    cases = [(name, steps) for name in models for steps in (1, 16)]
    for name, steps in cases:
        for _ in range(5):
            models[name].train(steps, 256)  # until the graph is there
    rounds = [[milliseconds(models[name], steps) for name, steps in cases] for _ in range(ROUNDS)]
    with open(RESULT, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["algorithm", "gradient steps in one launch", "ms of the host per launch"])
        for (name, steps), times in zip(cases, zip(*rounds, strict=True), strict=True):
            writer.writerow([name, steps, f"{np.median(times):.3f} ({min(times):.3f} to {max(times):.3f})"])
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
