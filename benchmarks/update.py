"""
Milliseconds per gradient step and environment steps per second of SoftAC_v1 next to SB3's SAC, in one run.

Both train on Walker2d-v4 with batch 256 and nets 2x256, SB3's defaults. The two alternate block by block in one process, so
that a change of the machine's speed hits both; the ratio of each pair of blocks is the figure to quote::

    python benchmarks/update.py --threads 2

"sac_fused" is SB3's SAC with the one speed-up that its own arguments offer (``optimizer_kwargs=dict(fused=True)``).
"""

import argparse
import csv
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac import SoftAC_v1

RESULTS = Path(__file__).parent / "results"
WARM_UP = 1_000


def make_models(env_id: str) -> dict[str, OffPolicyAlgorithm]:
    common = dict(seed=0, learning_starts=WARM_UP, buffer_size=100_000, device="cpu")
    models: dict[str, OffPolicyAlgorithm] = {
        "sac": SAC("MlpPolicy", Monitor(gym.make(env_id)), **common),
        "sac_fused": SAC(
            "MlpPolicy", Monitor(gym.make(env_id)), policy_kwargs=dict(optimizer_kwargs=dict(fused=True)), **common
        ),
        "softac_v1": SoftAC_v1("MlpPolicy", Monitor(gym.make(env_id)), **common),
        "softac_v1_auto": SoftAC_v1("MlpPolicy", Monitor(gym.make(env_id)), ent_coef="auto", **common),
    }
    for model in models.values():
        model.learn(WARM_UP + 100)  # fills the buffer, creates the optimizer state and warms the allocator up
    return models


def update_ms(model: OffPolicyAlgorithm, gradient_steps: int = 50) -> float:
    start = time.perf_counter()
    model.train(gradient_steps, 256)
    return 1e3 * (time.perf_counter() - start) / gradient_steps


def loop_steps_per_second(model: OffPolicyAlgorithm, steps: int = 300) -> float:
    start = time.perf_counter()
    model.learn(steps, reset_num_timesteps=False)
    return steps / (time.perf_counter() - start)


def quartiles(values: np.ndarray) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--env", default="Walker2d-v4")
    args = parser.parse_args()
    th.set_num_threads(args.threads)
    models = make_models(args.env)
    update = {name: [] for name in models}
    loop = {name: [] for name in models}
    for _ in range(args.repeats):
        for name, model in models.items():
            update[name].append(update_ms(model))
        for name, model in models.items():
            loop[name].append(loop_steps_per_second(model))
    header = ["algo", "threads", "ms per gradient step", "speed-up of the update", "env steps/s", "speed-up of the loop"]
    rows = []
    for name in models:
        ms, sps = np.array(update[name]), np.array(loop[name])
        gain_update, gain_loop = np.array(update["sac"]) / ms, sps / np.array(loop["sac"])
        rows.append([name, args.threads, quartiles(ms), quartiles(gain_update), quartiles(sps), quartiles(gain_loop)])
    print(f"{args.env}, torch {th.__version__}, {args.repeats} blocks each: median (25 % - 75 %)")
    for row in [header, *rows]:
        print("  ".join(f"{cell!s:>24}" for cell in row))
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"update_{args.threads}_threads.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()
