"""``resume`` understands what it is told, wherever it is typed and wherever the run has been moved to."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest
from sb3_softac.zoo.resume import EVERY, RUN_FOLDER, _write_command, checkpoint_every, repeat_command

from sb3_softac.resume import ExactCheckpoint
from sb3_softac.zoo import register

register()
from rl_zoo3.exp_manager import ExperimentManager  # noqa: E402  (registered first)

ARGUMENTS = [
    "--algo",
    "softac_v1",
    "--env",
    "Pendulum-v1",
    "--gym-packages",
    "own_module",
    "-n",
    "100",
    "--conf-file",
    "own.yml",
]
RUN = "logs/softac_v1/Pendulum-v1_1"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a module and a file of settings, in which a run was started; the present folder is another one."""
    folder, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (folder / RUN).mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "own_module.py").write_text("")
    (folder / "own.yml").write_text("Pendulum-v1: {}\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "argv", ["train.py", *ARGUMENTS])
    monkeypatch.chdir(folder)
    _write_command(folder / RUN / "checkpoints", 50, 7)
    monkeypatch.setattr(sys, "path", sys.path[1:])
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv(EVERY, "1")
    monkeypatch.setenv(RUN_FOLDER, "")
    return folder


def test_it_goes_where_the_training_was(project):
    assert repeat_command([f"../project/{RUN}/"]) == [*ARGUMENTS, "--seed", "7"]
    assert os.getcwd() == sys.path[0] == str(project)
    assert (os.environ[EVERY], os.environ[RUN_FOLDER]) == ("50", str(project / RUN))


def test_options_that_may_change(project, tmp_path):
    added = repeat_command(
        ["--device=cpu", str(project / RUN), "-n", "200", "-tb", "tb", "--save-replay-buffer", "--gym-packages", "json"]
    )[len(ARGUMENTS) + 2 :]
    assert added == [
        *("--device", "cpu", "--tensorboard-log", str(tmp_path / "elsewhere" / "tb"), "--n-timesteps", "200"),
        *("--save-replay-buffer", "--gym-packages", "own_module", "json"),
    ]


@pytest.mark.parametrize(
    "option", ["--seed", "--algo", "--env", "--hyperparams", "--conf-file", "--vec-env", "--uuid", "--dev"]
)
def test_options_that_must_not_change_are_named(option, project, capsys):
    with pytest.raises(SystemExit):
        repeat_command([str(project / RUN), option, "1"])
    assert f"{option} cannot be changed when a run is resumed. These can: --device" in capsys.readouterr().err


def test_a_project_that_was_moved(project, tmp_path):
    moved = project.rename(tmp_path / "moved")
    repeat_command([str(moved / RUN)])
    assert os.getcwd() == sys.path[0] == str(moved)
    assert os.environ[RUN_FOLDER] == str(moved / RUN)


def test_a_run_that_was_moved(project, tmp_path):
    shutil.move(project / RUN, tmp_path / "run")
    repeat_command([str(tmp_path / "run")])
    assert os.getcwd() == str(project) and os.environ[RUN_FOLDER] == str(tmp_path / "run")


def test_a_run_that_was_moved_alone_names_what_is_missing(project, tmp_path, capsys):
    shutil.move(project / RUN, tmp_path / "run")
    shutil.rmtree(project)
    with pytest.raises(SystemExit, match=r"needs the module own_module \(--gym-packages\), which is neither installed nor in"):
        repeat_command([str(tmp_path / "run")])
    assert f"The training was started in {project}, which no longer exists" in capsys.readouterr().err
    (tmp_path / "elsewhere" / "own_module.py").write_text("")
    with pytest.raises(SystemExit, match=r"The run needs own.yml \(--conf-file\), which is not in .*elsewhere"):
        repeat_command([str(tmp_path / "run")])
    (tmp_path / "elsewhere" / "own.yml").write_text("")
    repeat_command([str(tmp_path / "run")])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"arguments": 1}', "[" * 10**5, '{"arguments": [1], "every": "x"}'])
def test_what_is_no_command(content, project):
    (project / RUN / "checkpoints/command.json").write_text(content)
    with pytest.raises(SystemExit, match="is not the command of a run"):
        repeat_command([str(project / RUN)])


def test_a_command_that_is_no_file(project):
    path = project / RUN / "checkpoints/command.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SystemExit, match=r"is not the command of a run .*is not a regular file"):
        repeat_command([str(project / RUN)])


@pytest.mark.parametrize(("said", "every"), [("10000", 10_000), ("1e4", 10_000), (" 50 ", 50), ("+5", 5), ("2.0", 2)])
def test_steps_between_checkpoints(said, every, monkeypatch):
    monkeypatch.setenv(EVERY, said)
    assert checkpoint_every() == every


@pytest.mark.parametrize("said", ["", " ", "0", "-1", "abc", "1.5", "nan", "inf", "1e-3", "0x10", "1e400", "True", "10,000"])
def test_what_is_no_number_of_steps_is_named_before_anything_is_created(said, monkeypatch, tmp_path):
    monkeypatch.setenv(EVERY, said)
    with pytest.raises(ValueError, match=rf"The environment variable {EVERY} must be a number of environment steps.*Unset it"):
        ExperimentManager.setup_experiment(None)


def test_without_the_variable_there_are_no_checkpoints(monkeypatch):
    monkeypatch.delenv(EVERY, raising=False)
    assert checkpoint_every() is None


def test_an_error_before_the_training_is_not_hidden(tmp_path):
    def learn(steps, callback):
        raise ZeroDivisionError("of an environment's reset")

    manager = SimpleNamespace(algo="sql", n_envs=1, log_interval=-1, n_timesteps=9, callbacks=[ExactCheckpoint(tmp_path)])
    env = SimpleNamespace(close=lambda: None)
    with pytest.raises(ZeroDivisionError, match="of an environment's reset"):
        ExperimentManager.learn(manager, SimpleNamespace(learn=learn, env=env))


def test_the_command_is_complete_or_not_there(project, monkeypatch):
    path = project / RUN / "checkpoints/command.json"
    assert json.loads(path.read_text())["run"] == RUN
    before = path.read_text()
    _write_command(path.parent, 60, 8)  # resumed
    assert path.read_text() == before
