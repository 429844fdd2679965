"""Runs of a study on one machine: as many processes as cores."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sb3_softac.study.declaration import Run, Study
from sb3_softac.study.progress import watch

LOG = "log.txt"
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMBA")


def thread_limits(threads: int) -> dict[str, str]:
    """
    :param threads: Threads of a run.
    :return: Environment variables that limit the numerical libraries to this number.
    """
    return {f"{library}_NUM_THREADS": str(threads) for library in THREADS}


class Processes:
    """
    The processes of a study.

    :param path: File of the study.
    :param study: Study.
    """

    def __init__(self, path: Path, study: Study):
        self.path, self.study = path, study
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = False

    def run(self, run: Run) -> str | None:
        """
        Complete a run in a separate process, which writes a log to the run's folder.

        :param run: One of the runs.
        :return: The reason if it failed, otherwise None.
        """
        log = self.study.folder_of(run) / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sb3_softac.study", "work", str(self.path), run.id]
        with open(log, "ab") as file:
            start = file.tell()
            if self._ended:
                return "not started"
            # In a session of its own: a Ctrl-C reaches this program only, which passes it on, once
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **thread_limits(run.threads)},
                start_new_session=True,
            )
            self._running.append(process)
            code = process.wait()
        if code == 0:
            return None
        said = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        return f"{said[-1] if said else 'no output'} (exit code {code}, see {log})"

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


def run_locally(path: Path, study: Study, runs: list[Run], jobs: int) -> dict[str, str]:
    """
    :param path: File of the study.
    :param study: Study.
    :param runs: The runs to complete.
    :param jobs: Number of parallel processes.
    :return: The reasons of failed runs, by run id.
    """
    processes = Processes(path, study)
    with terminated_as_interrupted(), ThreadPoolExecutor(jobs) as pool:
        futures: dict[str, Future[str | None]] = {run.id: pool.submit(processes.run, run) for run in runs}
        try:
            watch(study, runs, lambda: {name: future.result() for name, future in futures.items() if future.done()})
        except BaseException:
            processes.end()
            pool.shutdown(cancel_futures=True)
            raise
    return {name: reason for name, future in futures.items() if (reason := future.result()) is not None}
