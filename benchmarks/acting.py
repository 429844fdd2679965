"""
Microseconds from one observation to one action inside training, ``_sample_action`` as the training loop calls it::

    python benchmarks/acting.py

Writes ``benchmarks/results/acting.csv``. One thread, two hidden layers of 256; medians over blocks in which all take turns,
and the quartiles of the ratios to SB3's SAC within a block.
"""

import csv
import time
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1

RESULT = Path(__file__).parent / "results" / "acting.csv"
MODELS: dict[str, tuple[type[OffPolicyAlgorithm], str]] = {
    "sac": (SAC, "Walker2d-v4"),
    "softac_v1": (SoftAC_v1, "Walker2d-v4"),
    "sql": (SQL, "Walker2d-v4"),
    "discretesac": (DiscreteSAC, "CartPole-v1"),
}
BLOCKS, CALLS = 40, 200


def main() -> None:
    th.set_num_threads(1)
    models = {name: make("MlpPolicy", env, device="cpu", seed=0) for name, (make, env) in MODELS.items()}  # type: ignore[call-arg, arg-type]
    for model in models.values():
        model.learn(10)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(BLOCKS):
        for name, model in models.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                model._sample_action(0, None, 1)
            times[name].append(1e6 * (time.perf_counter() - start) / CALLS)
    rows = []
    for name, values in times.items():
        ratios = np.quantile(np.divide(values, times["sac"]), (0.25, 0.5, 0.75))
        rows.append([name, f"{np.median(values):.0f}", f"{ratios[1]:.2f} ({ratios[0]:.2f}-{ratios[2]:.2f})"])
        print(*rows[-1])
    with open(RESULT, "w", newline="") as file:
        csv.writer(file).writerows([["algorithm", "microseconds", "SB3's SAC = 1"], *rows])


if __name__ == "__main__":
    main()
