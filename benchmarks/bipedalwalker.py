"""
How far a gait carries: models trained on BipedalWalker-v3, evaluated there and on BipedalWalkerHardcore-v3.

    python -m sb3_softac.study run benchmarks/studies/bipedalwalker.yml
    python benchmarks/bipedalwalker.py

evaluates the last model of each finished run for 100 episodes with deterministic actions. A row per run and task goes to
``benchmarks/results/bipedalwalker.csv``, and a summary to ``bipedalwalker_summary.csv``. Clips of SoftAC_v1 (seed 0)
are ``bipedalwalker.gif`` and ``bipedalwalker_hardcore.gif``. A run that has its rows is not evaluated again.
"""

import csv
from pathlib import Path

import numpy as np
import torch as th
from PIL import Image
from rl_zoo3 import ALGOS
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_softac.study import read_study
from sb3_softac.zoo import register
from sb3_softac.zoo.trained import Trained, load_trained

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TASKS = {"BipedalWalker-v3": "bipedalwalker.gif", "BipedalWalkerHardcore-v3": "bipedalwalker_hardcore.gif"}
EPISODES, SEED = 100, 1_000_000
HEADER = ["algorithm", "seed", "task", "mean return", "standard deviation", "lowest", "highest", "episodes above 300"]
FRAMES, EVERY = 60, 5


def evaluate(trained: Trained, task: str) -> list[str]:
    envs = trained._replace(env=task).make_envs(10, SEED)
    returns, _ = evaluate_policy(trained.model, envs, EPISODES, return_episode_rewards=True)
    envs.close()
    numbers = [np.mean(returns), np.std(returns), np.min(returns), np.max(returns)]
    return [*(f"{number:.1f}" for number in numbers), str(sum(value >= 300 for value in returns))]


def film(trained: Trained, task: str) -> None:
    """The first episode, as far as the clip reaches."""
    trained.env_kwargs["render_mode"] = "rgb_array"
    envs: VecEnv = trained._replace(env=task).make_envs(1, SEED)
    inner = envs
    while not isinstance(inner, DummyVecEnv):
        inner = inner.venv  # type: ignore[attr-defined]
    obs, frames, done = envs.reset(), [], False
    while not done and len(frames) < FRAMES * EVERY:
        frames.append(Image.fromarray(inner.envs[0].render()).resize((300, 200)).quantize(32))
        obs, _, (done,), _ = envs.step(trained.model.predict(obs, deterministic=True)[0])
    first, *others = frames[::EVERY]
    first.save(RESULTS / TASKS[task], save_all=True, append_images=others, duration=20 * EVERY, loop=0)  # 50 steps a second
    envs.close()
    del trained.env_kwargs["render_mode"]


def summarize(rows: list[list[str]]) -> None:
    lines = []
    for task in TASKS:
        for algorithm in dict.fromkeys(row[0] for row in rows):
            label = ALGOS[algorithm].__name__
            own = [row for row in rows if row[0] == algorithm and row[2] == task]
            means = sorted(float(row[3]) for row in own)
            lines.append([task, label, str(len(own)), f"{np.mean(means):.0f}", ", ".join(f"{mean:.0f}" for mean in means)])
    with open(RESULTS / "bipedalwalker_summary.csv", "w", newline="") as file:
        csv.writer(file).writerows([["evaluated on", "algorithm", "seeds", "mean return", "all seeds"], *lines])


def main() -> None:
    register()
    th.set_num_threads(1)
    study, path = read_study(HERE / "studies" / "bipedalwalker.yml"), RESULTS / "bipedalwalker.csv"
    rows = list(csv.reader(path.read_text().splitlines()))[1:] if path.exists() else []
    known = {(row[0], row[1]) for row in rows}
    for run in study.runs:
        if (run.algorithm, str(run.seed)) in known or not study.result_of(run).exists():
            continue
        trained = load_trained(study.folder_of(run) / "zoo", run.algo, run.env)
        for task in TASKS:
            rows.append([run.algorithm, str(run.seed), task, *evaluate(trained, task)])
            print("  ".join(rows[-1]), flush=True)
            if run.algo == "softac_v1" and run.seed == 0:
                film(trained, task)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    summarize(rows)


if __name__ == "__main__":
    main()
