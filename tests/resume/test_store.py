"""Nothing that happens while a checkpoint is written harms the one before, and nothing damaged is taken for a whole one."""

import io
import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_softac.resume import ResumeError, store
from sb3_softac.resume.store import Store, digest, manifest_text, read_checkpoint


def save(folder, step, segments=(), keep=2, score=None, size=1_000):
    rows = {"rewards": np.full((10, 1), step, np.float32)}
    tensors = {"weights": th.full((size,), step, dtype=th.float32)}
    return Store(folder, keep).save(step, {"step": step}, tensors, list(segments), [(step, rows)], score=score)


def check(checkpoint):
    """A checkpoint holds what was saved at its step."""
    step = checkpoint.manifest["step"]
    assert checkpoint.tree == {"step": step} and (checkpoint.tensors["weights"] == step).all()
    assert all((segment.read()["rewards"] == segment.first).all() for segment in checkpoint.segments)
    return step


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_keeps_the_newest_and_the_best(tmp_path):
    segments = []
    for step, score in [(1, None), (2, 5.0), (3, 1.0), (4, 4.0), (5, 2.0)]:
        segments = save(tmp_path, step, segments, score=score)
    assert names(tmp_path) == [f"checkpoint-{step:012d}" for step in (2, 4, 5)]
    newest = Store(tmp_path).newest()
    assert check(newest) == 5
    assert sorted(segment.first for segment in newest.segments) == [1, 2, 3, 4, 5]


def test_rows_are_written_once(tmp_path):
    segments = save(tmp_path, 2, save(tmp_path, 1))
    first, second = (tmp_path / f"checkpoint-{step:012d}" / segments[0].file.name for step in (1, 2))
    assert first.samefile(second)


def test_all_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    calls, sync, rename = [], store.sync, Path.rename
    monkeypatch.setattr(store, "sync", lambda path: (calls.append(path.name), sync(path)))
    monkeypatch.setattr(Path, "rename", lambda path, target: (calls.append("renamed"), rename(path, target)))
    save(tmp_path, 2)
    files = names(tmp_path / "checkpoint-000000000002")
    assert sorted(calls[:4]) == files and calls[4:] == ["writing-000000000002", "renamed", tmp_path.name]


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError("no links here")

    segments = save(tmp_path, 1)
    monkeypatch.setattr(os, "link", refuse)
    save(tmp_path, 2, segments)
    assert check(Store(tmp_path).newest()) == 2


def test_nothing_there(tmp_path):
    assert Store(tmp_path / "nothing").newest() is None


@pytest.mark.parametrize("keep", [0, -1, 1.5, True])
def test_keep_is_checked(keep, tmp_path):
    with pytest.raises(ValueError, match="keep must be an integer, at least 1"):
        Store(tmp_path, keep)


class Crash(BaseException):
    """The program ends here: no call to the disk works after it."""


