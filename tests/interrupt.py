"""Trainings that are interrupted at a step, however fast the machine is."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

VARIABLE = "INTERRUPT"


def at(step: int, number: signal.Signals) -> dict[str, str]:
    """:return: Environment variables of a process that sends itself a signal at a step."""
    return {VARIABLE: f"{step} {number.value}"}


class Interrupt(BaseCallback):
    """
    Send this process a signal at the step that an environment variable names.

    ``SIGSTOP`` holds the training there until a test kills it. Without the variable nothing happens.
    """

    def _on_step(self) -> bool:
        step, number = map(int, os.environ.get(VARIABLE, "0 0").split())
        if step and self.num_timesteps == step:
            os.kill(os.getpid(), number)
        return True


def parent_of(pid: int) -> int | None:
    """:return: Process that started this one; None if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return None


def kill_all(process: subprocess.Popen) -> None:
    """Signal 9 for a process and those that it has started, which may be in sessions of their own."""
    children = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == process.pid]
    assert children
    for pid in (process.pid, *children):
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself in the meantime
            os.kill(pid, signal.SIGKILL)
    process.wait()
