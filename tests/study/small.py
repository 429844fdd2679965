"""A small study for the tests: its file, its results, and its processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from sb3_softac.study import read_study

SMALL = {
    "algorithms": {"softac_v1": None},
    "environments": {"Pendulum-v1": None},
    "seeds": 1,
    "n_timesteps": 300,
    "hyperparams": {
        "callback": "tests.interrupt.Interrupt",
        "policy_kwargs": {"net_arch": [8]},
        "batch_size": 16,
        "buffer_size": 500,
        "learning_starts": 50,
    },
    "evaluation": {"every": 100, "episodes": 2, "modes": ["deterministic", "stochastic"]},
    "checkpoint_every": 50,
}
NO_TRAINING = {"hyperparams": {}, "seeds": 3, "n_timesteps": 1000, "evaluation": {"every": 250, "episodes": 2}}
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path(__file__).parents[2])}


def declare(folder, **changes):
    """Write the file of a small study, with other values of some keys."""
    folder.mkdir(exist_ok=True)
    path = folder / "small.yml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def declared(folder, **changes):
    return read_study(declare(folder, **changes))


def write_result(study, run, steps=(250, 500, 750, 1000), value=1.0, to=None, **changes):
    """Write a result whose returns are the sum of the evaluation's number, ten times the seed, and a value."""
    path = to or study.result_of(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.array(steps, int)
    returns = np.arange(len(steps))[:, None] + 10.0 * run.seed + value * np.ones((1, run.evaluation_episodes))
    content = {
        "timesteps": steps,
        **{mode: returns.astype(np.float32) + k for k, mode in enumerate(run.evaluation_modes)},
        "seconds": steps / 100,
        "train_returns": np.arange(len(steps), dtype=np.float32),
        "train_timesteps": steps,
        "declaration": np.array(run.as_json()),
        "versions": np.array(json.dumps({"torch": "2"})),
    }
    np.savez(path, **{**content, **changes})
    return path


def write_results(study, **changes):
    for run in study.runs:
        write_result(study, run, **changes)


def numbers(study, run):
    """All numbers of a result except times and versions."""
    with np.load(study.result_of(run)) as data:
        return {name: data[name].tolist() for name in data.files if name not in ("seconds", "versions")}


def assert_same_results(first, second):
    assert [run.id for run in first.runs] == [run.id for run in second.runs]
    for run in first.runs:
        assert numbers(first, run) == numbers(second, run), run.id


def start(path, *arguments, **environment):
    """Start a study in a process."""
    command = [sys.executable, "-m", "sb3_softac.study", "run", str(path), *arguments]
    with open(path.with_suffix(".txt"), "ab") as output:
        return subprocess.Popen(
            command,
            env={**ENVIRONMENT, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of shells ignore it
        )
