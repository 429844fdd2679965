"""Studies that run, are killed and go on, and are reported."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sb3_softac.study import StudyError, local, read_study
from sb3_softac.study.__main__ import main, parse
from sb3_softac.study.progress import steps_of
from sb3_softac.study.report import write_report
from sb3_softac.study.results import read_results
from sb3_softac.study.worker import work
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
    monkeypatch.setattr(local, "run_locally", lambda study, runs, jobs: taken.append(runs) or {})
    path = declare(tmp_path)
    for part in (1, 2, 3):
        assert main(["run", str(path), "--shard", f"{part}/3"]) == 0
    assert sorted(map(len, taken)) == [2, 3, 3]
    assert sorted(run.id for runs in taken for run in runs) == sorted(run.id for run in read_study(path).runs)


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
