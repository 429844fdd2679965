"""Callbacks that record a study's data during training."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from sb3_softac.resume.generators import generator_states, set_generator_states


class TrainingClock(BaseCallback):
    """
    Measures the time spent in training, without evaluations and interruptions.

    It must come before the evaluations in the list of callbacks.

    :param every: Calls between two records.
    """

    not_resumed = ("_last",)

    def __init__(self, every: int):
        super().__init__()
        self.every = every
        self.seconds = 0.0
        self.noted: list[float] = []
        """Seconds at each record."""
        self._last = 0.0

    def _on_training_start(self) -> None:
        self.go_on()

    def _on_step(self) -> bool:
        now = time.perf_counter()
        self.seconds += now - self._last
        self._last = now
        if self.n_calls % self.every == 0:
            self.noted.append(self.seconds)
        return True

    def go_on(self) -> None:
        """Do not count the time since the last step."""
        self._last = time.perf_counter()


class QuietEvaluation(EvalCallback):
    """
    SB3's ``EvalCallback``, without an effect on the random numbers and the clock of the training: a run is the same however
    often and in whatever way it is evaluated.

    :param clock: Clock of the training.
    :param args: Arguments of ``EvalCallback``.
    :param kwargs: Keyword arguments of ``EvalCallback``.
    """

    def __init__(self, clock: TrainingClock, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.clock = clock

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq != 0:
            return True
        states = generator_states()
        try:
            return super()._on_step()
        finally:
            set_generator_states(states)
            self.clock.go_on()


class EveryNCalls(BaseCallback):
    """
    Calls a function at regular intervals.

    :param every: Callback calls between two calls of the function.
    :param function: Function.
    """

    not_resumed = ("function",)

    def __init__(self, every: int, function: Callable[[], None]):
        super().__init__()
        self.every, self.function = every, function

    def _on_step(self) -> bool:
        if self.n_calls % self.every == 0:
            self.function()
        return True


class ProgressFile(BaseCallback):
    """
    Writes the number of steps to a file, for the progress display.

    :param path: File.
    :param seconds: Minimum time between two writes.
    """

    not_resumed = ("path", "_written")

    def __init__(self, path: Path, seconds: float = 1.0):
        super().__init__()
        self.path, self.seconds, self._written = path, seconds, 0.0

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now - self._written >= self.seconds:
            self._written = now
            self.path.write_text(str(self.num_timesteps))
        return True
