"""The Zoo's scripts in an environment that refuses forbidden actions: none is taken, and nothing has to be said for it."""

import shutil
from pathlib import Path

import pytest

from tests.zoo.commands import SMALL, TRIALS, run, run_as_typed, train

GAME = ("--algo", "discretesac", "--env", "MaskedGame-v0")
PACKAGE = ("--gym-packages", "masked_game")
QUICK = (*SMALL, "learning_starts:20")
WARNINGS = ("got no action_masks", "not available", "could not")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    shutil.copy(Path(__file__).with_name("masked_game.py"), folder)
    check(train(folder, *PACKAGE, *QUICK, "n_envs:2", task=GAME, steps=200))
    return folder


def check(text):
    """The scripts have said nothing of masks that are missing."""
    for warning in WARNINGS:
        assert warning not in text


def test_the_best_model_is_chosen_by_evaluations(folder):
    run_folder = folder / "logs/discretesac/MaskedGame-v0_1"
    assert (run_folder / "best_model.zip").exists() and (run_folder / "evaluations.npz").exists()


def test_enjoy(folder):
    arguments = ("-f", "logs", "--no-render", "-n", 60, "--exp-id", 1, "--n-envs", 2, "--stochastic")
    check(run(folder, "rl_zoo3.enjoy", *GAME, *PACKAGE, *arguments))


def test_record_video(folder):
    check(run(folder, "masked_game", *GAME, "-f", "logs", "-n", 20, "--exp-id", 1, "--stochastic"))
    assert list(folder.rglob("*.mp4"))


@pytest.mark.slow
def test_subprocesses(folder):
    check(train(folder, *PACKAGE, *QUICK, "n_envs:2", "--vec-env", "subproc", task=GAME, steps=150))


def test_optimize(folder):
    check(train(folder, "-optimize", *TRIALS, *PACKAGE, *SMALL, task=GAME, steps=150))
    (report,) = (folder / "logs/discretesac").glob("report_*.csv")
    assert report.read_text().count("COMPLETE") == 2


def test_enjoy_without_the_start_up_file(folder):
    arguments = ("-f", "logs", "--no-render", "-n", 30, "--exp-id", 1, "--stochastic")
    check(run_as_typed(folder, "sb3_softac.zoo", "enjoy", *GAME, *PACKAGE, *arguments, SB3_SOFTAC_NO_ZOO="1"))
