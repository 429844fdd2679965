"""Studies in processes, here and on Ray: killed and continued, failed, and in parts."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from sb3_softac.study import processes, read_study
from sb3_softac.study.__main__ import main, parse
from sb3_softac.study.processes import LocalProcesses, RunFailed, failure_of, steps_of
from sb3_softac.study.results import failure_reason, read_results, write_failure
from sb3_softac.study.training import work
from tests import interrupt
from tests.study.small import assert_same_results, declare, declared, start

ALL = {  # of several algorithms and environments
    "algorithms": {"softac_v1": None, "SAC, fixed": {"algo": "sac", "hyperparams": {"ent_coef": 0.2}}},
    "environments": {
        "Pendulum-v1": None,
        "MountainCarContinuous-v0": {
            "hyperparams": {"use_sde": False, "train_freq": 1, "gradient_steps": 1, "policy": "MlpPolicy"}
        },
    },
    "seeds": 2,
}


def newest(study, run):
    """Step of a run's newest checkpoint."""
    names = [path.name for path in (study.folder_of(run) / "checkpoints").glob("checkpoint-*")]
    return max((int(re.sub(r"\D", "", name)) for name in names), default=0)


def wait_for(study, steps, process, reached=newest):
    """Wait until some run has come to that step."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if any(reached(study, run) >= steps for run in study.runs):
            return
        time.sleep(0.01)
    raise AssertionError("no run has come that far")


def test_arguments(tmp_path, monkeypatch, capsys):
    path = declare(tmp_path)
    assert main(["run", str(path), "--jobs", "0"]) == 2
    for text in ("0/2", "3/2", "a", "1/0"):
        with pytest.raises(SystemExit):
            parse(["run", str(path), "--shard", text])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert parse(["run", str(path)]).address == "local"  # never a cluster that happens to run
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", str(path), "--engine", "ray"]) == 2
    assert "pip install 'sb3_softac[cluster]'" in capsys.readouterr().err


def test_no_cluster_at_the_address(tmp_path, monkeypatch, capsys):
    def init(**arguments):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    assert main(["run", str(declare(tmp_path)), "--engine", "ray", "--address", "auto"]) == 2
    assert "error: --address auto: Could not find any running Ray instance." in capsys.readouterr().err


@pytest.mark.parametrize("key", ["output", "results"])
def test_a_folder_that_cannot_be_written(tmp_path, capsys, key):
    (tmp_path / "file").write_text("")
    assert main(["run", str(declare(tmp_path, **{key: "file/x"}))]) == 2
    assert f"{key}: nothing can be written to {tmp_path}/file/x" in capsys.readouterr().err


def test_shards_are_the_whole(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(processes, "run_locally", lambda study, runs, jobs: taken.append(runs) or {})
    path = declare(tmp_path, **ALL)
    for part in (1, 2, 3):
        assert main(["run", str(path), "--shard", f"{part}/3"]) == 0
    assert sorted(map(len, taken)) == [2, 3, 3]
    assert sorted(run.id for runs in taken for run in runs) == sorted(run.id for run in read_study(path).runs)


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    changes = ALL | {"seeds": 1}
    uninterrupted, path = declared(tmp_path / "uninterrupted", **changes), declare(tmp_path / "killed", **changes)
    for run in uninterrupted.runs:
        work(uninterrupted, run)
    study = read_study(path)
    process = start(path, "--jobs", "2", **interrupt.at(170, signal.SIGSTOP))
    wait_for(study, 150, process)
    interrupt.kill_all(process)
    assert any(newest(study, run) for run in study.runs)
    assert not [result for result in study.results.rglob("*.npz") if "partial" not in result.name]
    assert start(path, "--jobs", "2").wait(600) == 0
    assert_same_results(study, uninterrupted)
    results, partial, missing = read_results(study)
    assert len(results) == 4 and not partial and not missing and not list(study.results.rglob("*.partial.npz"))


@pytest.mark.slow
def test_children_that_outlive_the_study(tmp_path, trained):
    """The study alone is killed: a second one waits for the run that is still under way."""
    path = declare(tmp_path)
    study = read_study(path)
    process = start(path)
    wait_for(study, 100, process)
    process.kill()
    process.wait()
    assert start(path).wait(300) == 0
    assert_same_results(study, trained)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_terminated(tmp_path, number, code):
    """The study has its runs save a checkpoint and end, also if a job manager has told them so already."""
    path = declare(tmp_path, n_timesteps=1_000_000, checkpoint_every=1_000_000)
    study = read_study(path)
    process = start(path, "--jobs", "1")
    wait_for(study, 150, process, reached=steps_of)
    children = [
        int(child)
        for of_thread in Path(f"/proc/{process.pid}/task").glob("*/children")
        for child in of_thread.read_text().split()
    ]
    assert len(children) == 1
    os.kill(children[0], number)
    os.killpg(process.pid, number)
    assert process.wait(120) == code
    assert newest(study, study.runs[0]) >= 150  # saved on the signal


def replace_work(monkeypatch, code):
    """Have processes run some code in the place of the training."""
    popen = subprocess.Popen

    def replaced(command, **kwargs):
        assert command[1:] == ["-m", "sb3_softac.study", "work"]
        return popen([sys.executable, "-S", "-c", code], **kwargs)

    monkeypatch.setattr(processes.subprocess, "Popen", replaced)


KILL = "import os; print('training', flush=True); os.kill(os.getpid(), {})"
ENDS = {  # code of a process: reason and exit code
    "import sys; print('what'); print('why'); sys.exit(3)": ("ended without a result or an error; its last output: why", 3),
    "import os; os._exit(4)": ("ended without a result or an error; no output", 4),
    "pass": ("ended without a result or an error; no output", 0),
    KILL.format(9): ("killed by signal 9 (SIGKILL), perhaps because memory ran out", -9),
    KILL.format(11): ("killed by signal 11 (SIGSEGV)", -11),
    "import sys; print('saved'); sys.exit(143)": ("interrupted by SIGTERM; the same command continues it", 143),
}


@pytest.mark.parametrize("code", ENDS)
def test_how_a_process_ended(tmp_path, monkeypatch, code):
    reason, exit_code = ENDS[code]
    study = declared(tmp_path)
    replace_work(monkeypatch, code)
    write_failure(study, study.runs[0], "of an earlier start")
    with pytest.raises(RunFailed) as caught:
        LocalProcesses(study).complete(study.runs[0])
    assert str(caught.value).startswith(f"{reason} (exit code {exit_code}, see ") and "log.txt" in str(caught.value)
    is_failure = exit_code != 143
    assert failure_reason(study, study.runs[0]) == (reason if is_failure else None)
    assert read_results(study)[2][0].why == (f"failed: {reason}" if is_failure else "not started")


def test_a_process_that_is_ended_before_it_can_save_is_no_failure(tmp_path, monkeypatch):
    study = declared(tmp_path)
    replace_work(monkeypatch, "import time; time.sleep(60)")
    alone = LocalProcesses(study)
    with ThreadPoolExecutor() as pool:
        future = pool.submit(alone.complete, study.runs[0])
        while not alone._running:
            time.sleep(0.01)
        alone.terminate()
        assert "SIGTERM" in str(future.exception())
    assert failure_reason(study, study.runs[0]) is None


def test_a_process_that_cannot_be_started(tmp_path, monkeypatch):
    """It stops no other run."""
    study = declared(tmp_path)

    def popen(*args, **kwargs):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    assert "cannot be started: [Errno 11] Resource" in processes.run_locally(study, list(study.runs), 1)[study.runs[0].id]


def test_a_file_that_changes_while_the_study_runs(tmp_path, monkeypatch):
    """Processes get the declaration as it was when the study started."""
    path = declare(tmp_path)
    study = read_study(path)
    path.write_text("nothing")
    taken = tmp_path / "taken"
    replace_work(monkeypatch, f"import sys; open({str(taken)!r}, 'wb').write(sys.stdin.buffer.read())")
    with pytest.raises(RunFailed):
        LocalProcesses(study).complete(study.runs[0])
    assert pickle.loads(taken.read_bytes()) == (study, study.runs[0])


def ended(error=None):
    future = Future()
    future.set_exception(error) if error else future.set_result(None)
    return future


def test_the_bar_of_a_failed_run_stays_where_it_was(tmp_path, monkeypatch):
    study = declared(tmp_path, seeds=2)
    for run, step in zip(study.runs, (300, 120), strict=True):
        study.folder_of(run).mkdir(parents=True)
        study.progress_of(run).write_text(str(step))
    shown = []
    monkeypatch.setattr(processes.Progress, "update", lambda self, task, **changes: shown.append((task, changes)))
    processes.watch(study, list(zip(study.runs, (ended(), ended(RunFailed("out of luck"))), strict=True)))
    assert shown[-1] == (0, {"completed": 420, "description": "small, steps (1 of 2 runs failed)"})


def test_why_a_run_failed_on_ray(tmp_path):
    """What it wrote itself; of a process that died, what Ray says."""
    study = declared(tmp_path, seeds=2)
    own, died = study.runs
    write_failure(study, own, "ValueError: out of luck\n\nTraceback ...")
    assert failure_of(study, own, ended(RuntimeError("RayTaskError"))).startswith("ValueError: out of luck (see ")
    message = "The worker died unexpectedly while executing this task.\n\tworker_id: 1"
    reason = failure_of(study, died, ended(RuntimeError(message)))
    assert reason.startswith(f"{' '.join(message.split())} (see ") and message in study.failure_of(died).read_text()


# In a process of its own: what Ray starts and warns about is not the tests'
LOSE_A_NODE = """
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
        steps = []
        # Not rglob: it looks into the folders of checkpoints too, which are renamed meanwhile
        for file in Path(path).with_suffix("").glob("runs/*/*/*/progress"):
            with suppress(OSError, ValueError):  # the run has ended, or the file is being written
                steps.append(int(file.read_text()))
        if len(steps) >= 2 and min(steps) >= 150:
            cluster.remove_node(nodes[0], allow_graceful=False)
            killed.append(time.time())
            return
        time.sleep(0.02)


threading.Thread(target=kill, daemon=True).start()
code = main(["run", path, "--engine", "ray", "--address", cluster.address])
assert killed, "no node was killed"
sys.exit(code)
"""


@pytest.mark.slow
def test_a_lost_node(tmp_path, ray_environment):
    """The same numbers as without Ray."""
    local, path = (declare(tmp_path / name, seeds=3, n_timesteps=1200) for name in ("local", "cluster"))
    local = read_study(local)
    for run in local.runs:
        work(local, run)
    environment = {**ray_environment, "RAY_worker_niceness": "0"}  # Ray's 15 would let any other process go first
    done = subprocess.run(
        [sys.executable, "-c", LOSE_A_NODE, str(path)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert_same_results(read_study(path), local)
