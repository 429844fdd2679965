"""
A gradient step on a GPU: with and without CUDA graphs, next to SB3, SBX and a CPU of the same machine.

    python benchmarks/gpu.py          # measure, write and draw
    python benchmarks/gpu.py draw     # only draw, from the files written before

Each model first trains a little by itself, then all of a task take turns in blocks. What is timed is ``train``, sampling
included, with one gradient step per call as in a training, and with 16 per call. ``loop`` is a step of ``learn``: acting, the
environment and one gradient step. SBX (JAX) is left out where it is not installed; SB3 and ours run on one thread of the CPU.

Writes to ``benchmarks/results``: ``gpu.csv``, medians over the blocks with their range, and the ratio to SB3 on the GPU within
a block; ``gpu_machine.txt``; a plot; and ``gpu_same.csv``: how far the parameters with and without graphs are from each other
after the same training.
"""

import argparse
import csv
import os
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX takes most of the memory of the GPU

import gymnasium as gym
import numpy as np
import torch as th
from matplotlib.figure import Figure
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.envs import FakeImageEnv

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.study.plots import colour_of
from sb3_softac.study.training import processor

RESULTS = Path(__file__).parent / "results"
STARTS, BLOCKS, SECONDS = 1_000, 5, 0.1
SMALL = dict(policy_kwargs=dict(net_arch=[256, 256]))
GPU, CPU, GRAPHS = dict(device="cuda"), dict(device="cpu"), dict(device="cuda", cuda_graphs=True)
Factory = Callable[[], Any]


def pixels() -> gym.Env:
    env = FakeImageEnv(action_dim=6, screen_height=84, screen_width=84, n_channels=4, discrete=True)
    env.observation_space.seed(0)  # it draws its images from there
    return env


def make(algorithm: type, policy: str, env: Any, batch: int, **options: Any) -> Factory:
    common = dict(learning_starts=STARTS, buffer_size=20_000, batch_size=batch, train_freq=1, gradient_steps=1, seed=0)
    # SB3 writes into the policy_kwargs that it is given
    return lambda: algorithm(policy, env() if callable(env) else env, **{**common, **deepcopy(options)})


def continuous(batch: int) -> dict[str, Factory]:
    walker = ("MlpPolicy", "Walker2d-v4", batch)
    rows = {
        "SB3 SAC": make(SAC, *walker, **SMALL, **GPU),
        "SoftAC_v1": make(SoftAC_v1, *walker, **SMALL, **GPU),
        "SoftAC_v1, CUDA graphs": make(SoftAC_v1, *walker, **SMALL, **GRAPHS),
        "SQL": make(SQL, *walker, **SMALL, **GPU),
        "SQL, CUDA graphs": make(SQL, *walker, **SMALL, **GRAPHS),
    }
    if batch == 256:
        rows["SB3 SAC, CPU"] = make(SAC, *walker, **SMALL, **CPU)
        rows["SoftAC_v1, CPU"] = make(SoftAC_v1, *walker, **SMALL, **CPU)
    try:
        from sbx import SAC as SBX
    except ImportError:
        return rows
    return {**rows, "SBX SAC (JAX)": make(SBX, *walker, **SMALL)}


def discrete(policy: str, env: Any, batch: int, **options: Any) -> dict[str, Factory]:
    task = (policy, env, batch)
    rows = {
        "SB3 DQN": make(DQN, *task, **options, **GPU),
        "DiscreteSAC": make(DiscreteSAC, *task, **options, **GPU),
        "DiscreteSAC, CUDA graphs": make(DiscreteSAC, *task, **options, **GRAPHS),
    }
    if policy == "MlpPolicy":
        rows["SB3 DQN, CPU"] = make(DQN, *task, **options, **CPU)
        rows["DiscreteSAC, CPU"] = make(DiscreteSAC, *task, **options, **CPU)
    return rows


TASKS: dict[str, Callable[[], dict[str, Factory]]] = {
    "Walker2d-v4, batch 256": lambda: continuous(256),
    "Walker2d-v4, batch 2048": lambda: continuous(2048),
    "CartPole-v1, batch 64": lambda: discrete("MlpPolicy", "CartPole-v1", 64, **SMALL),
    "84 x 84 x 4 pixels, batch 64": lambda: discrete("CnnPolicy", pixels, 64),
}


def wait(model: Any) -> None:
    """Wait for the device, whoever uses it."""
    if hasattr(model.policy, "qf_state"):
        import jax

        jax.block_until_ready(model.policy.qf_state.params)
    elif model.device.type == "cuda":
        th.cuda.synchronize()


