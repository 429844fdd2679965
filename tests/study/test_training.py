"""One run: what the Zoo makes of it, resumed, failed, or finished already."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sb3_contrib import ARS
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac.study import StudyError
from sb3_softac.study.results import failure_reason, read_results, write_failure
from sb3_softac.study.training import work
from sb3_softac.study.user_code import freeze
from sb3_softac.study.validation import check_names
from tests.study.small import declared, numbers

SHORT = {"n_timesteps": 100}


def small(callback=None, **hyperparams):
    more = {"callback": f"{__name__}.{callback}"} if callback else {}
    return {"policy_kwargs": {"net_arch": [8]}, "batch_size": 16, "learning_starts": 50, **more, **hyperparams}


def test_a_run_is_what_the_zoo_makes_of_it(trained):
    (run,) = trained.runs
    with np.load(trained.result_of(run)) as data:
        assert data["timesteps"].tolist() == [100, 200, 300]
        assert data["deterministic"].shape == data["stochastic"].shape == (3, 2)
        assert not np.array_equal(data["deterministic"], data["stochastic"])
        assert (np.diff(data["seconds"]) > 0).all() and data["seconds"][0] > 0
        assert data["train_timesteps"].tolist() == [200] and data["train_returns"].shape == (1,)
        declaration, versions = str(data["declaration"]), str(data["versions"])
    assert '"seed": 0' in declaration and '"torch"' in versions and str(trained.output) not in declaration + versions
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?|release", json.loads(versions)["commit"])
    folder = trained.folder_of(run)
    files = {path.name for path in trained.zoo_folder_of(run).iterdir()}
    assert {"best_model.zip", "Pendulum-v1.zip", "Pendulum-v1", "0.monitor.csv"} <= files
    assert not (folder / "checkpoints").exists() and not trained.progress_of(run).exists()
    before = trained.result_of(run).stat()
    work(trained, run)  # finished already
    assert trained.result_of(run).stat() == before


def test_evaluations_do_not_change_the_training(trained, tmp_path):
    study = declared(tmp_path, evaluation={"every": 300})
    work(study, study.runs[0])
    first, second = numbers(trained, trained.runs[0]), numbers(study, study.runs[0])
    assert first["train_returns"] == second["train_returns"] and len(second["deterministic"]) == 1


def test_a_result_holds_the_declaration_of_the_file(tmp_path):
    """SB3's SAC writes into the policy_kwargs that it is given."""
    study = declared(tmp_path, algorithms=["sac"], **SHORT)
    (run,) = study.runs
    before = run.as_json()
    work(study, run)
    written = json.loads(numbers(study, run)["declaration"])
    assert written.pop("defaults")["learning_rate"] == 1e-3  # of the Zoo's file
    assert written == json.loads(run.as_json()) == json.loads(before)


def test_a_declaration_that_has_changed(tmp_path):
    study = declared(tmp_path)
    written = study.declaration_of(study.runs[0])
    (study.checkpoints_of(study.runs[0]) / "checkpoint-000000000100").mkdir(parents=True)
    written.write_text(study.runs[0].as_json().replace("300", "200"))
    with pytest.raises(StudyError, match=r"n_timesteps: 200 -> 300"):
        work(study, study.runs[0])


class Fail(BaseCallback):
    """Fails at a step."""

    error: BaseException = RuntimeError("an\n accident")

    def _on_step(self) -> bool:
        if self.num_timesteps == 110:
            raise self.error
        return True


class Exit(Fail):
    error = SystemExit(0)


class Interrupt(Fail):
    error = KeyboardInterrupt()


@pytest.mark.parametrize(
    ("callback", "error", "reason"),
    [
        ("Fail", RuntimeError, "RuntimeError: an accident"),
        ("Exit", StudyError, "the training ended the process: SystemExit: 0"),
    ],
)
def test_a_run_that_fails(tmp_path, callback, error, reason):
    study = declared(tmp_path, hyperparams=small(callback))
    (run,) = study.runs
    with pytest.raises(error):
        work(study, run)
    assert re.fullmatch(rf"{reason} \(.*test_training\.py, line \d+\)", failure_reason(study, run))
    assert "Traceback" in study.failure_of(run).read_text() and not study.result_of(run).exists()
    (partial,), (missing,) = read_results(study)[1:]
    assert partial.timesteps.tolist() == [100] and missing.why.startswith(f"failed: {reason}")


def test_an_interrupted_run_is_not_finished(tmp_path):
    """RL Zoo saves the model of an interrupted training as if it were the last one."""
    study = declared(tmp_path, hyperparams=small("Interrupt"))
    with pytest.raises(KeyboardInterrupt):
        work(study, study.runs[0])
    assert not study.result_of(study.runs[0]).exists() and failure_reason(study, study.runs[0]) is None


