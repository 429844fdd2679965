"""One training at a time writes into a folder of checkpoints, and it is known at the start that it can."""

import errno
import os
import re
import signal
import threading
import warnings

import pytest

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, ResumeError, lock
from sb3_softac.resume.store import read_checkpoint
from tests.resume.harness import Cut, differences, uninterrupted
from tests.resume.test_exact import maker


@pytest.fixture
def other_program(tmp_path):
    """The number of a process that holds the lock, and a function that tells it to end."""
    (ready, said), (waiting, tell) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            holding = ExactCheckpoint(tmp_path)
            holding._lock.acquire(holding)
            os.write(said, b"held")
            os.read(waiting, 1)
        finally:
            os._exit(0)
    assert os.read(ready, 4) == b"held"
    yield child, lambda: os.write(tell, b"end")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def learn(path, steps=30, others=(), make=None):
    model, callbacks = (make or maker(SoftAC_v1))()
    model.learn(steps, callback=[*callbacks, *others, ExactCheckpoint(path, 25)])
    return model


def test_the_second_program_names_the_first(other_program, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.2)
    number, _ = other_program
    with (
        pytest.warns(UserWarning, match=rf"is in use by process {number} on .*Waiting for it to end"),
        pytest.raises(ResumeError, match=rf"still in use by process {number} on .*another folder"),
    ):
        learn(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "lock.json"}
    os.kill(number, signal.SIGKILL)  # whatever ends a program frees its lock
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may take a moment
        learn(tmp_path)


def test_the_second_program_waits_for_the_first(other_program, tmp_path):
    timer = threading.Timer(0.3, other_program[1])
    timer.start()
    with pytest.warns(UserWarning, match="Waiting for it to end"):
        learn(tmp_path)
    timer.join()
    assert read_checkpoint(tmp_path / "checkpoint-000000000030").manifest["step"] == 30


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match=r"has no locks .*make sure that only one program at a time uses this folder"):
        learn(tmp_path)
    assert [*tmp_path.glob("checkpoint-*")]


def test_trainings_one_after_the_other(tmp_path):
    learn(tmp_path)
    assert not (tmp_path / "lock.json").exists() and str(tmp_path) not in lock.HELD
    learn(tmp_path)


def test_a_training_that_failed_is_in_nobodys_way(tmp_path):
    make = maker(SoftAC_v1)
    failed, callbacks = make()
    checkpoint = ExactCheckpoint(tmp_path, 25)
    with pytest.raises(KeyboardInterrupt):
        failed.learn(60, callback=[*callbacks, checkpoint, Cut(40)])
    assert str(tmp_path) in lock.HELD
    resumed, callbacks = make()
    resumed.learn(60, callback=[*callbacks, ExactCheckpoint(tmp_path, 25), Cut(10**9)])
    assert resumed.num_timesteps == 60 and str(tmp_path) not in lock.HELD
    failed.learn(60, callback=[*callbacks, checkpoint, Cut(10**9)])  # the same callback again


def test_two_threads_with_one_folder(tmp_path):
    started, go_on = threading.Event(), threading.Event()

    class Pause(Cut):
        def _on_step(self):
            started.set()
            return go_on.wait(20)

    first = threading.Thread(target=lambda: learn(tmp_path, others=[Pause(0)]))
    first.start()
    assert started.wait(20)
    try:
        with pytest.raises(ResumeError, match="Another ExactCheckpoint of this process"):
            learn(tmp_path)
    finally:
        go_on.set()
        first.join()


def test_a_fork_does_not_keep_the_folder(tmp_path):
    holding = ExactCheckpoint(tmp_path)
    holding._lock.acquire(holding)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        holding._lock.release()
        learn(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def plain_file(path):
    path.write_text("mine")


UNUSABLE = {
    "a plain file": plain_file,
    "a dangling link": lambda path: path.symlink_to(path.parent / "nowhere"),
    "a circle of links": lambda path: path.symlink_to(path),
    "a file above": lambda path: plain_file(path.parent),
    "a folder as its lock": lambda path: (path / "lock").mkdir(parents=True),
    "a link as its lock": lambda path: (path.mkdir(parents=True), (path / "lock").symlink_to(path.parent / "victim")),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_folder_is_noticed_at_the_start(kind, tmp_path):
    path = tmp_path / "run" / "checkpoints"
    if kind != "a file above":
        path.parent.mkdir()
    UNUSABLE[kind](path)
    with pytest.raises(OSError, match=rf"Checkpoints cannot be saved in {re.escape(str(path))} .*another folder"):
        learn(path, 10**9)
    assert not (path.parent / "victim").exists()


@pytest.mark.parametrize("name", ["open", "mkdir", "replace"])
def test_a_folder_without_permission_is_noticed_at_the_start(name, tmp_path, monkeypatch):
    path = tmp_path / "checkpoints"
    if name != "mkdir":
        path.mkdir()

    real = getattr(os, name)

    def refuse(place, *args, **kwargs):
        if str(path) in str(place):
            raise PermissionError(13, "Permission denied", str(place))
        return real(place, *args, **kwargs)

    monkeypatch.setattr(os, name, refuse)
    with pytest.raises(OSError, match=r"Checkpoints cannot be saved in .*Permission denied.*make this one writable"):
        learn(path, 10**9)


def test_who_holds_a_folder_is_not_written_through_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock.json").symlink_to(victim)
    learn(tmp_path / "run")
    assert victim.read_text() == "mine"


def test_an_error_before_the_training_is_shown(tmp_path):
    model, _ = maker(SoftAC_v1)()
    checkpoint = ExactCheckpoint(tmp_path)
    checkpoint.on_training_end()  # as RL Zoo does if learn() has failed before it began
    expected = uninterrupted(maker(SoftAC_v1), 40, tmp_path / "a")
    model.learn(40, callback=[checkpoint])
    checkpoint.on_training_end()
    assert differences(expected, uninterrupted(maker(SoftAC_v1), 40, tmp_path / "a")) == []