def seconds(model: Any, call: Callable[[int], object], number: int) -> float:
    """:return: Seconds of a block of calls."""
    wait(model)
    start = time.perf_counter()
    call(number)
    wait(model)
    return time.perf_counter() - start


def calls_of(model: Any) -> dict[str, Callable[[int], object]]:
    """:return: By column: a function that does some steps."""

    def train(number: int, per_call: int) -> None:
        for _ in range(-(-number // per_call)):
            model.train(gradient_steps=per_call, batch_size=model.batch_size)

    return {
        "train": lambda number: train(number, 1),
        "train, 16 per call": lambda number: train(number, 16),
        "loop": lambda number: model.learn(number, reset_num_timesteps=False),
    }


def measure(task: str, factories: dict[str, Factory]) -> list[dict[str, str]]:
    """:return: One row per model."""
    calls, numbers = {}, {}
    models = {name: factory() for name, factory in factories.items()}
    for name, model in models.items():
        model.learn(STARTS + 100)
        calls[name] = calls_of(model)
        for column, call in calls[name].items():
            call(96)  # captures and compilations
            numbers[name, column] = 16 * max(1, int(SECONDS / (seconds(model, call, 32) / 2)))
    times: dict[tuple[str, str], list[float]] = {key: [] for key in numbers}
    for _ in range(BLOCKS):
        for (name, column), number in numbers.items():
            times[name, column].append(1e3 * seconds(models[name], calls[name][column], number) / number)
    first = next(iter(models))
    rows = []
    for name in models:
        row = {"task": task, "name": name}
        for column in next(iter(calls.values())):
            own = np.array(times[name, column])
            ratio = np.array(times[first, column]) / own
            row[f"{column}: ms"] = f"{np.median(own):.3f} ({own.min():.3f}-{own.max():.3f})"
            row[f"{column}: times as fast as {first.split()[0]} on the GPU"] = f"{np.median(ratio):.2f}"
        rows.append(row)
    return rows


def same(task: str, factories: dict[str, Factory], steps: int) -> list[list[str]]:
    """:return: Rows of the largest difference of a parameter with and without graphs, after the same training."""
    rows = []
    for name in factories:
        if f"{name}, CUDA graphs" not in factories:
            continue
        models = [factories[each]().learn(STARTS + steps) for each in (name, f"{name}, CUDA graphs")]
        assert not models[1].engines[0].given_up
        plain, graphs = (th.cat([p.detach().flatten() for p in model.policy.parameters()]) for model in models)
        rows.append([task, name, str(steps), f"{(plain - graphs).abs().max():.1e}", f"{plain.abs().max():.2f}"])
    return rows


def draw() -> None:

    rows = list(csv.DictReader((RESULTS / "gpu.csv").read_text().splitlines()))
    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, task in zip(figure.subplots(2, 2).flat, TASKS, strict=True):
        own = [row for row in rows if row["task"] == task]
        middles = [float(row["train: ms"].split()[0]) for row in own]
        colours = [colour_of(row["name"]) for row in own]
        bars = axes.barh([row["name"] for row in own], middles, color=colours)
        for bar, row in zip(bars, own, strict=True):
            bar.set_alpha(1.0 if "graphs" in row["name"] else 0.4)
        axes.bar_label(bars, [f"{middle:.2f}" for middle in middles], padding=2, fontsize=8)
        axes.set_title(task, fontsize=10)
        axes.set(xlabel="milliseconds per gradient step", xlim=(0, 1.2 * max(middles)))
        axes.invert_yaxis()
    figure.suptitle((RESULTS / "gpu_machine.txt").read_text().strip(), fontsize=9)
    figure.savefig(RESULTS / "gpu.png", dpi=90)


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def measure_all() -> None:
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", message="cuda_graphs")
    th.set_num_threads(1)
    versions = f"PyTorch {th.__version__.split('+')[0]}, CUDA {th.version.cuda}"
    title = f"{th.cuda.get_device_name()}, {processor()}, {versions}"
    (RESULTS / "gpu_machine.txt").write_text(f"{title}\n")
    rows, differences = [], []
    for task, factories in TASKS.items():
        differences += same(task, factories(), 100)
        rows += measure(task, factories())
        for row in rows:
            if row["task"] == task:
                print(*row.values(), sep=" | ", flush=True)
        header = ["task", "name", "gradient steps", "largest difference", "largest parameter"]
        write(RESULTS / "gpu_same.csv", header, differences)
        write(RESULTS / "gpu.csv", list(rows[0]), [list(row.values()) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["measure", "draw"], default="measure")
    if parser.parse_args().command == "measure":
        measure_all()
    draw()


if __name__ == "__main__":
    main()
