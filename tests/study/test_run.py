"""Studies that run, are killed and go on, and are reported."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac.study import StudyError, processes, read_study
from sb3_softac.study.__main__ import main, parse
from sb3_softac.study.processes import LocalProcesses, RunFailed, steps_of
from sb3_softac.study.report import write_report
from sb3_softac.study.results import failure_reason, read_results, write_failure
from sb3_softac.study.training import work
from tests import interrupt

FILE = """
algorithms:
  softac_v1:
  SAC, fixed: {algo: sac, hyperparams: {ent_coef: 0.2}}
environments:
  Pendulum-v1:
  MountainCarContinuous-v0: {hyperparams: {use_sde: false, train_freq: 1, gradient_steps: 1, policy: MlpPolicy}}
seeds: 2
n_timesteps: 300
hyperparams:
  callback: tests.interrupt.Interrupt
  policy_kwargs: {net_arch: [8]}
  batch_size: 16
  buffer_size: 500
  learning_starts: 50
evaluation: {every: 100, episodes: 2, modes: [deterministic, stochastic]}
checkpoint_every: 50
"""
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path(__file__).parents[2])}


def declare(folder, text=FILE):
    folder.mkdir(exist_ok=True)
    path = folder / "small.yml"
    path.write_text(text)
    return path


def few(**changes):
    """The file with one algorithm, environment and seed."""
    text = FILE.replace("seeds: 2", "seeds: 1").replace(FILE[FILE.index("  SAC, fixed") : FILE.index("environments:")], "")
    text = text.replace(text[text.index("  MountainCar") : text.index("seeds:")], "")
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    return text


def numbers(study, run):
    """All numbers of a result but the times."""
    with np.load(study.result_of(run)) as data:
        return {name: data[name].tolist() for name in data.files if name not in ("seconds", "versions")}


def assert_same_results(first, second):
    assert [run.id for run in first.runs] == [run.id for run in second.runs]
    for run in first.runs:
        assert numbers(first, run) == numbers(second, run), run.id


def start(path, *arguments, **environment):
    command = [sys.executable, "-m", "sb3_softac.study", "run", str(path), *arguments]
    with open(path.with_suffix(".txt"), "ab") as output:
        return subprocess.Popen(
            command,
            env={**ENVIRONMENT, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # shells have programs in the background ignore it
        )


def checkpoints(study, run):
    """Steps of a run's checkpoints."""
    return [int(re.sub(r"\D", "", path.name)) for path in (study.folder_of(run) / "checkpoints").glob("checkpoint-*")]


def newest(study, run):
    """Step of a run's newest checkpoint."""
    return max(checkpoints(study, run), default=0)


def wait_for(study, steps, process, reached=newest):
    """Wait until some run has come to that step."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if any(reached(study, run) >= steps for run in study.runs):
            return
        time.sleep(0.01)
    raise AssertionError("no run has come that far")


def test_a_run_is_what_the_zoo_makes_of_it(tmp_path):
    study = read_study(declare(tmp_path, few()))
    (run,) = study.runs
    work(study, run)
    with np.load(study.result_of(run)) as data:
        assert data["timesteps"].tolist() == [100, 200, 300]
        assert data["deterministic"].shape == data["stochastic"].shape == (3, 2)
        assert not np.array_equal(data["deterministic"], data["stochastic"])
        assert (np.diff(data["seconds"]) > 0).all() and data["seconds"][0] > 0
        assert data["train_timesteps"].tolist() == [200] and data["train_returns"].shape == (1,)
        assert '"seed": 0' in str(data["declaration"]) and '"torch"' in str(data["versions"])
        assert str(tmp_path) not in str(data["declaration"]) + str(data["versions"])
        assert re.fullmatch("[0-9a-f]{40}(-dirty)?|release", json.loads(str(data["versions"]))["commit"])
    zoo = study.folder_of(run) / "zoo"
    assert {"best_model.zip", "Pendulum-v1.zip", "Pendulum-v1", "0.monitor.csv"} <= {path.name for path in zoo.iterdir()}
    assert not (study.folder_of(run) / "checkpoints").exists() and not study.progress_of(run).exists()
    before = study.result_of(run).stat()
    work(study, run)  # done already
    assert study.result_of(run).stat() == before


def test_a_result_holds_the_declaration_of_the_file(tmp_path):
    """SB3's SAC writes into the policy_kwargs that it is given."""
    text = few(a=("  softac_v1:\n", "  sac:\n"), b=("n_timesteps: 300", "n_timesteps: 100"))
    study = read_study(declare(tmp_path, text))
    (run,) = study.runs
    declared = run.as_json()
    work(study, run)
    with np.load(study.result_of(run)) as data:
        written = json.loads(str(data["declaration"]))
    assert written.pop("defaults")["learning_rate"] == 1e-3  # of the Zoo's file
    assert written == json.loads(run.as_json()) == json.loads(declared)


