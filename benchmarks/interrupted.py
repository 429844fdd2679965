"""
One training, uninterrupted, and killed three times: by exact checkpoints and by SB3's way to go on.

    python benchmarks/interrupted.py

SoftAC_v1 on Pendulum-v1. SB3's way is its ``CheckpointCallback`` with the replay buffer, ``load``, ``load_replay_buffer``, and
``learn`` with the steps that are left. Each run is killed by signal 9 when it has come to step 1600, 2900 and 4100. Writes
``benchmarks/results/interrupted.csv``: the return of the last five episodes and the largest difference of a parameter from the
uninterrupted training, every 100 steps; and a plot of both.
"""

import argparse
import csv
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint

RESULT = Path(__file__).parent / "results" / "interrupted.csv"
STEPS, EVERY, NOTED = 5_000, 500, 100
KILLED = (1_600, 2_900, 4_100)
WAYS = {"uninterrupted": "uninterrupted", "exact": "ExactCheckpoint", "sb3": "CheckpointCallback and load"}


class Note(BaseCallback):
    """Leaves the parameters and the return of the last episodes in a folder."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps % NOTED == 0 and self.num_timesteps:
            parameters = th.nn.utils.parameters_to_vector(self.model.policy.parameters()).detach().numpy()
            returns = [episode["r"] for episode in list(self.model.ep_info_buffer)[-5:]]
            path = self.folder / f"{self.num_timesteps}.npz"
            np.savez(path.with_suffix(".part.npz"), parameters=parameters, returned=np.mean(returns) if returns else np.nan)
            path.with_suffix(".part.npz").rename(path)


def work(way: str, folder: Path) -> None:
    """Train, from the newest checkpoint if there is one."""
    th.set_num_threads(1)
    settings = dict(seed=0, device="cpu", learning_starts=100, policy_kwargs=dict(net_arch=[64, 64]), learning_rate=1e-3)
    note = Note(folder)
    if way != "sb3":
        model = SoftAC_v1("MlpPolicy", "Pendulum-v1", **settings)
        callbacks = [note] if way == "uninterrupted" else [note, ExactCheckpoint(folder / "exact", every=EVERY)]
        model.learn(STEPS + 1, callback=callbacks)  # the step after the last one notes it
        return
    saved = sorted(folder.glob("sb3_*_steps.zip"), key=lambda path: int(path.stem.split("_")[1]))
    save = CheckpointCallback(EVERY, str(folder), "sb3", save_replay_buffer=True)
    if not saved:
        SoftAC_v1("MlpPolicy", "Pendulum-v1", **settings).learn(STEPS + 1, callback=[note, save])
        return
    model = SoftAC_v1.load(saved[-1], env=gym.make("Pendulum-v1"), device="cpu")
    model.load_replay_buffer(folder / f"sb3_replay_buffer_{model.num_timesteps}_steps.pkl")
    model.learn(STEPS + 1 - model.num_timesteps, callback=[note, save], reset_num_timesteps=False)


def run(way: str, folder: Path) -> None:
    """Start it, kill it, start it again."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
    for step in KILLED if way != "uninterrupted" else ():
        process = subprocess.Popen(command)
        while not (folder / f"{step}.npz").exists():
            if process.poll() is not None:
                raise RuntimeError(f"{way} ended before step {step}")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)


def draw(path: Path) -> None:
    with open(RESULT) as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for way, style, color in (("uninterrupted", "-", "0.6"), ("exact", "--", "C0"), ("sb3", ":", "C1")):
        of_way = [row for row in rows if row["way"] == way]
        steps = [int(row["step"]) for row in of_way]
        width = 4 if way == "uninterrupted" else 1.8
        above.plot(steps, [float(row["return"]) for row in of_way], style, color=color, lw=width, label=WAYS[way])
        if way != "uninterrupted":
            below.plot(steps, [float(row["difference"]) for row in of_way], style, color=color, lw=1.8, label=WAYS[way])
    for axis in (above, below):
        for step in KILLED:
            axis.axvline(step, color="0.8", lw=0.8)
        axis.legend(loc="best")
    above.set_ylabel("return (mean of 5 episodes)")
    below.set_ylabel("largest difference\nof a parameter")
    below.set_xlabel("environment step (grey lines: killed by signal 9)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=list(WAYS))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.way:
        work(args.way, args.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for way in WAYS:
            path = Path(folder) / way
            path.mkdir()
            run(way, path)
            found[way] = {int(file.stem): dict(np.load(file)) for file in path.glob("*.npz")}
    with open(RESULT, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["way", "step", "return", "difference"])
        for way, noted in found.items():
            for step in sorted(noted):
                difference = np.abs(noted[step]["parameters"] - found["uninterrupted"][step]["parameters"]).max()
                writer.writerow([way, step, f"{noted[step]['returned']:.2f}", repr(float(difference))])
    draw(RESULT.with_suffix(".png"))


if __name__ == "__main__":
    main()
