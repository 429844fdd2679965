"""
Training with several environments next to SB3: one gradient step for each transition, or for each round of them::

    OMP_NUM_THREADS=1 python benchmarks/vectorized.py

All have two hidden layers of 256 units; with continuous actions their default batch size, with discrete ones 64. In each round
all take turns; processor time is measured, on one processor, because SBX (left out where it is not installed) takes all it
sees. Writes ``benchmarks/results/vectorized.csv``: milliseconds per transition, acting and environments included, and what the
other library takes of it; and ``vectorized_storing.csv``: microseconds for storing the transitions of a round.
"""

import csv
import os
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1

RESULTS = Path(__file__).parent / "results"
CONTINUOUS, DISCRETE = "Walker2d-v4", "CartPole-v1"
N_ENVS, GRADIENT_STEPS = (1, 4, 16), (-1, 1)
ROUNDS, TRANSITIONS = 5, 64
ALGORITHMS: dict[str, tuple[Any, str]] = {
    "SoftAC_v1": (SoftAC_v1, CONTINUOUS),
    "SQL": (SQL, CONTINUOUS),
    "SB3 SAC": (SAC, CONTINUOUS),
    "DiscreteSAC": (DiscreteSAC, DISCRETE),
    "SB3 DQN": (DQN, DISCRETE),
}
# By ours: whom it is compared with
PEERS = {"SoftAC_v1": ["SB3 SAC"], "SQL": ["SB3 SAC"], "DiscreteSAC": ["SB3 DQN"]}


def add_sbx() -> None:
    try:
        import sbx
    except ImportError:
        return
    ALGORITHMS.update({"SBX SAC": (sbx.SAC, CONTINUOUS), "SBX DQN": (sbx.DQN, DISCRETE)})
    for peers in PEERS.values():
        peers.append(peers[0].replace("SB3", "SBX"))


def make(name: str, n_envs: int, gradient_steps: int) -> Any:
    algorithm, env = ALGORITHMS[name]
    settings: dict[str, Any] = dict(buffer_size=10_000, learning_starts=TRANSITIONS, seed=0)
    settings |= dict(train_freq=1, gradient_steps=gradient_steps)
    if env == DISCRETE:
        settings |= dict(batch_size=64, policy_kwargs=dict(net_arch=[256, 256]))
    if not name.startswith("SBX"):
        settings |= dict(device="cpu")
    return algorithm("MlpPolicy", make_vec_env(env, n_envs, seed=0), **settings).learn(2 * TRANSITIONS)


def milliseconds(model: Any) -> float:
    start = process_time()
    model.learn(TRANSITIONS, reset_num_timesteps=False)
    return 1e3 * (process_time() - start) / TRANSITIONS


def microseconds_to_store(model: Any) -> float:
    """:return: Of all environments' transitions once."""
    actions, stored = model._sample_action(0, None, model.n_envs)
    obs, rewards, dones, infos = model.env.step(actions)
    start = process_time()
    for number in range(100):  # each observation is a new one
        model._store_transition(model.replay_buffer, stored, obs + 1e-3 * number, rewards, np.zeros_like(dones), infos)
    return 1e4 * (process_time() - start)


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def write(name: str, rows: list[dict[str, str]]) -> None:
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print((RESULTS / f"{name}.csv").read_text(), flush=True)


def main() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # before JAX counts processors
    th.set_num_threads(1)
    add_sbx()
    rows: list[dict[str, str]] = []
    storing: dict[str, dict[int, list[float]]] = {name: {} for name in ALGORITHMS if "SBX" not in name}
    for n_envs, gradient_steps in product(N_ENVS, GRADIENT_STEPS):
        if n_envs == 1 and gradient_steps == -1:
            continue  # the same
        models = {name: make(name, n_envs, gradient_steps) for name in ALGORITHMS}
        rounds = [{name: milliseconds(model) for name, model in models.items()} for _ in range(ROUNDS)]
        for ours, peers in PEERS.items():
            row = {"algorithm": ours, "n_envs": str(n_envs), "gradient_steps": str(gradient_steps)}
            row["ms per transition"] = spread([times[ours] for times in rounds])
            for library, peer in zip(("SB3", "SBX"), peers, strict=False):
                row[f"{library}'s ms"] = spread([times[peer] for times in rounds])
                row[f"{library}'s / ours"] = spread([times[peer] / times[ours] for times in rounds])
            rows.append(row)
        if gradient_steps == 1:
            for name, times in storing.items():
                times[n_envs] = [microseconds_to_store(models[name]) for _ in range(ROUNDS)]
        write("vectorized", sorted(rows, key=lambda row: list(PEERS).index(row["algorithm"])))
    write(
        "vectorized_storing",
        [
            {
                "algorithm": name,
                **{f"{n} environments" if n > 1 else "1 environment": f"{np.median(each):.0f}" for n, each in times.items()},
                "16 / 1": spread(list(np.divide(times[16], times[1]))),
            }
            for name, times in storing.items()
        ],
    )


if __name__ == "__main__":
    main()
