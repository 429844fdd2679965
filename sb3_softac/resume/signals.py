"""Signals that end a program, handled at a suitable moment, and those of the processes in which environments run."""

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_softac.resume.environments import Resumable
from sb3_softac.resume.frames import frames_of_learn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A job manager signals all processes of a job, and the one that has started this one passes the signal on to it
SAME_SIGNAL_SECONDS = 5.0


class SignalWatch:
    """Records the first SIGTERM or SIGINT; a second one, at least five seconds later, has its usual effect."""

    def __init__(self) -> None:
        self.caught: int | None = None
        """The signal that was received; None if there was none."""
        self._before: dict[int, Any] = {}
        self._model: BaseAlgorithm | None = None
        self._time = 0.0

    def start(self, model: BaseAlgorithm) -> None:
        """Start watching, if in the main thread; other threads receive no signals."""
        self.caught, self._model = None, model
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._catch) for number in SIGNALS}

    def stop(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self._model = {}, None

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.caught is not None and now - self._time < SAME_SIGNAL_SECONDS:
            return
        is_training = any(call.f_locals.get("self") is self._model for call in frames_of_learn(frame))
        if self.caught is not None or not is_training:
            self.stop()
            signal.raise_signal(number)
            return
        self.caught, self._time = number, now
        # Not with print(): the signal may have interrupted one
        again = f"after {SAME_SIGNAL_SECONDS:.0f} seconds, send the signal again to end the program at once"
        os.write(2, f"{signal.Signals(number).name}: saving a checkpoint; {again}\n".encode())


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
            # Runs before multiprocessing's own handler, which would wait forever for processes that ignore SIGTERM
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
