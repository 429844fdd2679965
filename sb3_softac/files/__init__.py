"""Files that are replaced atomically: a crash at any moment leaves the old content or the new, complete and on disk."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders, and writes their entries by itself
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some file systems cannot do it
            raise
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create a folder and those above it, on disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces the one at the path when it is complete and on disk."""
    path = Path(os.path.realpath(path))
    make_folder(path.parent)
    writing = path.with_name(f".{path.name}.{uuid4().hex}")  # containers that share it may have equal process numbers
    try:
        with open(writing, "wb") as file:
            with suppress(FileNotFoundError):  # the file keeps its permissions
                writing.chmod(stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(writing, path)
    except BaseException:
        writing.unlink(missing_ok=True)
        raise
    sync(path.parent)
