"""
Time of adding to a replay buffer: SB3's and ours, by the number of environments.

    python benchmarks/replay_add.py

Writes results/replay_add.csv. Processor time of one call of ``add`` with observations of Walker2d-v4, the least of several
rounds, with a full buffer.
"""

import csv
import time
from pathlib import Path

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_softac.replay.buffer import SoftReplayBuffer

ENVIRONMENTS = (1, 4, 16, 64, 256, 1024, 4096)
OBSERVATIONS, ACTIONS = spaces.Box(-np.inf, np.inf, (17,), np.float64), spaces.Box(-1, 1, (6,))
ROUNDS, LENGTH = 6, 300


def transitions(n_envs: int) -> list[tuple]:
    """Transitions of environments whose episodes last 200 steps on average."""
    rng = np.random.default_rng(0)
    obs, stream = rng.normal(size=(n_envs, 17)), []
    for _ in range(LENGTH):
        following, dones = rng.normal(size=(n_envs, 17)), rng.random(n_envs) < 1 / 200
        actions = rng.normal(size=(n_envs, 6)).astype(np.float32)
        stream.append((obs, following, actions, rng.normal(size=n_envs), dones, [{} for _ in range(n_envs)]))
        obs = np.where(dones[:, None], rng.normal(size=(n_envs, 17)), following)
    return stream


def microseconds(buffer: ReplayBuffer, stream: list[tuple]) -> float:
    times = []
    for number in range(ROUNDS + 1):
        start = time.process_time()
        for transition in stream:
            buffer.add(*transition)
        if number:  # the first round fills the buffer
            times.append(time.process_time() - start)
    return min(times) / len(stream) * 1e6


def main() -> None:
    with open(Path(__file__).parent / "results" / "replay_add.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["environments", "sb3", "sb3_softac", "ratio"])
        for n_envs in ENVIRONMENTS:
            stream = transitions(n_envs)
            sb3, ours = (
                microseconds(cls(n_envs * LENGTH // 2, OBSERVATIONS, ACTIONS, "cpu", n_envs=n_envs), stream)
                for cls in (ReplayBuffer, SoftReplayBuffer)
            )
            writer.writerow([n_envs, f"{sb3:.1f}", f"{ours:.1f}", f"{ours / sb3:.1f}"])
            print(n_envs, f"{sb3:.1f} {ours:.1f} {ours / sb3:.1f}", flush=True)


if __name__ == "__main__":
    main()
