"""Trainings of the Zoo that are killed end as if they had not been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_softac import DiscreteSAC, SoftAC_v1
from tests import interrupt
from tests.zoo.commands import ENVIRONMENT
from tests.zoo.commands import run_as_typed as run

COMMAND = ("train", "--eval-freq", 70, "--eval-episodes", 2, "--n-eval-envs", 2, "--seed", 3, "-n", 400)
SMALL = ("--hyperparams", "policy_kwargs:dict(net_arch=[8])", "batch_size:16", "buffer_size:200", "learning_starts:30")
SMALL += ("callback:'tests.interrupt.Interrupt'",)
TASKS = {
    "softac_v1": ("Pendulum-v1", SoftAC_v1, ("normalize:True",)),
    "discretesac": ("LunarLander-v3", DiscreteSAC, ("n_envs:2",)),
}
EVERY = {"SB3_SOFTAC_CHECKPOINT_EVERY": "50", "PYTHONPATH": str(Path(__file__).parents[2])}


def interrupted(folder, step, number, *arguments):
    """:return: Exit status of a command whose training sends itself a signal at that step."""
    command = [sys.executable, "-m", "sb3_softac.zoo", *map(str, arguments)]
    environment = {**ENVIRONMENT, **EVERY, **interrupt.at(step, number)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=200).returncode


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", TASKS)
def test_a_killed_training_ends_as_if_it_had_not_been(algorithm, tmp_path):
    env, cls, hyperparameters = TASKS[algorithm]
    arguments = (*COMMAND, "--algo", algorithm, "--env", env, *SMALL, *hyperparameters)
    straight, killed = tmp_path / f"straight/{algorithm}/{env}_1", tmp_path / f"killed/{algorithm}/{env}_1"
    run(tmp_path, "sb3_softac.zoo", *arguments, "--log-folder", "straight", **EVERY)
    kill, terminate = signal.SIGKILL, signal.SIGTERM
    assert interrupted(tmp_path, 130, kill, *arguments, "--log-folder", "killed") == -kill
    assert interrupted(tmp_path, 230, terminate, "resume", killed) == 128 + terminate
    assert interrupted(tmp_path, 330, kill, "resume", killed) == -kill
    run(tmp_path, "sb3_softac.zoo", "resume", killed, **EVERY)
    assert os.listdir(tmp_path / f"killed/{algorithm}") == [f"{env}_1"]
    first, second = (np.load(folder / "evaluations.npz") for folder in (straight, killed))
    assert len(first["timesteps"]) >= 5
    assert all(np.array_equal(first[name], second[name]) for name in first.files)
    for name in (f"{env}.zip", "best_model.zip"):
        one, other = (cls.load(folder / name).get_parameters()["policy"] for folder in (straight, killed))
        assert all((one[key] == other[key]).all() for key in one)
    lines = [(folder / "0.monitor.csv").read_text().splitlines()[2:] for folder in (straight, killed)]
    assert len(lines[0]) >= 2
    assert [line.split(",")[:2] for line in lines[0]] == [line.split(",")[:2] for line in lines[1]]