def test_evaluations_do_not_change_the_training(tmp_path):
    first = read_study(declare(tmp_path / "a", few()))
    second = read_study(
        declare(tmp_path / "b", few(a=("every: 100, episodes: 2, modes: [deterministic, stochastic]", "every: 300")))
    )
    for study in (first, second):
        work(study, study.runs[0])
    found = [numbers(study, study.runs[0]) for study in (first, second)]
    assert found[0]["train_returns"] == found[1]["train_returns"] and len(found[1]["deterministic"]) == 1


def test_a_declaration_that_changed_under_the_run(tmp_path):
    study = read_study(declare(tmp_path, few()))
    written = study.declaration_of(study.runs[0])
    written.parent.mkdir(parents=True)
    written.write_text(study.runs[0].as_json().replace("300", "200"))
    with pytest.raises(StudyError, match=r"n_timesteps: 200 -> 300"):
        work(study, study.runs[0])
    assert main(["run", str(tmp_path / "small.yml")]) == 2


def test_bad_files_and_arguments(tmp_path, capsys):
    assert main(["run", str(declare(tmp_path, FILE.replace("seeds", "sedes")))]) == 2
    assert "did you mean 'seeds'" in capsys.readouterr().err
    path = declare(tmp_path, FILE.replace("softac_v1:", "softac_v2:"))
    assert main(["run", str(path)]) == 2
    assert "did you mean 'softac_v1'" in capsys.readouterr().err
    path = declare(tmp_path)
    assert main(["run", str(path), "--jobs", "0"]) == 2
    for text in ("0/2", "3/2", "a", "1/0"):
        with pytest.raises(SystemExit):
            parse(["run", str(path), "--shard", text])
    assert parse(["run", str(path), "--shard", "2/3"]).shard == (2, 3)


def test_missing_ray(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["run", str(declare(tmp_path)), "--engine", "ray"]) == 2
    assert "pip install 'sb3_softac[cluster]'" in capsys.readouterr().err


@pytest.fixture
def uninterrupted(tmp_path):
    """The whole study, in this process."""
    study = read_study(declare(tmp_path / "uninterrupted"))
    for run in study.runs:
        work(study, run)
    return study


@pytest.mark.slow
def test_killed_and_resumed(tmp_path, uninterrupted):
    path = declare(tmp_path / "killed")
    study = read_study(path)
    process = start(path, "--jobs", "2", **interrupt.at(170, signal.SIGSTOP))
    wait_for(study, 150, process)
    interrupt.kill_all(process)
    assert any(newest(study, run) for run in study.runs)
    assert not [result for result in study.results.rglob("*.npz") if "partial" not in result.name]
    process = start(path, "--jobs", "2")
    assert process.wait(600) == 0
    assert_same_results(study, uninterrupted)
    results, cut, missing = read_results(study)
    assert len(results) == 8 and not cut and not missing
    assert not list(study.results.rglob("*.partial.npz"))


@pytest.mark.slow
def test_children_that_outlive_the_study(tmp_path):
    """The study alone is killed: a second one waits for the run that is still under way."""
    path, alone = declare(tmp_path, few()), read_study(declare(tmp_path / "alone", few()))
    study = read_study(path)
    process = start(path)
    wait_for(study, 100, process)
    process.kill()
    process.wait()
    assert start(path).wait(300) == 0
    work(alone, alone.runs[0])
    assert_same_results(study, alone)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_terminated(tmp_path, number, code):
    """The study has its runs save a checkpoint and end."""
    path = declare(
        tmp_path,
        few(a=("n_timesteps: 300", "n_timesteps: 1_000_000"), b=("checkpoint_every: 50", "checkpoint_every: 1_000_000")),
    )
    study = read_study(path)
    process = start(path, "--jobs", "1")
    wait_for(study, 150, process, reached=steps_of)
    os.killpg(process.pid, number)
    assert process.wait(120) == code
    assert newest(study, study.runs[0]) >= 150  # saved on the signal


