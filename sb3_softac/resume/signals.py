"""Signals that end a program, handled at a suitable moment."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_softac.resume.frames import frames_of_learn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SignalWatch:
    """Records the first SIGTERM or SIGINT; a second one has its usual effect."""

    def __init__(self) -> None:
        self.caught: int | None = None
        """The signal that was received; None if there was none."""
        self._before: dict[int, Any] = {}
        self._model: BaseAlgorithm | None = None

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
        is_training = any(call.f_locals.get("self") is self._model for call in frames_of_learn(frame))
        self.stop()
        if not is_training:
            signal.raise_signal(number)
            return
        self.caught = number
        # Not by print(), which may be what was interrupted
        message = f"{signal.Signals(number).name}: saving a checkpoint; send the signal again to end the program at once\n"
        os.write(2, message.encode())
