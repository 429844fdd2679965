"""torchrun with the Zoo: one agent on two processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sb3_softac import SoftAC_v1
from tests import interrupt
from tests.zoo.commands import ENVIRONMENT, PENDULUM, SMALL

ROOT = str(Path(__file__).parents[2])
OPTIONS = ("learning_starts:30", "callback:'tests.interrupt.Interrupt'")
TRAIN = ("train", *PENDULUM, *SMALL, *OPTIONS, "--eval-freq", 100, "--eval-episodes", 1, "--seed", 5, "-n", 300)


def torchrun(folder, *arguments, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sb3_softac.zoo"]
    environment = {
        **ENVIRONMENT,
        "SB3_SOFTAC_CHECKPOINT_EVERY": "50",
        "TMPDIR": str(folder),
        "PYTHONPATH": ROOT,
        **environment,
    }
    command += [*map(str, arguments)]
    with open(folder / "output.txt", "a") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)


@pytest.mark.slow
def test_two_processes_train_one_agent(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process = torchrun(tmp_path, *TRAIN, "-f", straight)
    assert process.wait(300) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    run = straight / "softac_v1" / "Pendulum-v1_1"
    assert sorted(os.listdir(straight / "softac_v1")) == ["Pendulum-v1_1"]
    assert {"evaluations.npz", "best_model.zip", "Pendulum-v1.zip", "0.monitor.csv"} <= set(os.listdir(run))
    process = torchrun(tmp_path, *TRAIN, "-f", killed, **interrupt.at(150, signal.SIGSTOP))
    other = killed / "softac_v1" / "Pendulum-v1_1"
    deadline = time.monotonic() + 200
    while not (other / "checkpoints" / "rank_1" / "checkpoint-000000000100").exists():
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "output.txt").read_text()[-3000:]
        time.sleep(0.01)
    interrupt.kill_all(process)
    assert not (other / "Pendulum-v1.zip").exists()
    assert torchrun(tmp_path, "resume", other).wait(300) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    first, second = (SoftAC_v1.load(folder / "Pendulum-v1.zip").get_parameters()["policy"] for folder in (run, other))
    assert all((first[name] == second[name]).all() for name in first)
    with np.load(run / "evaluations.npz") as one, np.load(other / "evaluations.npz") as two:
        assert len(one["results"]) == 3 and np.array_equal(one["results"], two["results"])


@pytest.mark.slow
def test_a_callback_that_stops_one_process_stops_both(tmp_path):
    options = ("learning_starts:30", "callback:{'tests.zoo.stopping.StopOne': dict(rank=1, steps=70)}")
    process = torchrun(
        tmp_path, "train", *PENDULUM, *SMALL, *options, "--eval-freq", 50, "--eval-episodes", 1, "-n", 300, "-f", "logs"
    )
    assert process.wait(300) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    run = tmp_path / "logs" / "softac_v1" / "Pendulum-v1_1"
    model = SoftAC_v1.load(run / "Pendulum-v1.zip")
    assert model.num_timesteps == 70 and model._n_updates == 39  # none after the step that stops


@pytest.mark.slow
def test_no_search_on_several_processes(tmp_path):
    assert torchrun(tmp_path, *TRAIN, "-optimize").wait(200) != 0
    assert "start a separate program for each worker" in (tmp_path / "output.txt").read_text()
