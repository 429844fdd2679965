"""Files that are complete and on disk, or not there."""

import errno
import os

import pytest

from sb3_softac import files


@pytest.fixture
def calls(monkeypatch):
    """What reached the disk or changed a name, in order."""
    made = []

    def noted(name):
        original = getattr(os, name)

        def call(*args):
            places = [os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else str(place) for place in args]
            made.append((name, *(os.path.basename(place) for place in places)))
            return original(*args)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace"):
        noted(name)
    return made


def test_on_disk_before_and_after_the_rename(tmp_path, calls):
    (tmp_path / "a").write_bytes(b"old")
    with files.replacing(tmp_path / "a") as file:
        file.write(b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    writing = calls[0][1]
    assert calls == [("fsync", writing), ("replace", writing, "a"), ("fsync", tmp_path.name)]


def test_two_writers_at_a_time(tmp_path):
    """Programs in two containers may have the same process number; here it is one process."""
    with files.replacing(tmp_path / "a") as slow:
        slow.write(b"slow")
        with files.replacing(tmp_path / "a") as fast:
            fast.write(b"fast")
        assert (tmp_path / "a").read_bytes() == b"fast"
    assert (tmp_path / "a").read_bytes() == b"slow"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folders_that_cannot_be_written_through(tmp_path, monkeypatch):
    """As on some network file systems."""
    original = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with files.replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_new_folders_are_on_disk(tmp_path, calls):
    with files.replacing(tmp_path / "b" / "c" / "d") as file:
        file.write(b"")
    assert calls[:2] == [("fsync", tmp_path.name), ("fsync", "b")] and calls[-1] == ("fsync", "c")


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "a") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with files.replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


def test_who_may_read_a_file_stays_the_same(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    with files.replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
