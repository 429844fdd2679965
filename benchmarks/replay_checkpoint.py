"""
What the rows of a replay buffer cost a checkpoint: a million transitions with observations of Walker2d-v4, 10000 of them new.

    python benchmarks/replay_checkpoint.py

Writes results/replay_checkpoint.csv: processor seconds to look for changed rows, to save the rows of one checkpoint
(looking included) and to restore all, and megabytes on disk.
"""

import csv
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_softac.replay.buffer import SoftReplayBuffer
from sb3_softac.resume import replay
from sb3_softac.resume.store import Store

ROWS, NEW = 1_000_000, 10_000
OBSERVATIONS, ACTIONS = spaces.Box(-np.inf, np.inf, (17,), np.float64), spaces.Box(-1, 1, (6,))


def fill(buffer: ReplayBuffer, number: int, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for _ in range(number):
        following = rng.normal(size=(1, 17))
        buffer.add(obs, following, rng.normal(size=(1, 6)), rng.normal(size=1), np.zeros(1, bool), [{}])
        obs = following
    return obs


def measure(buffer: ReplayBuffer, folder: str) -> Iterator[float]:
    """:return: Seconds to look for changes, to save, to restore; megabytes of the new files and of all."""
    rng, store = np.random.default_rng(0), Store(folder, keep=3)
    obs = fill(buffer, ROWS, np.zeros((1, 17)), rng)
    before = replay.blocks(buffer)
    contents = [(block.first, replay.read_rows(buffer, block.first + np.arange(block.rows))) for block in before]
    segments = store.save(1, {}, {}, [], contents, replay.position(buffer))
    del contents
    fill(buffer, NEW, obs, rng)
    start = time.process_time()
    present = replay.blocks(buffer)
    yield time.process_time() - start
    changed = set(present) - set(before)
    firsts = {block.first for block in changed}
    kept = [segment for segment in segments if segment.first not in firsts]
    new = ((block.first, replay.read_rows(buffer, block.first + np.arange(block.rows))) for block in changed)
    segments = store.save(2, {}, {}, kept, new, replay.position(buffer))
    yield time.process_time() - start
    start = time.process_time()
    replay.restore_rows(buffer, replay.position(buffer), segments)
    yield time.process_time() - start
    for some in ([segment for segment in segments if segment.first in firsts], segments):
        yield sum(segment.file.stat().st_size for segment in some) / 1e6


def main() -> None:
    with open(Path(__file__).parent / "results" / "replay_checkpoint.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["buffer", "look for changes (s)", "save (s)", "restore (s)", "new (MB)", "all (MB)"])
        for cls in (SoftReplayBuffer, ReplayBuffer):
            with tempfile.TemporaryDirectory() as folder:
                numbers = measure(cls(ROWS, OBSERVATIONS, ACTIONS, "cpu"), folder)
                writer.writerow([cls.__name__, *(f"{number:.3g}" for number in numbers)])


if __name__ == "__main__":
    main()
