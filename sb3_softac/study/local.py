"""Runs of a study on one machine: as many processes as cores."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

from sb3_softac.study.declaration import Run, Study
from sb3_softac.study.progress import watch
from sb3_softac.study.results import failure_reason, write_failure

LOG = "log.txt"
INTERRUPTED = {130: "SIGINT", 143: "SIGTERM"}
"""Exit codes after a checkpoint was saved on a signal."""
KILL = 9
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMBA")


def thread_limits(threads: int) -> dict[str, str]:
    """
    :param threads: Threads of a run.
    :return: Environment variables that limit the numerical libraries to this number.
    """
    return {f"{library}_NUM_THREADS": str(threads) for library in THREADS}


def end_of_process(code: int) -> str | None:
    """
    :param code: Exit code of a process, negative for a signal.
    :return: How it ended, if a signal did that.
    """
    if code in INTERRUPTED:
        return f"interrupted by {INTERRUPTED[code]}; the same command continues it"
    if code >= 0:
        return None
    name = next((f" ({one.name})" for one in signal.Signals if one == -code), "")
    return f"killed by signal {-code}{name}" + (", perhaps because memory ran out" if -code == KILL else "")


class Processes:
    """
    The processes of a study.

    :param study: Study.
    """

    def __init__(self, study: Study):
        self.study = study
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = False

    def run(self, run: Run) -> str | None:
        """
        Complete a run in a separate process, which writes a log to the run's folder.

        :param run: One of the runs.
        :return: The reason if it failed, otherwise None.
        """
        try:
            return self._run(run)
        except OSError as error:  # no space, no more processes: other runs may still end well
            return f"cannot be started: {error}"

    def _run(self, run: Run) -> str | None:
        log, failure = self.study.folder_of(run) / LOG, self.study.failure_of(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        failure.unlink(missing_ok=True)
        with open(log, "ab") as file:
            start = file.tell()
            if self._ended:
                return "not started"
            # In a session of its own: a Ctrl-C reaches this program only, which passes it on, once
            process = subprocess.Popen(
                [sys.executable, "-m", "sb3_softac.study", "work"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **thread_limits(run.threads)},
                start_new_session=True,
            )
            self._running.append(process)
            # As it was declared when the study was started, whatever becomes of the file meanwhile
            process.communicate(pickle.dumps((self.study, run)))
        if process.returncode == 0 and self.study.result_of(run).exists():
            return None
        reason = failure_reason(self.study, run) or end_of_process(process.returncode)
        if reason is None:
            said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
            reason = "ended without a result or an error; " + (f"its last output: {said[-1]}" if said else "no output")
        if process.returncode not in INTERRUPTED and not failure.exists():
            write_failure(self.study, run, f"{reason}\n")
        return f"{reason} (exit code {process.returncode}, see {log})"

    def end(self) -> None:
        """Make all processes save a checkpoint and end."""
        self._ended = True
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            process.wait()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM raise an exception as SIGINT does, so that the program can still notify its processes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_locally(study: Study, runs: list[Run], jobs: int) -> dict[str, str]:
    """
    :param study: Study.
    :param runs: The runs to complete.
    :param jobs: Number of parallel processes.
    :return: The reasons of failed runs, by run id.
    """
    processes = Processes(study)
    with terminated_as_interrupted(), ThreadPoolExecutor(jobs) as pool:
        futures: dict[str, Future[str | None]] = {run.id: pool.submit(processes.run, run) for run in runs}
        try:
            watch(study, runs, lambda: {name: future.result() for name, future in futures.items() if future.done()})
        except BaseException:
            processes.end()
            pool.shutdown(cancel_futures=True)
            raise
    return {name: reason for name, future in futures.items() if (reason := future.result()) is not None}