CALLS = [(os, "open"), (os, "fsync"), (os, "link"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (io, "open")]
CALLS += [(store, "save_file"), (store, "save_arrays"), (shutil, "rmtree")]


def crash_at(number, monkeypatch):
    calls = []

    def wrap(holder, name):
        real = getattr(holder, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) >= number:
                raise Crash
            return real(*args, **kwargs)

        monkeypatch.setattr(holder, name, call)

    for holder, name in CALLS:
        wrap(holder, name)
    return calls


def test_a_crash_at_every_call(tmp_path, monkeypatch):
    template = tmp_path / "template"
    segments = save(template, 2, save(template, 1))
    ends = []
    for number in range(1, 1_000):
        folder = tmp_path / str(number)
        shutil.copytree(template, folder)
        here = [segment._replace(file=folder / segment.file.relative_to(template)) for segment in segments]
        with monkeypatch.context() as patch:
            calls = crash_at(number, patch)
            try:
                save(folder, 3, here)
            except Crash:
                pass
        ends.append(check(Store(folder).newest()))
        save(folder, 4, here)  # what was left behind is in nobody's way
        assert check(Store(folder).newest()) == 4 and not [name for name in names(folder) if "checkpoint" not in name]
        if len(calls) < number:
            break
    assert len(ends) > 20 and ends == sorted(ends) and set(ends) == {2, 3}


def in_child(function):
    """:return: Number of a child process that calls a function and ends."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except OSError:
            os._exit(3)
        finally:
            os._exit(4)
    return child


def save_for_ever(folder, said):
    segments, step = Store(folder).newest().segments, check(Store(folder).newest())
    while True:
        step += 1
        segments = save(folder, step, segments[-5:], size=100_000)
        os.write(said, step.to_bytes(4, "little"))


def kills(tmp_path, number, held):
    """After none, one or two checkpoints of a program, and at any point of the next one. :return: The newest step."""
    save(tmp_path, 1)
    said, took, rng = 1, 0.01, random.Random(0)
    for trial in range(number):
        reading, writing = os.pipe()
        child = in_child(lambda said=writing: save_for_ever(tmp_path, said))
        os.close(writing)
        with open(reading, "rb", buffering=0) as steps:
            for _ in range(rng.randrange(3)):
                start = time.monotonic()
                said, took = int.from_bytes(steps.read(4), "little"), time.monotonic() - start
            time.sleep(rng.random() * took)
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            while step := steps.read(4):
                said = int.from_bytes(step, "little")
        newest = check(Store(tmp_path).newest())
        assert newest in (said, said + 1)
        said = newest
        held.append(trial)
    return said


def test_kills(tmp_path):
    assert kills(tmp_path, 10, []) > 3


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save(folder, 2, size=1_000_000),
        lambda folder: Store(folder).save(2, {"step": "x" * 100_000}, {}),
    ],
    ids=["tensors", "tree"],
)
def test_a_full_disk(write, tmp_path):
    save(tmp_path, 1)

    def save_much():
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
        with pytest.raises(OSError, match=rf"in {tmp_path} cannot be written: .*free some space") as said:
            write(tmp_path)
        raise said.value

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(save_much), 0)[1]) == 3
    assert check(Store(tmp_path).newest()) == 1
    assert names(tmp_path) == ["checkpoint-000000000001"]


def test_flipped_bytes(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    folder, rng = tmp_path / "checkpoint-000000000002", random.Random(0)
    for _ in range(100):
        path = rng.choice(sorted(folder.iterdir()))
        content = path.read_bytes()
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ rng.randrange(1, 256)]) + content[place + 1 :])
        if path.name.startswith("rows"):
            checkpoint = Store(tmp_path).newest()
            assert check(checkpoint) == 2 and (checkpoint.segments, checkpoint.damaged) == ([], [path])
        else:
            with pytest.raises(ResumeError):
                read_checkpoint(folder)
            with pytest.warns(UserWarning, match=r"Damaged checkpoint: .*000000000002.*Using .*000000000001 instead"):
                assert check(Store(tmp_path).newest()) == 1
        path.write_bytes(content)
    assert check(Store(tmp_path).newest()) == 2


def test_all_damaged(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoint-000000000001" / "state.json").unlink()
    with pytest.raises(ResumeError, match=r"No checkpoint can be read: .*state.json.*To start from the beginning, remove"):
        Store(tmp_path).newest()


def test_damaged_ones_are_put_aside(tmp_path):
    segments = save(tmp_path, 1, keep=1)
    for step in (2, 3):
        save(tmp_path, step, keep=5)
        (tmp_path / f"checkpoint-{step:012d}" / "state.json").write_text("{")
    save(tmp_path, 2, segments, keep=2)
    assert names(tmp_path) == [
        *(f"checkpoint-00000000000{step}" for step in (1, 2)),
        *(f"damaged-checkpoint-00000000000{step}" for step in (2, 3)),
    ]
    assert check(Store(tmp_path).newest()) == 2


@pytest.mark.parametrize("keep", [1, 2])
def test_damage_again_and_again(keep, tmp_path):
    """At the same step and at others: the run goes on, and only the newest damaged checkpoints stay."""
    for step in (2, 2, 2, 3, 3, 4):
        save(tmp_path, 1, keep=9)
        save(tmp_path, step, keep=9)
        (tmp_path / f"checkpoint-{step:012d}" / "state.json").write_text(f"{{ {step}")
        assert check(save_and_read(tmp_path, step, keep)) == step
    damaged = sorted(tmp_path.glob("damaged-*"))
    assert len(damaged) == keep and damaged[-1].name == "damaged-checkpoint-000000000004"
    (tmp_path / "damaged-checkpoint-000000000005").write_text("not even a folder")
    (tmp_path / "checkpoint-000000000005").write_text("nor this")
    assert check(save_and_read(tmp_path, 5, keep)) == 5


def save_and_read(folder, step, keep):
    save(folder, step, keep=keep)
    return Store(folder).newest()


def test_rows_are_read_from_another_checkpoint_that_has_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_link", shutil.copyfile)  # as where there are no hard links
    segments = save(tmp_path, 1)
    save(tmp_path, 2, segments)
    (tmp_path / "checkpoint-000000000002" / segments[0].file.name).write_bytes(b"")
    newest = Store(tmp_path).newest()
    assert check(newest) == 2 and newest.damaged == [] and len(newest.segments) == 2


def test_other_formats_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FORMAT", 2)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(ResumeError, match="has format 2; this version of the package reads format 1"):
        read_checkpoint(tmp_path / "checkpoint-000000000001")


def test_only_files_of_the_folder_are_read(tmp_path, monkeypatch):
    save(tmp_path, 1)
    folder = tmp_path / "checkpoint-000000000001"
    (tmp_path / "outside").write_text("secret")
    text = (folder / "manifest.json").read_text()
    manifest = json.loads(text)
    manifest["files"]["../outside"] = digest(tmp_path / "outside")
    (folder / "manifest.json").write_text(manifest_text(manifest))
    with pytest.raises(ResumeError, match="outside is not a file of this checkpoint"):
        read_checkpoint(folder)
