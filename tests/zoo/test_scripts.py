"""``python -m sb3_softac.zoo``: what it says, and its repairs of the Zoo's scripts, without the hub."""

import importlib
import os
import runpy
import shutil
import subprocess
import sys
import types
import zipfile

import gymnasium as gym
import huggingface_hub
import huggingface_sb3
import moviepy.config  # noqa: F401  (calls its ffmpeg when it is imported)
import pytest
from requests.exceptions import HTTPError
from rl_zoo3.utils import get_model_path, get_trained_models
from rl_zoo3.wrappers import HistoryWrapper

from sb3_softac.zoo import scripts
from sb3_softac.zoo.__main__ import SCRIPTS, main, message_for_users
from tests.zoo.commands import PENDULUM, SMALL, run, run_as_typed


def test_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["zoo", "--help"])
    main()
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m sb3_softac.zoo SCRIPT ...") and "resume RUN_FOLDER" in text
    assert all(name in text for name in SCRIPTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a SCRIPT is missing"),
        (["trian"], r"there is no script 'trian', did you mean 'train'\?"),
        (["--algo"], "no script '--algo'"),
    ],
)
def test_wrong_scripts(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    with pytest.raises(SystemExit, match=f"usage: python -m sb3_softac.zoo SCRIPT(.|\n)*error: .*{message}"):
        main()


def test_errors_on_purpose_have_no_traceback(tmp_path, monkeypatch, undo_patches):
    monkeypatch.setattr(sys, "argv", ["zoo", "enjoy"])
    none = str(tmp_path / "none")
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: get_model_path(0, none, "softac_v1", "Pendulum-v1"))
    with pytest.raises(SystemExit, match=r"^error: The .*none/softac_v1 folder was not found$"):
        main()
    monkeypatch.setattr(sys, "argv", ["zoo", "benchmark"])
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: get_trained_models(none))
    with pytest.raises(SystemExit, match=r"^error: .*No such file"):
        main()
    monkeypatch.setattr(sys, "argv", ["zoo", "enjoy"])
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: {}["an accident"])
    with pytest.raises(KeyError):
        main()


@pytest.fixture
def fake_hub(tmp_path, monkeypatch, undo_patches):
    """A folder in place of the hub, with a model that was trained without VecNormalize."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for name in ("softac_v1-Pendulum-v1.zip", "config.yml", "args.yml", "env_kwargs.yml"):
        (folder / name).write_text(name)
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("0.monitor.csv", "")

    def hf_hub_download(repo_id, filename, **kwargs):
        if (folder / filename).exists():
            return str(folder / filename)
        response = types.SimpleNamespace(headers={}, request=None)
        raise huggingface_hub.errors.RemoteEntryNotFoundError(f"no {filename}", response=response)

    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")  # huggingface_sb3 refuses to download anything without it
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    scripts.repair_hub()
    return folder


def fetch(folder):
    from rl_zoo3.load_from_hub import download_from_hub

    name = huggingface_sb3.EnvironmentName("Pendulum-v1")
    download_from_hub("softac_v1", name, exp_id=0, folder=str(folder), organization="me")
    return folder / "softac_v1/Pendulum-v1_1"


def test_model_without_normalization_is_fetched(fake_hub, tmp_path):
    fetched = fetch(tmp_path / "logs")
    assert (fetched / "Pendulum-v1.zip").exists() and (fetched / "0.monitor.csv").exists()
    assert not (fetched / "Pendulum-v1/vecnormalize.pkl").exists()


def test_both_kinds_of_handlers_catch_a_missing_file(fake_hub):
    for kind in (HTTPError, huggingface_hub.errors.EntryNotFoundError):
        with pytest.raises(kind, match="no such"):
            huggingface_sb3.load_from_hub("me/softac_v1-Pendulum-v1", "such.zip")


def test_a_lost_connection_is_not_taken_for_a_missing_file(fake_hub, tmp_path, monkeypatch):
    def offline(repo_id, filename, **kwargs):
        if filename == "vec_normalize.pkl":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")
        return str(fake_hub / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(huggingface_hub.errors.LocalEntryNotFoundError):
        fetch(tmp_path / "logs")


def test_model_card_of_the_zoo(fake_hub):
    from rl_zoo3.push_to_hub import generate_model_card

    card, metadata = generate_model_card("softac_v1", "SoftAC_v1", "me", "Pendulum-v1", -150.0, 10.0, {}, {})
    assert "--algo softac_v1" in card
    assert metadata["library_name"] == "stable-baselines3"  # a dictionary, as the Zoo wants it


@pytest.mark.slow
def test_record_training_where_neither_python_nor_ffmpeg_is_on_the_path(tmp_path):
    run(tmp_path, "rl_zoo3.train", *PENDULUM, "-n", 120, "--eval-freq", -1, *SMALL)
    arguments = (*PENDULUM, "-f", "logs", "-n", 20, "-o", "videos", "--gif")
    run_as_typed(tmp_path, "sb3_softac.zoo", "record_training", *arguments, PATH=str(tmp_path))
    for name in ("training.mp4", "training.gif"):
        assert (tmp_path / "videos" / name).stat().st_size > 0, name


@pytest.fixture
def called(monkeypatch, undo_patches):
    """What is called once the repair is in place."""
    commands = []
    monkeypatch.setattr(os, "system", lambda command: commands.append(command))
    monkeypatch.setattr(subprocess, "call", lambda command: commands.append(command))
    scripts.find_programs()
    return commands


def test_an_ffmpeg_on_the_path_comes_first(called, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    os.system("ffmpeg -i video.mp4")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    os.system("ffmpeg -i video.mp4")
    os.system("ffprobe video.mp4")
    own, moviepys, other = called
    assert own == "ffmpeg -i video.mp4" and other == "ffprobe video.mp4"
    assert moviepys.endswith('" -i video.mp4') and os.path.isfile(moviepys.split('"')[1])


def test_only_what_the_zoo_gets_wrong_is_changed(called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = ([sys.executable, "-m", "rl_zoo3.record_video", "-n", "20"], "ls")
    for command in (["python", "-m", "rl_zoo3.record_video", "-n", "20"], ["python", "enjoy.py", "x"], *others):
        subprocess.call(command)
    ours = [sys.executable, "-m", "sb3_softac.zoo"]
    assert called == [[*ours, "record_video", "-n", "20"], [*ours, "enjoy", "x"], *others]
    (tmp_path / "enjoy.py").touch()  # in a clone of the Zoo
    subprocess.call(["python", "enjoy.py", "x"])
    assert called[-1] == ["python", "enjoy.py", "x"]


@pytest.mark.parametrize("given", [["-o", "videos"], ["-ovideos"], ["--output-folder=videos"], []])
def test_the_output_folder_becomes_an_absolute_path(given):
    expected = ["-o", os.path.abspath("videos")] if given else []
    assert scripts.absolute_output(["--gif", *given, "-n", "20"]) == ["--gif", "-n", "20", *expected]


def test_whose_errors_are_shown_without_a_traceback(tmp_path, monkeypatch):
    """Not those of a user's file in a folder that is called as the package, nor those that say nothing."""
    (tmp_path / "sb3_softac").mkdir()
    (tmp_path / "sb3_softac" / "own_env.py").write_text("raise ValueError('a fault of mine')\n")
    monkeypatch.syspath_prepend(tmp_path / "sb3_softac")
    with pytest.raises(ValueError) as own:
        importlib.import_module("own_env")
    assert message_for_users(own.value) is None
    with pytest.raises(AssertionError) as silent:
        HistoryWrapper(gym.make("CartPole-v1"))
    assert message_for_users(silent.value) is None
