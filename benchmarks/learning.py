"""
Learning curves of sb3_softac next to SB3, same settings, same seeds, one thread each.

One run is one process and one file ``benchmarks/results/learning/<env>/<algo>_<seed>.npz``; a run whose file
exists is skipped, so an interrupted sweep is continued by the same command::

    python benchmarks/learning.py run --env Pendulum-v1 --algos sac softac_v1 --seeds 0 1 2 3 4
    python benchmarks/learning.py run --env Hopper-v4 --algos softac_v1 sql sql_paper --seeds 0 1 2
    python benchmarks/learning.py report --env Pendulum-v1

Each file holds ``timesteps [evaluations]``, ``returns [evaluations, episodes]`` (deterministic policy on a separate
environment), ``train_returns`` and ``train_timesteps`` (one entry per training episode, stochastic policy) and
``seconds`` (wall-clock time, evaluations included; runs may have shared the machine, so it is no speed figure).
"""

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.monitor import Monitor

from sb3_softac import SQL, SoftAC_v1

RESULTS = Path(__file__).parent / "results" / "learning"

# SAC and SoftAC_v1 get exactly the same arguments ("kwargs"), the temperature fixed at the paper's 0.2 (reward scale 5) for
# both, so that the comparison is between the two updates and not between a learned and a fixed temperature. SQL changes those
# under "sql": on MuJoCo the networks, batches, particles and reward scale (30) of arXiv:1702.08165 and its code.
MUJOCO: dict[str, Any] = dict(
    steps=100_000,
    eval_freq=10_000,
    eval_episodes=10,
    kwargs=dict(learning_starts=1_000, ent_coef=0.2, train_freq=4),  # 25,000 updates: one of SQL is dear
    sql=dict(
        batch_size=128, ent_coef=0.0333, kernel_particles=16, value_particles=16, policy_kwargs=dict(net_arch=[128, 128])
    ),
)
TASKS: dict[str, dict[str, Any]] = {
    # RL Zoo's settings for SAC on Pendulum: 20k steps at learning rate 1e-3. Those of SQL are in hyperparams/sql.yml.
    "Pendulum-v1": dict(
        steps=20_000,
        eval_freq=1_000,
        eval_episodes=10,
        kwargs=dict(learning_rate=1e-3, ent_coef=0.2),
        sql=dict(
            learning_starts=1_000,
            train_freq=2,
            ent_coef=1.0,
            kernel_particles=16,
            value_particles=32,
            policy_kwargs=dict(net_arch=[128, 128]),
        ),
    ),
    # arXiv:1801.01290, table 1; 1000 uniform steps as in the authors' code.
    "Walker2d-v4": dict(steps=50_000, eval_freq=5_000, eval_episodes=10, kwargs=dict(learning_starts=1_000, ent_coef=0.2)),
    "Hopper-v4": MUJOCO,
    "HalfCheetah-v4": MUJOCO,
}
# Class, and what makes the variant.
ALGOS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any]]] = {
    "sac": (SAC, {}),
    # SB3's default, the learned temperature, for orientation
    "sac_auto": (SAC, dict(ent_coef="auto")),
    "softac_v1": (SoftAC_v1, {}),
    "sql": (SQL, {}),
    # The paper's soft value, single Q-function and target
    "sql_paper": (
        SQL,
        dict(
            proposal="uniform",
            tau=1.0,
            target_update_interval=1_000,
            policy_kwargs=dict(net_arch=[128, 128], n_critics=1),
        ),
    ),
}

# Earlier runs of the same settings, kept to see that no curve has changed: the first version, with PyTorch's own linear layers
# and Adam (fused), SB3's replay buffer and predict().
FORMER = ["softac_v1_first"]


def run(env_id: str, algo: str, seed: int) -> None:
    path = RESULTS / env_id / f"{algo}_{seed}.npz"
    if path.exists():
        print(f"{path} exists: skipped")
        return
    th.set_num_threads(1)
    task = TASKS[env_id]
    env, eval_env = Monitor(gym.make(env_id)), Monitor(gym.make(env_id))
    eval_env.reset(seed=10_000 + seed)
    algorithm, changes = ALGOS[algo]
    arguments = {**task["kwargs"], **(task["sql"] if algorithm is SQL else {}), **changes}
    model = algorithm("MlpPolicy", env, seed=seed, device="cpu", **arguments)
    with tempfile.TemporaryDirectory() as folder:
        evaluation = EvalCallback(
            eval_env, n_eval_episodes=task["eval_episodes"], eval_freq=task["eval_freq"], log_path=folder, verbose=0
        )
        start = time.perf_counter()
        model.learn(task["steps"], callback=evaluation)
        seconds = time.perf_counter() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        timesteps=np.array(evaluation.evaluations_timesteps),
        returns=np.array(evaluation.evaluations_results, dtype=np.float32),
        train_returns=np.array(env.get_episode_rewards(), dtype=np.float32),
        train_timesteps=np.cumsum(env.get_episode_lengths()),
        seconds=seconds,
    )
    os.replace(partial, path)
    print(
        f"{env_id} {algo} seed {seed}: {evaluation.last_mean_reward:.1f} after {task['steps']} steps, {seconds:.0f} s",
        flush=True,
    )


def report(env_id: str) -> None:
    """Print and save one row per run, and draw every run's curve with the mean over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, figure = [], plt.figure(figsize=(6, 4))
    for colour, algo in enumerate([*ALGOS, *FORMER]):
        paths = sorted((RESULTS / env_id).glob(f"{algo}_[0-9]*.npz"))
        runs = [dict(np.load(path)) for path in paths]
        if not runs:
            continue
        curves = np.array([data["returns"].mean(axis=1) for data in runs])
        for path, data, curve in zip(paths, runs, curves, strict=True):
            train = data["train_returns"][-10:].mean()
            seed = path.stem.rsplit("_", 1)[1]
            rows.append([algo, seed, int(data["timesteps"][-1]), f"{curve[-1]:.1f}", f"{curve.mean():.1f}", f"{train:.1f}"])
            plt.plot(data["timesteps"], curve, color=f"C{colour}", alpha=0.3, linewidth=1)
        plt.plot(runs[0]["timesteps"], curves.mean(axis=0), color=f"C{colour}", label=f"{algo} (mean of {len(runs)} seeds)")
        final = curves[:, -1]
        whole = curves.mean(axis=1)
        print(
            f"{algo}, {len(runs)} seeds: final {final.mean():.1f} ({final.min():.1f} to {final.max():.1f}), "
            f"curve mean {whole.mean():.1f} ({whole.min():.1f} to {whole.max():.1f})"
        )
    header = ["algo", "seed", "timesteps", "final", "curve mean", "last 10 training episodes"]
    with open(RESULTS / f"{env_id}.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for row in [header, *rows]:
        print("  ".join(f"{cell!s:>12}" for cell in row))
    plt.title(env_id)
    plt.xlabel("environment steps")
    plt.ylabel("return (deterministic policy)")
    plt.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / f"{env_id}.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--env", choices=list(TASKS), required=True)
    parser.add_argument("--algos", nargs="+", choices=list(ALGOS), default=["sac", "softac_v1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    if args.command == "report":
        return report(args.env)
    for seed in args.seeds:
        for algo in args.algos:
            run(args.env, algo, seed)


if __name__ == "__main__":
    main()
