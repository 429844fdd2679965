"""A study on a Ray cluster of two nodes, of which one is lost: the same numbers as without Ray."""

import subprocess
import sys
from concurrent.futures import Future

import pytest

from sb3_softac.study import read_study
from sb3_softac.study.processes import failure_of
from sb3_softac.study.results import read_results, write_failure
from sb3_softac.study.training import work
from tests.study.test_run import ENVIRONMENT, assert_same_results, declare, few

pytest.importorskip("ray", reason="Ray is not installed: pip install 'sb3_softac[cluster]'")

# In a process of its own: what Ray starts and warns about is not the tests'
DRILL = """
import sys, threading, time
from contextlib import suppress
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from sb3_softac.study.__main__ import main

path = sys.argv[1]
# Soon, but not so soon that a node without CPU time for some seconds counts as lost
NOTICED_SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": NOTICED_SOON})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
killed = []


def kill():
    while True:
        at = []
        # Not rglob: it looks into the folders of checkpoints too, which are renamed meanwhile
        for file in Path(path).with_suffix("").glob("runs/*/*/*/progress"):
            with suppress(OSError, ValueError):  # the run has ended, or the file is being written
                at.append(int(file.read_text()))
        if len(at) >= 2 and min(at) >= 150:
            cluster.remove_node(nodes[0], allow_graceful=False)
            killed.append(time.time())
            return
        time.sleep(0.02)


threading.Thread(target=kill, daemon=True).start()
code = main(["run", path, "--engine", "ray", "--address", cluster.address])
assert killed, "no node was killed"
print("exit code", code)
sys.exit(code)
"""


def failed(message):
    future = Future()
    future.set_exception(RuntimeError(message))
    return future


def test_why_a_run_failed(tmp_path):
    """What it wrote itself; of a process that died, what Ray says."""
    study = read_study(declare(tmp_path, few(a=("seeds: 1", "seeds: 2"))))
    own, died = study.runs
    write_failure(study, own, "ValueError: out of luck\n\nTraceback ...")
    assert failure_of(study, own, failed("RayTaskError")).startswith("ValueError: out of luck (see ")
    message = "The worker died unexpectedly while executing this task.\n\tworker_id: 1"
    assert failure_of(study, died, failed(message)).startswith(f"{' '.join(message.split())} (see ")
    assert message in study.failure_of(died).read_text()
    assert [one.why.partition(".")[0] for one in read_results(study)[2]] == [
        "failed: ValueError: out of luck",
        "failed: The worker died unexpectedly while executing this task",
    ]


@pytest.mark.drill  # two programs that start Ray at a time find each other's cluster
def test_a_run_that_fails(tmp_path):
    """With its traceback, although Ray shows no log."""
    path = declare(tmp_path, few(a=("tests.interrupt.Interrupt", "tests.study.test_run.Broken")))
    command = [sys.executable, "-m", "sb3_softac.study", "run", str(path), "--engine", "ray"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "failed: softac_v1/Pendulum-v1/0: RuntimeError: an accident (" in done.stderr
    study = read_study(path)
    assert "Traceback" in study.failure_of(study.runs[0]).read_text()


@pytest.mark.slow
def test_a_lost_node(tmp_path):
    text = few(a=("seeds: 1", "seeds: 3"), b=("n_timesteps: 300", "n_timesteps: 1200"))
    local, path = read_study(declare(tmp_path / "local", text)), declare(tmp_path / "cluster", text)
    for run in local.runs:
        work(local, run)
    environment = {**ENVIRONMENT, "RAY_worker_niceness": "0"}  # Ray's 15 would let any other process on the machine go first
    drill = subprocess.run(
        [sys.executable, "-c", DRILL, str(path)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert drill.returncode == 0, drill.stdout[-3000:] + drill.stderr[-3000:]
    assert_same_results(read_study(path), local)