def test_shards_are_the_whole(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(processes, "run_locally", lambda study, runs, jobs: taken.append(runs) or {})
    path = declare(tmp_path)
    for part in (1, 2, 3):
        assert main(["run", str(path), "--shard", f"{part}/3"]) == 0
    assert sorted(map(len, taken)) == [2, 3, 3]
    assert sorted(run.id for runs in taken for run in runs) == sorted(run.id for run in read_study(path).runs)


def fake_work(monkeypatch, code):
    """Processes that run some code in the place of the training."""

    def popen(command, **kwargs):
        assert command[1:] == ["-m", "sb3_softac.study", "work"]
        return subprocess_popen([sys.executable, "-S", "-c", code], **kwargs)

    subprocess_popen = subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", popen)


ENDS = {
    "the last line": (
        "import sys; print('what'); print('why'); sys.exit(3)",
        "ended without a result or an error; its last output: why (exit code 3",
        "ended without a result or an error; its last output: why",
    ),
    "nothing said": (
        "import os; os._exit(4)",
        "ended without a result or an error; no output (exit code 4",
        "ended without a result or an error; no output",
    ),
    "as if all were well": (
        "pass",
        "ended without a result or an error; no output (exit code 0",
        "ended without a result or an error; no output",
    ),
    "killed": (
        "import os; print('training', flush=True); os.kill(os.getpid(), 9)",
        "killed by signal 9 (SIGKILL), perhaps because memory ran out (exit code -9",
        "killed by signal 9 (SIGKILL), perhaps because memory ran out",
    ),
    "a segmentation fault": (
        "import os; print('training', flush=True); os.kill(os.getpid(), 11)",
        "killed by signal 11 (SIGSEGV) (exit code -11",
        "killed by signal 11 (SIGSEGV)",
    ),
    "interrupted": ("import sys; print('saved'); sys.exit(143)", "interrupted by SIGTERM; the same command continues", None),
}


@pytest.mark.parametrize("what", ENDS)
def test_how_a_process_ended(tmp_path, monkeypatch, what):
    code, said, listed = ENDS[what]
    study = read_study(declare(tmp_path, few()))
    fake_work(monkeypatch, code)
    write_failure(study, study.runs[0], "of an earlier start")
    with pytest.raises(RunFailed) as caught:
        LocalProcesses(study).complete(study.runs[0])
    reason = str(caught.value)
    assert reason.startswith(said) and "log.txt" in reason
    assert failure_reason(study, study.runs[0]) == listed
    assert read_results(study)[2][0].why == ("not started" if listed is None else f"failed: {listed}")


def test_a_process_that_cannot_be_started(tmp_path, monkeypatch):
    """Stops no other run."""
    study = read_study(declare(tmp_path, few()))

    def popen(*args, **kwargs):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    assert "cannot be started: [Errno 11] Resource" in processes.run_locally(study, list(study.runs), 1)[study.runs[0].id]


def test_the_bar_of_a_failed_run_stays_where_it_was(tmp_path, monkeypatch):
    study = read_study(declare(tmp_path, few(a=("seeds: 1", "seeds: 2"))))
    done, failed = study.runs
    for run, step in ((done, 300), (failed, 120)):
        study.folder_of(run).mkdir(parents=True)
        study.progress_of(run).write_text(str(step))
    shown = []
    monkeypatch.setattr(processes.Progress, "update", lambda self, task, **changes: shown.append((task, changes)))
    futures = Future(), Future()
    futures[0].set_result(None)
    futures[1].set_exception(RunFailed("out of luck"))
    processes.watch(study, list(zip(study.runs, futures, strict=True)))
    assert shown[-1] == (0, {"completed": 420, "description": "small, steps (1 of 2 runs failed)"})


ENDINGS = {"interrupt": KeyboardInterrupt(), "exit": SystemExit(0)}


class Broken(BaseCallback):
    """Ends a training as an accident or an interruption would."""

    def _on_step(self) -> bool:
        if self.num_timesteps == 150:
            raise ENDINGS.get(os.environ.get("BROKEN"), RuntimeError("an\n accident"))
        return True


BROKEN = ("tests.interrupt.Interrupt", "tests.study.test_run.Broken")


def test_a_run_that_fails_leaves_its_reason(tmp_path):
    study = read_study(declare(tmp_path, few(a=BROKEN)))
    (run,) = study.runs
    with pytest.raises(RuntimeError, match="accident"):
        work(study, run)
    assert re.fullmatch(r"RuntimeError: an accident \(.*test_run\.py, line \d+\)", failure_reason(study, run))
    assert "Traceback" in study.failure_of(run).read_text() and not study.result_of(run).exists()
    (cut,), (missing,) = read_results(study)[1:]
    assert cut.timesteps.tolist() == [100] and missing.why.startswith("failed: RuntimeError: an accident")


def test_a_run_that_ends_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "exit")
    study = read_study(declare(tmp_path, few(a=BROKEN)))
    (run,) = study.runs
    with pytest.raises(StudyError, match=r"the training ended the process: SystemExit: 0 \(.*test_run\.py, line \d+\)"):
        work(study, run)
    assert failure_reason(study, run).startswith("the training ended the process: SystemExit")


