"""Signals of the processes in which environments run."""

import atexit
import contextlib
from collections.abc import Iterable
from typing import Any

from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_softac.resume.environments import Resumable


class WorkerSignals:
    """
    Keeps processes of environments alive when SIGTERM is sent to a whole group of processes, as cluster managers do: the
    training still has to save their state.
    """

    def __init__(self) -> None:
        self._protected: list[SubprocVecEnv] = []

    def protect(self, venvs: Iterable[Any]) -> None:
        """Make those that are :class:`Resumable` ignore SIGTERM from now on."""
        self.release()
        bases: list[Any] = [venv.unwrapped for venv in venvs if isinstance(venv, VecEnv)]
        self._protected = [base for base in bases if isinstance(base, SubprocVecEnv) and all(base.env_is_wrapped(Resumable))]
        self._set_ignored(True)
        if self._protected:
            # Before multiprocessing's own, which would wait for ever after a SIGTERM that is ignored
            atexit.register(self._kill)

    def release(self) -> None:
        """Make them end on SIGTERM again."""
        self._set_ignored(False)
        self._protected = []
        atexit.unregister(self._kill)

    def _set_ignored(self, ignored: bool) -> None:
        for base in self._protected:
            with contextlib.suppress(OSError, EOFError):  # of a process that has ended
                base.env_method("ignore_sigterm", ignored)

    def _kill(self) -> None:
        for process in [process for base in self._protected for process in base.processes]:
            if process.is_alive():
                process.kill()
