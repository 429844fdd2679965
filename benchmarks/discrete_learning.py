"""
Learning curves of DiscreteSAC and its peers on classic control, at equal steps and at equal training time.

One run is one process on one thread and one file ``benchmarks/results/discrete/<env>/<name>_<seed>.npz``; a run whose file
exists is skipped, so an interrupted sweep is continued by the same command::

    pip install sb3-soft==0.1.1     # the one peer that is not installed with sb3_softac
    python benchmarks/discrete_learning.py run --env CartPole-v1 --names discretesac dqn qrdqn ppo sb3_soft --seeds 0 1 2
    python benchmarks/discrete_learning.py time     # seconds per step of everybody, in turns, on a quiet machine
    python benchmarks/discrete_learning.py report

Each file holds ``timesteps [evaluations]``, ``returns [evaluations, 10]`` (deterministic policy, environments of their own),
``train_returns`` and ``train_timesteps`` (one entry per training episode, as the agent explores). Runs may share the machine
with others, so their own clock is not kept; the training time is the number of steps times what ``time`` has measured.
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rl_zoo3
import torch as th
from rl_zoo3.exp_manager import ExperimentManager
from rliable.library import get_interval_estimates
from rliable.metrics import aggregate_iqm
from scipy import stats
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from sb3_softac.zoo import register

RESULTS = Path(__file__).parent / "results" / "discrete"
EPISODES = 10

# Environment steps, and steps between two evaluations. The Zoo's schedules stretch over the number of steps given here.
TASKS = {
    "CartPole-v1": (50_000, 2_500),
    "Acrobot-v1": (50_000, 2_500),
    "MountainCar-v0": (100_000, 5_000),
    "LunarLander-v3": (200_000, 10_000),
}
# Environment steps after which the table compares
MARKS = {
    "CartPole-v1": (25_000, 50_000),
    "Acrobot-v1": (50_000,),
    "MountainCar-v0": (100_000,),
    "LunarLander-v3": (80_000, 200_000),
}
ROUNDS = 3
# PPO is cheap per step: to have something to show for the same training time, it gets more of them.
PPO_STEPS = 4

# Zoo id and changes to the hyperparameters that the Zoo's YAML files (ours for discretesac) have for the environment.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "discretesac": ("discretesac", {}),
    # what the paper's target entropy does with the tuned settings, everything else being equal
    "discretesac_098": ("discretesac", {"target_entropy": "auto"}),
    "dqn": ("dqn", {}),
    "qrdqn": ("qrdqn", {}),
    "ppo": ("ppo", {}),
    "sb3_soft": ("sdsac", {}),
}
# sb3-soft has no entries in the Zoo: its own defaults, with the learning rate and buffer of its documentation.
SB3_SOFT = "n_timesteps: 0\n  policy: MlpPolicy\n  learning_rate: !!float 3e-4\n  buffer_size: 100000\n"


class Evaluation(BaseCallback):
    """
    Evaluate at fixed steps, and note the return of every training episode.

    :param env: Environment to evaluate in.
    :param every: Environment steps between two evaluations.
    """

    def __init__(self, env: VecEnv, every: int):
        super().__init__()
        self.env, self.every = env, every
        self.timesteps: list[int] = []
        self.returns: list[list[float]] = []
        self.train_timesteps: list[int] = []
        self.train_returns: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.train_timesteps.append(self.num_timesteps)
                self.train_returns.append(info["episode"]["r"])
        if self.num_timesteps >= self.every * (len(self.timesteps) + 1):
            self.evaluate()
        return True

    def evaluate(self) -> None:
        sync_envs_normalization(self.training_env, self.env)
        returns, _ = evaluate_policy(self.model, self.env, EPISODES, deterministic=True, return_episode_rewards=True)
        self.timesteps.append(self.num_timesteps)
        self.returns.append(returns)  # type: ignore[arg-type]


def make(name: str, env_id: str, seed: int, steps: int, folder: str) -> tuple[BaseAlgorithm, VecEnv]:
    """:return: A model as ``python -m rl_zoo3.train`` makes it, and environments to evaluate it in."""
    algo, changes = VARIANTS[name]
    config = None
    if algo == "sdsac":
        from sb3_soft import SDSAC

        rl_zoo3.ALGOS[algo] = SDSAC
        config = f"{folder}/sdsac.yml"
        Path(config).write_text(f"{env_id}:\n  {SB3_SOFT}")
    manager = ExperimentManager(
        argparse.Namespace(),
        algo,
        env_id,
        folder,
        n_timesteps=steps,
        eval_freq=-1,
        hyperparams=dict(changes),
        seed=seed,
        verbose=0,
        device="cpu",
        config=config,
    )
    model, _ = manager.setup_experiment()  # type: ignore[misc]
    evaluation = manager.create_envs(EPISODES, eval_env=True, no_log=True)
    evaluation.seed(10_000 + 100 * seed)
    return model, evaluation


def run(name: str, env_id: str, seed: int) -> None:
    path = RESULTS / env_id / f"{name}_{seed}.npz"
    if path.exists():
        print(f"{path} exists: skipped", flush=True)
        return
    steps, every = TASKS[env_id]
    steps *= PPO_STEPS if name == "ppo" else 1
    with tempfile.TemporaryDirectory() as folder:
        model, env = make(name, env_id, seed, steps, folder)
        evaluation = Evaluation(env, every)
        model.learn(steps, callback=evaluation)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        timesteps=np.array(evaluation.timesteps),
        returns=np.array(evaluation.returns, dtype=np.float32),
        train_timesteps=np.array(evaluation.train_timesteps),
        train_returns=np.array(evaluation.train_returns, dtype=np.float32),
    )
    os.replace(partial, path)
    means = np.mean(evaluation.returns, axis=1)
    print(f"{env_id} {name} seed {seed}: last {means[-1]:.1f}, best {means.max():.1f}", flush=True)


def measure(env_id: str, names: list[str]) -> None:
    """Write the seconds per 1000 environment steps of every algorithm: medians over rounds in which they take turns."""
    with tempfile.TemporaryDirectory() as folder:
        models = {name: make(name, env_id, 0, TASKS[env_id][0], folder)[0] for name in names}
        for model in models.values():
            if hasattr(model, "learning_starts"):
                model.learning_starts = 500
        rounds = [{name: seconds_per_1000(model) for name, model in models.items()} for _ in range(ROUNDS + 1)][1:]
    path = RESULTS / env_id / "seconds_per_1000_steps.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["algorithm", "median", *(f"round {number + 1}" for number in range(ROUNDS))])
        for name in names:
            times = [times[name] for times in rounds]
            writer.writerow([name, *(f"{value:.3f}" for value in [np.median(times), *times])])
    print(path.read_text())


def seconds_per_1000(model: BaseAlgorithm) -> float:
    """:return: Seconds of training per 1000 environment steps, at least 2000 of them."""
    before, start = model.num_timesteps, time.perf_counter()
    model.learn(2_000, reset_num_timesteps=before == 0)
    return 1_000 * (time.perf_counter() - start) / (model.num_timesteps - before)


def at_steps(run: dict[str, np.ndarray], steps: int) -> float:
    """:return: Mean return of the last evaluation within a number of environment steps."""
    return float(run["returns"].mean(axis=1)[run["timesteps"] <= steps][-1])


def training_return(run: dict[str, np.ndarray], steps: int) -> float:
    """:return: Mean return of the last 20 training episodes within a number of environment steps."""
    return float(run["train_returns"][run["train_timesteps"] <= steps][-20:].mean())


def interval(values: np.ndarray) -> str:
    """
    :param values: One number per seed.
    :return: Interquartile mean with the 95 % interval of a stratified bootstrap (rliable).
    """
    rng = np.random.RandomState(0)
    scores = {"": values[:, None]}
    point, bounds = get_interval_estimates(scores, lambda x: np.array([aggregate_iqm(x)]), reps=2_000, random_state=rng)
    return f"{point[''][0]:.1f} ({bounds[''][0, 0]:.1f} to {bounds[''][1, 0]:.1f})"


def coverage(n_seeds: int) -> float:
    """
    :param n_seeds: Number of seeds.
    :return: The beta of the (0.95, beta) tolerance interval that reaches from the worst seed to the best: with confidence 0.95
        at least this fraction of all seeds lies in it. The part of a distribution between the smallest and the largest of n
        draws follows Beta(n - 1, 2).
    """
    return float(stats.beta.ppf(0.05, n_seeds - 1, 2)) if n_seeds > 1 else 0.0


def rows_of(
    env_id: str, name: str, runs: list[dict[str, np.ndarray]], seconds_per_step: float, budget: float
) -> list[dict[str, str]]:
    """:return: One row of the table per mark of the environment; ``budget`` are the seconds that all may use."""
    rows = []
    affordable = int(budget / seconds_per_step)
    for steps in MARKS[env_id]:
        values = np.array([at_steps(run, steps) for run in runs])
        rows.append(
            {
                "environment": env_id,
                "algorithm": name,
                "steps": str(steps),
                "seeds": str(len(runs)),
                "return: IQM (95 %)": interval(values),
                "worst to best (beta)": f"{values.min():.0f} to {values.max():.0f} ({coverage(len(runs)):.2f})",
                "training return: IQM (95 %)": interval(np.array([training_return(run, steps) for run in runs])),
                "seconds": f"{seconds_per_step * steps:.0f}",
                "steps in the same seconds": f"{min(affordable, int(runs[0]['timesteps'][-1]))}",
                "return after the same seconds": interval(np.array([at_steps(run, affordable) for run in runs])),
                "every seed": " ".join(f"{value:.0f}" for value in sorted(values)),
            }
        )
    return rows


def report(env_ids: list[str]) -> None:
    """Write and print the tables, and draw the curves of every seed over steps and over training time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for env_id in env_ids:
        runs = {}
        for name in VARIANTS:
            paths = sorted(path for path in (RESULTS / env_id).glob("*.npz") if path.stem.rsplit("_", 1)[0] == name)
            if paths:
                runs[name] = [dict(np.load(path)) for path in paths]
        if "discretesac" not in runs:
            continue
        rows, (figure, axes) = [], plt.subplots(1, 2, figsize=(11, 4), sharey=True)
        last = MARKS[env_id][-1]
        with open(RESULTS / env_id / "seconds_per_1000_steps.csv", newline="") as file:
            per_step = {row["algorithm"]: float(row["median"]) / 1_000 for row in csv.DictReader(file)}
        per_step.setdefault("discretesac_098", per_step["discretesac"])
        budget = per_step["discretesac"] * last
        for colour, (name, of_name) in enumerate(runs.items()):
            rows += rows_of(env_id, name, of_name, per_step[name], budget)
            for number, run in enumerate(of_name):
                label = f"{name} ({len(of_name)})" if number == 0 else None
                for axis, scale in zip(axes, (1.0, per_step[name]), strict=True):
                    axis.plot(
                        scale * run["timesteps"],
                        run["returns"].mean(axis=1),
                        color=f"C{colour}",
                        alpha=0.5,
                        linewidth=1,
                        label=label,
                    )
        axes[0].set(xlabel="environment steps", ylabel="return (deterministic policy)", xlim=(0, TASKS[env_id][0]))
        axes[1].set(xlabel="seconds of training (one thread)", xlim=(0, 1.5 * budget))
        axes[1].legend(fontsize="small")
        figure.suptitle(f"{env_id}: every seed")
        figure.tight_layout()
        figure.savefig(RESULTS / f"{env_id}.png", dpi=100)
        with open(RESULTS / f"{env_id}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        for row in rows:
            print("  ".join(row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "time", "report"])
    parser.add_argument("--env", choices=list(TASKS), nargs="+", default=list(TASKS))
    parser.add_argument("--names", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    args = parser.parse_args()
    if args.command == "report":
        return report(args.env)
    th.set_num_threads(1)
    register()
    for env_id in args.env:
        if args.command == "time":
            measure(env_id, [name for name in args.names if name != "discretesac_098"])
            continue
        for seed in args.seeds:
            for name in args.names:
                run(name, env_id, seed)


if __name__ == "__main__":
    main()
