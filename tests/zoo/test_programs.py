"""The programs that RL Zoo's scripts call."""

import os
import shutil
import subprocess
import sys

import moviepy.config  # noqa: F401 - calls its ffmpeg when it is imported
import pytest
from sb3_softac.zoo.programs import absolute_output, find_programs

from tests.zoo.commands import PENDULUM, SMALL, run, run_as_typed


@pytest.mark.slow
def test_record_training_where_neither_python_nor_ffmpeg_is_on_the_path(tmp_path):
    run(tmp_path, "rl_zoo3.train", *PENDULUM, "-n", 120, "--eval-freq", -1, *SMALL)
    arguments = (*PENDULUM, "-f", "logs", "-n", 20, "-o", "videos", "--gif")
    run_as_typed(tmp_path, "sb3_softac.zoo", "record_training", *arguments, PATH=str(tmp_path))
    for name in ("training.mp4", "training.gif"):
        assert (tmp_path / "videos" / name).stat().st_size > 0, name


@pytest.fixture
def called(monkeypatch):
    """What is called once the repair is in place."""
    commands = []
    monkeypatch.setattr(os, "system", commands.append)
    monkeypatch.setattr(subprocess, "call", commands.append)
    find_programs()
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


def test_only_what_the_zoo_gets_wrong_is_changed(called):
    subprocess.call(["python", "-m", "rl_zoo3.record_video", "-n", "20"])
    subprocess.call([sys.executable, "-m", "rl_zoo3.record_video", "-n", "20"])
    subprocess.call("ls")
    assert called == [
        [sys.executable, "-m", "sb3_softac.zoo", "record_video", "-n", "20"],
        [sys.executable, "-m", "rl_zoo3.record_video", "-n", "20"],
        "ls",
    ]


@pytest.mark.parametrize("given", [["-o", "videos"], ["-ovideos"], ["--output-folder", "videos"], ["--output-folder=videos"]])
def test_the_output_folder_becomes_an_absolute_path(given):
    assert absolute_output(["--gif", *given, "-n", "20"]) == ["--gif", "-n", "20", "-o", os.path.abspath("videos")]


def test_without_an_output_folder_the_arguments_stay_as_they_are():
    assert absolute_output(["--help"]) == ["--help"]