def test_an_interrupted_run_is_not_finished(tmp_path, monkeypatch):
    """RL Zoo saves the model of an interrupted training as if it were the last one."""
    study = read_study(declare(tmp_path, few(a=BROKEN)))
    monkeypatch.setenv("BROKEN", "interrupt")
    with pytest.raises(KeyboardInterrupt):
        work(study, study.runs[0])
    assert not study.result_of(study.runs[0]).exists() and failure_reason(study, study.runs[0]) is None


def test_a_damaged_result_is_made_again(tmp_path):
    study = read_study(declare(tmp_path, few(a=("n_timesteps: 300", "n_timesteps: 100"))))
    (run,) = study.runs
    work(study, run)
    whole, before = study.result_of(run), numbers(study, run)
    whole.write_bytes(whole.read_bytes()[:-100])
    write_failure(study, run, "of an earlier start")
    with pytest.warns(UserWarning, match=r"0\.npz cannot be read .* counts as not finished"):
        work(study, run)
    assert numbers(study, run) == before and failure_reason(study, run) is None


def test_a_folder_in_the_place_of_a_result(tmp_path):
    """Said before the training, not after it."""
    study = read_study(declare(tmp_path, few()))
    study.result_of(study.runs[0]).mkdir(parents=True)
    with pytest.raises(StudyError, match="is a folder"), pytest.warns(UserWarning, match="counts as not finished"):
        work(study, study.runs[0])
    assert not (study.folder_of(study.runs[0]) / "zoo").exists()


def test_a_result_is_on_disk_before_the_checkpoints_are_gone(tmp_path, monkeypatch):
    study = read_study(declare(tmp_path, few(a=("n_timesteps: 300", "n_timesteps: 100"))))
    (run,) = study.runs
    order = []

    def note(module, name):
        original = getattr(module, name)

        def noted(*args, **kwargs):
            place = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[-1])
            order.append((name, Path(place)))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, noted)

    for module, name in ((os, "fsync"), (os, "replace"), (shutil, "rmtree")):
        note(module, name)
    work(study, run)
    result, zoo = study.result_of(run), study.folder_of(run) / "zoo"
    at = order.index(("replace", result))
    assert order[at - 1] == ("fsync", result.with_name(f".0.npz.{os.getpid()}")) and order[at + 1] == ("fsync", result.parent)
    for path in (zoo, zoo / "Pendulum-v1.zip", zoo / "0.monitor.csv"):
        assert ("fsync", path) in order[:at]
    gone = order.index(("rmtree", study.folder_of(run) / "checkpoints"))
    assert at + 1 < gone
    declared = order.index(("replace", study.declaration_of(run)))
    assert order[declared - 1][0] == "fsync" and order[declared + 1] == ("fsync", study.folder_of(run))


def test_a_file_that_changes_while_the_study_runs(tmp_path, monkeypatch):
    """Processes get the declaration as it was when the study started."""
    path = declare(tmp_path, few())
    study = read_study(path)
    path.write_text("nothing")
    taken = tmp_path / "taken"
    fake_work(monkeypatch, f"import sys; open({str(taken)!r}, 'wb').write(sys.stdin.buffer.read())")
    with pytest.raises(RunFailed):
        LocalProcesses(study).complete(study.runs[0])
    assert pickle.loads(taken.read_bytes()) == (study, study.runs[0])


@pytest.mark.parametrize("key", ["output", "results"])
def test_a_folder_that_cannot_be_written(tmp_path, capsys, key):
    path = declare(tmp_path, few() + f"{key}: file/x\n")
    (tmp_path / "file").write_text("")
    assert main(["run", str(path)]) == 2
    assert f"{key}: nothing can be written to {tmp_path}/file/x" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_fails_stops_no_other(tmp_path, capsys):
    text = few(a=("seeds: 1", "seeds: 1\ngrid: {gamma: [0.9, 2.0]}"))
    path = declare(tmp_path, text)
    assert main(["run", str(path), "--jobs", "2"]) == 1
    assert re.search(r"failed: softac_v1/Pendulum-v1/gamma=2.0/0: .*gamma.*log\.txt", capsys.readouterr().err)
    study = read_study(path)
    results, _, missing = read_results(study)
    assert [result.run.varied for result in results] == [{"gamma": 0.9}] and len(missing) == 1
    assert "gamma=2.0/0" in write_report(study, tmp_path / "report").read_text()
