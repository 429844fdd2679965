"""
What more particles buy SQL: returns after the same number of gradient steps, and what a step costs::

    OMP_NUM_THREADS=1 python benchmarks/sql_particles.py

Each task has the settings of ``hyperparams/sql.yml``, for fewer steps and with smaller networks and batches, so that a run
takes a minute. MultiGoal is measured by the largest share of the episodes that ends in one goal as well: one fourth if the
policy keeps all four. Each run appends one row to ``benchmarks/results/sql_particles.csv``; what has its row is not done
again. The cost is that of the processor, so that other programs disturb little.
"""

import csv
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from multigoal import SETTINGS as MULTIGOAL
from multigoal import play
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_softac import SQL

RESULT = Path(__file__).parent / "results" / "sql_particles.csv"
PARTICLES = [(32, 64), (16, 32), (16, 16)]  # kernel and value particles
SEEDS = range(3)
SMALL = dict(batch_size=64, policy_kwargs=dict(net_arch=[64, 64]))
TASKS: dict[str, tuple[int, dict[str, Any]]] = {
    "Pendulum-v1": (10_000, {**SMALL, "learning_rate": 1e-3, "learning_starts": 1_000, "train_freq": 2}),
    "Hopper-v4": (20_000, {**SMALL, "ent_coef": 0.0333, "learning_starts": 1_000, "train_freq": 4}),
    "MultiGoal-v0": (10_000, {**MULTIGOAL, **SMALL}),
}
COLUMNS = [
    "task",
    "kernel_particles",
    "value_particles",
    "seed",
    "return",
    "largest share of a goal",
    "ms per environment step",
]


def run(task: str, kernel: int, value: int, seed: int) -> list[str]:
    """:return: A row of the results."""
    steps, settings = TASKS[task]
    env = make_vec_env(task, seed=seed)
    model = SQL("MlpPolicy", env, seed=seed, device="cpu", kernel_particles=kernel, value_particles=value, **settings)
    start = time.process_time()
    model.learn(steps)
    cost, share = 1e3 * (time.process_time() - start) / steps, ""
    if task == "MultiGoal-v0":
        returns, goals, _ = play(lambda obs: model.predict(obs)[0])
        share = f"{max(goals) / sum(goals):.2f}" if sum(goals) else ""
    else:
        evaluation = make_vec_env(task, seed=1_000 + seed)
        returns, _ = evaluate_policy(model, evaluation, 20, return_episode_rewards=True, warn=False)
    return [task, str(kernel), str(value), str(seed), f"{np.mean(returns):.1f}", share, f"{cost:.2f}"]


def main() -> None:
    th.set_num_threads(1)
    rows = list(csv.reader(RESULT.read_text().splitlines()))[1:] if RESULT.exists() else []
    for seed, task, (kernel, value) in product(SEEDS, TASKS, PARTICLES):
        if [task, str(kernel), str(value), str(seed)] not in [row[:4] for row in rows]:
            rows.append(run(task, kernel, value, seed))
            print(rows[-1], flush=True)
            with open(RESULT, "w", newline="") as file:
                csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
