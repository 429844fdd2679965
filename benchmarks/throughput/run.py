"""
Environment steps and updates per second of sb3_softac and its peers: fresh processes in turns, one table, one plot.

    python3 -m venv peers/sbx && peers/sbx/bin/pip install torch==2.13.0 sbx-rl "gymnasium[mujoco]"
    python3 -m venv peers/tianshou && peers/tianshou/bin/pip install torch==2.13.0 tianshou==2.0.1
    python3 -m venv peers/torchrl && peers/torchrl/bin/pip install torch==2.13.0 torchrl==0.14.1 gymnasium
    python benchmarks/throughput/run.py --peers peers --rounds 3

``worker.py`` says what is measured. A round runs everybody once, so that a change of the machine's speed hits all, and ratios
are taken within a round. Each run leaves ``results/throughput/<threads>_threads/<name>_<round>.json``; a run whose file exists
is skipped, so an interrupted sweep is continued by the same command. A peer whose environment is not there is left out.

Each process is bound to as many cores as threads are asked for.

``softac_v1_plain`` and ``discrete_sac_plain`` are the gradient steps in PyTorch (``SB3_SOFTAC_FAST=0``).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sb3_softac.study.plots import colour_of
from sb3_softac.study.training import processor

RESULTS = Path(__file__).parents[1] / "results" / "throughput"
# Names with an interpreter of their own, which is in this folder of --peers
PEERS = {
    "sbx_sac": "sbx",
    "tianshou": "tianshou",
    "tianshou_fused": "tianshou",
    "torchrl": "torchrl",
    "torchrl_fused": "torchrl",
}
# By title: ours, and whom it is compared with
TASKS = {
    "Walker2d-v4, batch 256": ("softac_v1", ("softac_v1", "softac_v1_plain", "sac", "sac_fused", "sbx_sac")),
    "CartPole-v1, batch 64": (
        "discrete_sac",
        ("discrete_sac", "discrete_sac_plain", "dqn", "tianshou", "tianshou_fused", "torchrl", "torchrl_fused"),
    ),
}
LABELS = {
    "softac_v1": "SoftAC_v1",
    "softac_v1_plain": "SoftAC_v1 in PyTorch",
    "sac": "SB3 SAC",
    "sac_fused": "SB3 SAC, fused Adam",
    "sbx_sac": "SBX SAC (JAX)",
    "discrete_sac": "DiscreteSAC",
    "discrete_sac_plain": "DiscreteSAC in PyTorch",
    "dqn": "SB3 DQN",
    "tianshou": "Tianshou discrete SAC",
    "tianshou_fused": "Tianshou, fused Adam",
    "torchrl": "TorchRL discrete SAC",
    "torchrl_fused": "TorchRL, fused Adam",
}


def python_of(package: str, peers: Path) -> str | None:
    """:return: Interpreter of a peer; None if its environment is not there."""
    path = peers / package / "bin" / "python" if package else Path(sys.executable)
    return str(path) if path.exists() else None


def run(name: str, number: int, threads: int, peers: Path, folder: Path) -> None:
    path, python = folder / f"{name}_{number}.json", python_of(PEERS.get(name, ""), peers)
    if path.exists() or python is None:
        print(f"{name}, round {number}: {'there already' if python else 'no environment'}", flush=True)
        return
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    xla = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
    command = [python, str(Path(__file__).with_name("worker.py")), name, "--threads", str(threads)]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **limits, "XLA_FLAGS": xla, "RL_LOGGING_LEVEL": "ERROR"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # XLA takes all cores that it sees, whatever its flags say
    )
    if done.returncode:
        print(f"{name}, round {number}: failed, see its error above", flush=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_text(done.stdout)
    os.replace(partial, path)
    print(f"{name}, round {number}: {done.stdout.strip()}", flush=True)


def spread(values: list[float], digits: int = 2) -> str:
    """:return: Median and range of one number per round."""
    if not values:
        return "-"
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def read(folder: Path) -> dict[int, dict[str, dict[str, float]]]:
    """:return: What was measured, by round and name."""
    rounds: dict[int, dict[str, dict[str, float]]] = {}
    for path in sorted(folder.glob("*.json")):
        name, number = path.stem.rsplit("_", 1)
        rounds.setdefault(int(number), {})[name] = json.loads(path.read_text())
    return rounds


def summary(folder: Path) -> list[dict[str, str]]:
    """:return: One row per peer: update and loop, and how many times as fast as it ours is in the same round."""
    rounds = read(folder)
    rows = []
    for title, (ours, names) in TASKS.items():
        for name in names:
            pairs = [(runs[ours], runs[name]) for runs in rounds.values() if ours in runs and name in runs]
            if pairs:
                row = {"task": title, "name": LABELS[name]}
                for key, what in (("train", "update"), ("loop", "loop")):
                    row[f"{what}, ms"] = spread([run[key] for _, run in pairs])
                    faster = spread([run[key] / mine[key] for mine, run in pairs])
                    row[f"{what}: ours is times as fast"] = "" if name == ours else faster
                rows.append({**row, "rounds": str(len(pairs))})
    return rows


def draw(folder: Path, path: Path) -> None:
    """Milliseconds of an update and of a step of the loop: medians over the rounds, and their range."""
    rounds = read(folder)
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for axis_row, (title, (ours, names)) in zip(axes, TASKS.items(), strict=True):
        there = [name for name in names if any(name in runs for runs in rounds.values())]
        for axis, (key, what) in zip(axis_row, {"train": "gradient step", "loop": "whole loop"}.items(), strict=True):
            times = [[runs[name][key] for runs in rounds.values() if name in runs] for name in there]
            middle = np.array([np.median(values) for values in times])
            ends = np.array([[m - min(values), max(values) - m] for m, values in zip(middle, times, strict=True)]).T
            labels = [LABELS[name] for name in there]
            colours = [colour_of(label.replace("discrete SAC", "DiscreteSAC")) for label in labels]
            bars = axis.barh(labels, middle, xerr=ends, color=colours, ecolor="0.3", capsize=2)
            for bar, name in zip(bars, there, strict=True):
                bar.set_alpha(1.0 if name == ours else 0.4)
            axis.set(title=f"{title}: {what}", xlabel="milliseconds per step")
        axis.invert_yaxis()  # both share it
    figure.suptitle(f"{processor()}; threads: {folder.name.split('_')[0]}")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder with the peers' environments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--names", nargs="+", choices=list(LABELS), default=list(LABELS))
    args = parser.parse_args()
    folder = RESULTS / f"{args.threads}_threads"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(args.rounds):
        for name in args.names:
            run(name, number, args.threads, args.peers, folder)
    table = pd.DataFrame(summary(folder))
    table.to_csv(f"{folder}_summary.csv", index=False)
    draw(folder, Path(f"{folder}.png"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
