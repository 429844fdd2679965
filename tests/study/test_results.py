"""Results: what is read from any file, and what is known of a run without a result."""

import dataclasses
import io

import numpy as np
import pytest

from sb3_softac.study.results import (
    at_equal_steps,
    is_finished,
    read_result,
    read_results,
    shared_evaluations,
    write_failure,
)
from tests.study.small import NO_TRAINING, declared, write_result, write_results


@pytest.fixture
def study(tmp_path):
    """A study whose runs all have a result."""
    study = declared(tmp_path, **NO_TRAINING)
    write_results(study)
    return study


def reason(study):
    """Why the first run has no result; the others have theirs."""
    results, partial, missing = read_results(study)
    assert [result.run for result in results] == list(study.runs[1:]) and not partial
    (found,) = missing
    assert found.run == study.runs[0]
    return found.why


def test_runs_without_a_result(tmp_path):
    study = declared(tmp_path, **NO_TRAINING | {"seeds": 7})
    done, stopped, started, failed, changed, corrected, untouched = study.runs
    write_result(study, done)
    for run in (stopped, failed):
        write_result(study, run, (250, 500), to=study.partial_result_of(run))
    before = dataclasses.replace(corrected, hyperparams={"batch_size": -1})  # failed before its first checkpoint
    write_result(study, before, (250,), to=study.partial_result_of(corrected))
    write_failure(study, failed, "ValueError: out of luck (x.py, line 3)\n\nTraceback ...")
    write_failure(study, done, "of an earlier start")
    for run, text in ((started, started.as_json()), (changed, changed.as_json().replace("1000", "2000"))):
        (study.checkpoints_of(run) / "checkpoint-000000000100").mkdir(parents=True)
        study.declaration_of(run).write_text(text)
    results, partial, missing = read_results(study)
    assert [result.run for result in results] == [done] and [result.run for result in partial] == [stopped, failed]
    assert {one.run.seed: one.why for one in missing} == {
        stopped.seed: "stopped after step 500 of 1000, or still running",
        started.seed: "started",
        failed.seed: "failed: ValueError: out of luck (x.py, line 3)",
        changed.seed: "run with a different declaration (n_timesteps: 2000 -> 1000)",
        corrected.seed: "not started",
        untouched.seed: "not started",
    }


def npy():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped byte": lambda path: path.write_bytes(path.read_bytes()[:300] + b"\xff\xfe" + path.read_bytes()[302:]),
    "text": lambda path: path.write_text("nothing"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "an array alone": lambda path: path.write_bytes(npy()),
    "no returns": lambda path: np.savez(path, timesteps=np.arange(3)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_counts_as_none(study, damage):
    path = study.result_of(study.runs[0])
    DAMAGES[damage](path)
    assert str(path) in reason(study)
    with pytest.warns(UserWarning, match=r"softac_v1/Pendulum-v1/0\.npz.*counts as not finished"):
        assert not is_finished(study, study.runs[0])


@pytest.mark.parametrize(
    "change",
    [
        {"timesteps": np.arange(3)},
        {"timesteps": np.array(["a"] * 4)},
        {"timesteps": np.zeros((4, 4))},
        {"seconds": np.arange(3.0)},
        {"train_timesteps": np.arange(9)},
        {"versions": np.array("3")},
        {"versions": np.array("{")},
        {"deterministic": np.array([None, {}], object)},
    ],
)
def test_arrays_that_do_not_match(study, change):
    write_result(study, study.runs[0], **change)
    assert str(study.result_of(study.runs[0])) in reason(study)


def test_a_result_of_another_declaration(study):
    """Put back from a copy, for example: the folder of the run does not know of it."""
    first = study.runs[0]
    study.declaration_of(first).parent.mkdir(parents=True)
    study.declaration_of(first).write_text(first.as_json())
    assert len(read_results(study)[0]) == 3
    write_result(study, first, declaration=np.array(first.as_json().replace("1000", "2000")))
    assert reason(study) == "run with a different declaration (n_timesteps: 2000 -> 1000)"


def test_a_damaged_declaration(study):
    declaration = study.declaration_of(study.runs[0])
    (study.checkpoints_of(study.runs[0]) / "checkpoint-000000000100").mkdir(parents=True)
    declaration.write_text('{"algo": ')
    assert "run.json cannot be read" in reason(study)


def test_a_run_without_an_evaluation(study):
    """A callback has ended it before the first one, and would end it there again."""
    first = study.runs[0]
    path = write_result(study, first, (), train_returns=np.ones(1), train_timesteps=np.ones(1, int))
    assert len(read_result(first, path).timesteps) == 0
    assert reason(study) == "ended by a callback before the first evaluation" and is_finished(study, first)


def test_equal_steps(study):
    """A callback has stopped some of the runs."""
    for run in study.runs:
        write_result(study, run, range(250, 1001 - 250 * run.seed, 250))
    group = read_results(study)[0]
    assert [at.tolist() for at in shared_evaluations(group)] == [[0, 1]] * 3
    assert [result.timesteps.tolist() for result in at_equal_steps({"": group})[""]] == [[250, 500]] * 3
