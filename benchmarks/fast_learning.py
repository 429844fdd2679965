"""
Learning curves with and without the gradient steps in C: the same hyperparameters, seeds and environments.

    python benchmarks/fast_learning.py run
    python benchmarks/fast_learning.py report

``run`` trains by RL Zoo, one thread each and leaves one file per run,
``benchmarks/results/fast_learning/<env>_<way>_<seed>.npz`` with ``timesteps [evaluations]`` and ``returns [evaluations,
episodes]`` of the deterministic policy. A run whose file exists is skipped. ``report`` writes a table and a plot.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results" / "fast_learning"
TASKS = {"Pendulum-v1": ("softac_v1", 8_000), "CartPole-v1": ("discretesac", 15_000)}
HYPERPARAMS = "policy_kwargs:dict(net_arch=[64, 64])"  # the rest is the Zoo's entry of the algorithm; these run in a minute
WAYS = {"PyTorch": "0", "C": "1"}
SEEDS = range(5)
EPISODES = 10


def run(env: str, way: str, seed: int) -> None:
    path = RESULTS / f"{env}_{way}_{seed}.npz"
    if path.exists():
        return
    algo, steps = TASKS[env]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", env, "--seed", str(seed), "-n", str(steps)]
        command += ["--eval-freq", str(steps // 10), "--eval-episodes", str(EPISODES), "-f", folder, "--num-threads", "1"]
        command += ["--hyperparams", HYPERPARAMS]
        environment = {**os.environ, "SB3_SOFTAC_FAST": WAYS[way], "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        (found,) = Path(folder).rglob("evaluations.npz")
        with np.load(found) as data:
            RESULTS.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, timesteps=data["timesteps"], returns=data["results"])
    print(path.stem, flush=True)


def report() -> None:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(TASKS))
    rows = []
    for axis, env in zip(axes, TASKS, strict=True):
        for way, style in (("PyTorch", "-"), ("C", "--")):
            runs = []
            for seed in SEEDS:
                with np.load(RESULTS / f"{env}_{way}_{seed}.npz") as data:
                    steps, returns = data["timesteps"], data["returns"]
                runs.append(returns.mean(axis=1))
            curves = np.array(runs)
            axis.plot(steps, curves.T, style, color="0.7" if way == "PyTorch" else "tab:orange", linewidth=0.8)
            axis.plot(steps, curves.mean(axis=0), style, color="black" if way == "PyTorch" else "tab:red", label=f"in {way}")
            last = curves[:, -1]
            rows.append([env, way, *(f"{value:.1f}" for value in last), f"{last.mean():.1f}", f"{curves.mean():.1f}"])
        axis.set(title=env, xlabel="environment steps", ylabel=f"return, mean of {EPISODES} episodes")
        axis.legend()
    figure.savefig(RESULTS / "learning.png", dpi=120)
    with open(RESULTS / "learning.csv", "w", newline="") as file:
        header = ["environment", "way", *(f"seed {seed}" for seed in SEEDS), "mean at the end", "mean over all evaluations"]
        csv.writer(file).writerows([header, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    if parser.parse_args().command == "report":
        report()
        return
    for seed in SEEDS:
        for env in TASKS:
            for way in WAYS:
                run(env, way, seed)


if __name__ == "__main__":
    main()
