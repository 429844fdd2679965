"""``resume`` understands what it is told, wherever it is typed and wherever the run has been moved to."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from sb3_softac.resume import ExactCheckpoint
from sb3_softac.zoo import checkpoints, register
from sb3_softac.zoo.checkpoints import EVERY, RUN_FOLDER, checkpoint_every, command_of, safe_command

register()
from rl_zoo3.exp_manager import ExperimentManager  # noqa: E402  (registered first)

ARGUMENTS = "--algo softac_v1 --env Pendulum-v1 --gym-packages own_module -n 100 --conf-file own.yml".split()
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
    checkpoints._write_command(folder / RUN / "checkpoints", 50, 7)
    monkeypatch.setattr(sys, "path", sys.path[1:])
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv(EVERY, "1")
    monkeypatch.setenv(RUN_FOLDER, "")
    return folder


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(SystemExit, match=f"a run can be resumed only if it was started with {EVERY}=10000"):
        command_of([str(tmp_path)])


def test_it_goes_where_the_training_was(project):
    assert command_of([f"../project/{RUN}/"]) == [*ARGUMENTS, "--seed", "7"]
    assert os.getcwd() == sys.path[0] == str(project)
    assert (os.environ[EVERY], os.environ[RUN_FOLDER]) == ("50", str(project / RUN))


def test_folders_of_modules_are_kept_unless_python_is_installed_there(project, tmp_path, monkeypatch):
    modules = [f"{sys.prefix}-modules", *(str(tmp_path / name) for name in ("lib-of-mine", "lib/json", "gone"))]
    monkeypatch.setattr(checkpoints, "INSTALLED", (str(tmp_path / "lib"),))
    monkeypatch.setattr(sys, "path", modules)
    monkeypatch.setattr(os.path, "exists", lambda path: not path.endswith(("gone", "command.json")))
    checkpoints._write_command(tmp_path / "other/checkpoints", 50, 7)
    assert json.loads((tmp_path / "other/checkpoints/command.json").read_text())["modules"] == modules[:2]


def test_options_that_may_change(project, tmp_path):
    typed = ["--device=cpu", str(project / RUN), "-n", "200", "-tb", "tb", "--save-replay-buffer", "--gym-packages", "json"]
    added = command_of(typed)[len(ARGUMENTS) + 2 :]
    assert sorted(added) == sorted(
        [
            *("--device=cpu", f"--tensorboard-log={tmp_path / 'elsewhere' / 'tb'}", "--n-timesteps=200"),
            *("--save-replay-buffer", "--gym-packages", "own_module", "json"),
        ]
    )


@pytest.mark.parametrize(("option", "was"), [("--save-freq=50", "-1"), ("--eval-freq=-1", "25000")])
def test_callbacks_are_neither_added_nor_left_out(option, was, project, capsys):
    with pytest.raises(SystemExit):
        command_of([str(project / RUN), option])
    said = capsys.readouterr().err
    assert f"{option.partition('=')[0]} cannot be switched on or off when a run is resumed: it was {was}" in said
    assert "--eval-freq=50" in command_of([str(project / RUN), "--eval-freq", "50"])


@pytest.mark.parametrize("option", ["--seed", "--hyperparams", "--dev"])
def test_options_that_must_not_change_are_named(option, project, capsys):
    with pytest.raises(SystemExit):
        command_of([str(project / RUN), option, "1"])
    assert f"{option} cannot be changed when a run is resumed. These can: --device" in capsys.readouterr().err


def test_a_project_that_was_moved(project, tmp_path):
    moved = project.rename(tmp_path / "moved")
    command_of([str(moved / RUN)])
    assert os.getcwd() == sys.path[0] == str(moved)
    assert os.environ[RUN_FOLDER] == str(moved / RUN)


def test_a_project_that_was_copied(project, tmp_path):
    copied = shutil.copytree(project, tmp_path / "copied")
    path = copied / RUN / "checkpoints/command.json"
    command = json.loads(path.read_text())
    (copied / "src").mkdir()
    path.write_text(json.dumps(command | {"modules": [*command["modules"], str(project / "src")]}))
    command_of([str(copied / RUN)])
    assert os.getcwd() == sys.path[0] == str(copied) and str(copied / "src") in sys.path
    assert not any(entry.startswith(str(project)) for entry in sys.path)


def test_a_run_that_was_moved(project, tmp_path):
    shutil.move(project / RUN, tmp_path / "run")
    command_of([str(tmp_path / "run")])
    assert os.getcwd() == str(project) and os.environ[RUN_FOLDER] == str(tmp_path / "run")


def test_a_run_that_was_moved_alone_names_what_is_missing(project, tmp_path, capsys):
    shutil.move(project / RUN, tmp_path / "run")
    shutil.rmtree(project)
    with pytest.raises(SystemExit, match=r"needs the module own_module \(--gym-packages\), which is neither installed nor in"):
        command_of([str(tmp_path / "run")])
    assert f"The training was started in {project}, which no longer exists" in capsys.readouterr().err
    (tmp_path / "elsewhere" / "own_module.py").write_text("")
    with pytest.raises(SystemExit, match=r"The run needs own.yml \(--conf-file\), which is not in .*elsewhere"):
        command_of([str(tmp_path / "run")])
    (tmp_path / "elsewhere" / "own.yml").write_text("")
    command_of([str(tmp_path / "run")])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"arguments": 1}', "[" * 10**5, '{"arguments": [1], "every": "x"}'])
def test_what_is_no_command(content, project):
    (project / RUN / "checkpoints/command.json").write_text(content)
    with pytest.raises(SystemExit, match="is not the command of a run"):
        command_of([str(project / RUN)])


def test_a_command_that_is_no_file(project):
    path = project / RUN / "checkpoints/command.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SystemExit, match=r"is not the command of a run .*is not a regular file"):
        command_of([str(project / RUN)])


@pytest.mark.parametrize(("value", "every"), [("10000", 10_000), ("1e4", 10_000), (" 50 ", 50), ("2.0", 2)])
def test_steps_between_checkpoints(value, every, monkeypatch):
    monkeypatch.setenv(EVERY, value)
    assert checkpoint_every() == every


@pytest.mark.parametrize("value", ["", "0", "-1", "abc", "1.5", "nan", "inf", "1e400"])
def test_what_is_no_number_of_steps_is_named_before_anything_is_created(value, monkeypatch, tmp_path, undo_patches):
    monkeypatch.setenv(EVERY, value)
    checkpoints.make_resumable()
    with pytest.raises(ValueError, match=rf"The environment variable {EVERY} must be a number of environment steps.*Unset it"):
        ExperimentManager.create_log_folder(SimpleNamespace(params_path=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_error_before_the_training_is_not_hidden(tmp_path):
    def learn(steps, callback):
        raise ZeroDivisionError("of an environment's reset")

    manager = SimpleNamespace(algo="sql", n_envs=1, log_interval=-1, n_timesteps=9, callbacks=[ExactCheckpoint(tmp_path)])
    env = SimpleNamespace(close=lambda: None)
    with pytest.raises(ZeroDivisionError, match="of an environment's reset"):
        ExperimentManager.learn(manager, SimpleNamespace(learn=learn, env=env))


def test_the_command_is_complete_or_not_there(project, monkeypatch):
    path = project / RUN / "checkpoints/command.json"
    assert json.loads(path.read_text())["run"] == str(project / RUN)
    before = path.read_text()
    checkpoints._write_command(path.parent, 60, 8)  # resumed
    assert path.read_text() == before


PLAIN = ["--algo", "sql", "--env", "Pendulum-v1", "-n", "10", "--seed", "3", "--hyperparams", "gamma:0.9", "normalize:True"]


def test_a_plain_command_of_somebody_else_is_repeated():
    words = safe_command([*PLAIN, "-f", "/elsewhere", "--conf-file", "softac_v1_icml.yml", "-P"], {})
    expected = {"--algo=sql", "--env=Pendulum-v1", "--n-timesteps=10", "--seed=3", "--conf-file=softac_v1_icml.yml"}
    assert set(words) == {*expected, "--progress", *PLAIN[-3:]}


@pytest.mark.parametrize(
    "words",
    [
        *("--gym-packages evil", "--conf-file evil.py", "--conf-file /x/softac_v1_icml.yml", "--conf-file evil"),
        *("--tensorboard-log /x", "-tb /x", "--tensorb /x", "-i evil.zip", "--storage /x/evil.log"),
        *("--optimization-log-path /x", "--env evil:Env-v0", "--track", "--sampler auto"),
    ],
)
def test_commands_of_somebody_else_that_name_modules_or_places_are_refused(words):
    with pytest.raises(ValueError, match="Refused: the command of the run"):
        safe_command([*PLAIN, *words.split()], {})


def test_the_users_own_options_replace_those_of_somebody_else(project, monkeypatch):
    """What the switch refuses in the file is accepted from the user, and the program stays where it is."""
    monkeypatch.setenv("SB3_SOFTAC_SAFE_LOAD", "1")
    (project / RUN / "checkpoints/command.json").write_text(
        json.dumps(
            {
                "arguments": [*PLAIN, "--gym-packages", "evil", "-tb", "/x"],
                "directory": str(project),
                "run": str(project / RUN),
                "modules": [str(project)],
                "every": 5,
            }
        )
    )
    before = os.getcwd(), list(sys.path)
    words = command_of([str(project / RUN), "--gym-packages", "json", "--tensorboard-log", "tb", "-n", "20"])
    assert (os.getcwd(), sys.path) == before
    assert "evil" not in words and "/x" not in " ".join(words) and "--n-timesteps=10" not in words
    assert {"--algo=sql", "--n-timesteps=20", f"--tensorboard-log={os.path.abspath('tb')}", "json"} <= set(words)
    with pytest.raises(ValueError, match=r"Refused: the command of the run contains '-tb'"):
        command_of([str(project / RUN), "--gym-packages", "json"])