def test_code_in_a_hyperparameter_file_does_not_count_as_a_change(tmp_path):
    """In each process it is another object."""
    entry = small("Interrupt", policy="MlpPolicy")
    (tmp_path / "own.py").write_text(
        f"def temperature(left):\n    return 0.1\nhyperparams = {{'default': {entry} | {{'ent_coef': temperature}}}}"
    )
    study = freeze(declared(tmp_path, algorithms={"softac_v1": {"config": "own.py"}}, hyperparams={}))
    for received in [freeze(pickle.loads(pickle.dumps(study))) for _ in range(2)]:
        with pytest.raises(KeyboardInterrupt):
            work(received, received.runs[0])
        assert study.checkpoints_of(study.runs[0]).exists()
    assert read_results(study)[2][0].why.startswith("stopped after step 100")


def test_a_folder_in_the_place_of_a_result(tmp_path):
    """Found before the training."""
    study = declared(tmp_path)
    study.result_of(study.runs[0]).mkdir(parents=True)
    with pytest.raises(StudyError, match="is a folder"), pytest.warns(UserWarning, match="counts as not finished"):
        work(study, study.runs[0])
    assert not study.zoo_folder_of(study.runs[0]).exists()


def test_order_on_disk_and_a_damaged_result(tmp_path, monkeypatch):
    """The result is on disk before the checkpoints are deleted; a damaged one is made again."""
    study = declared(tmp_path, **SHORT)
    (run,) = study.runs
    order = []

    def record(module, name):
        original = getattr(module, name)

        def recording(*args, **kwargs):
            path = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[-1])
            order.append((name, Path(path)))
            return original(*args, **kwargs)

        patch.setattr(module, name, recording)

    with monkeypatch.context() as patch:
        for module, name in ((os, "fsync"), (os, "replace"), (shutil, "rmtree")):
            record(module, name)
        work(study, run)
    result, zoo = study.result_of(run), study.zoo_folder_of(run)
    at = order.index(("replace", result))
    assert order[at - 1][0] == "fsync" and order[at - 1][1].name.startswith(".0.npz.")
    assert order[at + 1] == ("fsync", result.parent)
    for path in (zoo, zoo / "Pendulum-v1.zip", zoo / "0.monitor.csv"):
        assert ("fsync", path) in order[:at]
    assert at + 1 < order.index(("rmtree", study.folder_of(run) / "checkpoints"))
    declaration = order.index(("replace", study.declaration_of(run)))
    assert order[declaration - 1][0] == "fsync" and order[declaration + 1] == ("fsync", study.folder_of(run))

    before = numbers(study, run)
    result.write_bytes(result.read_bytes()[:-100])
    write_failure(study, run, "of an earlier start")
    with pytest.warns(UserWarning, match=r"0\.npz cannot be read .* counts as not finished"):
        work(study, run)
    assert numbers(study, run) == before and failure_reason(study, run) is None


def test_steps_of_training_episodes_are_those_of_the_agent(tmp_path):
    """A wrapper that repeats actions takes more of them; two environments step together."""
    frames = {"rl_zoo3.wrappers.FrameSkip": {"skip": 4}}
    study = declared(tmp_path, hyperparams=small(n_envs=2, env_wrapper=[frames]), n_timesteps=250)
    work(study, study.runs[0])
    found = numbers(study, study.runs[0])
    assert found["train_timesteps"] == [100, 100, 200, 200] and len(found["train_returns"]) == 4


def test_an_algorithm_without_exact_checkpoints(tmp_path):
    study = declared(
        tmp_path, algorithms=["ars"], environments=["CartPole-v1"], hyperparams={"n_delta": 1, "n_top": 1}, n_timesteps=200
    )
    work(study, study.runs[0])
    found = numbers(study, study.runs[0])
    assert found["timesteps"] and not found["train_timesteps"]  # callbacks are not told of its episodes


def test_an_interrupted_run_without_checkpoints_is_not_finished(tmp_path, monkeypatch):
    """RL Zoo tells a callback that the training has ended, even if it was interrupted."""
    study = declared(tmp_path, algorithms=["ars"], hyperparams={"n_delta": 1}, **SHORT)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ARS, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(study, study.runs[0])
    assert not study.result_of(study.runs[0]).exists()


def test_values_that_mean_the_same(tmp_path):
    """Without noise by None, and a number of environments that is a float."""
    settings = small(noise_type=None, noise_std=0.1, n_envs=2.0, buffer_size=500)
    study = declared(tmp_path, algorithms=["td3"], hyperparams=settings, **SHORT)
    check_names(study)
    work(study, study.runs[0])
    assert numbers(study, study.runs[0])["timesteps"] == [100]
