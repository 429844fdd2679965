"""One training at a time in a folder of checkpoints."""

import errno
import json
import os
import socket
import sys
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac.algorithm.callbacks import all_callbacks
from sb3_softac.files.plain_files import read_plain_json
from sb3_softac.resume.frames import frames_of_learn
from sb3_softac.resume.serialization import ResumeError

LOCK, HOLDER = "lock", "lock.json"
WAIT_SECONDS = 60.0  # a job that was told to end still saves a checkpoint
HELD: "weakref.WeakValueDictionary[str, FolderLock]" = weakref.WeakValueDictionary()
"""The locks of this process by folder."""


class FolderLock:
    """Makes sure that one training at a time writes into a folder. The operating system frees the lock when a process ends."""

    def __init__(self, path: Path):
        self.path = Path(os.path.abspath(path))  # the program may change its working directory
        self._lock: Any = None
        self._owner: Any = None

    def acquire(self, callback: BaseCallback) -> None:
        """
        Acquire the lock and check that the folder can be written. If another process holds it, wait for that process, for
        example a job that has been told to end; after a minute, give up.
        """
        key = os.path.realpath(self.path)
        earlier = HELD.get(key)
        if earlier is not None:
            if earlier is not self and earlier._is_training():
                raise ResumeError(
                    f"Another ExactCheckpoint of this process writes into {self.path}: give each training its own folder"
                )
            earlier.release()  # of a training that has ended with an error
        self._owner = weakref.ref(callback)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(os.path.join(key, LOCK), thread_local=False)
            try:
                self._wait()
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                warnings.warn(
                    f"The file system of {self.path} has no locks ({error}): make sure that only one program at a "
                    "time uses this folder",
                    stacklevel=2,
                )
            HELD[key] = self
            self._write_holder()
        except OSError as error:
            self.release()
            raise OSError(
                f"Checkpoints cannot be saved in {self.path} ({error}). Choose another folder, or make this one writable"
            ) from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock if it is held."""
        for key in [key for key, lock in HELD.items() if lock is self]:
            del HELD[key]
            with suppress(OSError):
                (self.path / HOLDER).unlink()
        if self._lock is not None:
            self._lock.release(force=True)
        self._lock = self._owner = None

    def _wait(self) -> None:
        try:
            self._lock.acquire(timeout=0)
            return
        except Timeout:
            warnings.warn(
                f"{self.path} is in use by {self._holder()}. Waiting for it to end, {WAIT_SECONDS:.0f} seconds at most",
                stacklevel=2,
            )
        try:
            self._lock.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            raise ResumeError(
                f"{self.path} is still in use by {self._holder()}. End that program first, or choose another folder"
            ) from None

    def _write_holder(self) -> None:
        """Say who holds the lock, by a file that replaces a link instead of following it."""
        writing = self.path / f".{HOLDER}.{uuid4().hex}"
        with open(writing, "x") as file:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        os.replace(writing, self.path / HOLDER)

    def _holder(self) -> str:
        try:
            holder = json.loads(read_plain_json(self.path / HOLDER))
            return f"process {int(holder['pid'])} on {str(holder['host'])[:200]!r}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def _is_training(self) -> bool:
        """Whether some thread is in a ``learn`` with the callback that acquired this lock."""
        owner = self._owner and self._owner()
        return owner is not None and any(
            callback is owner
            for innermost in sys._current_frames().values()
            for frame in frames_of_learn(innermost)
            for callback in all_callbacks(frame.f_locals.get("callback"))
        )
