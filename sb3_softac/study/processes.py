"""
Runs of a study in processes of their own, on this machine or on a Ray cluster, with their progress.

Each process receives the declaration as it was when the study was started, even if the file has changed since.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.results import failure_reason, write_failure

LOG = "log.txt"
INTERRUPTED = {130: "SIGINT", 143: "SIGTERM"}  # exit codes after a checkpoint was saved on a signal
RAY_RETRIES = 5
REFRESH_SECONDS = 0.5


class RunFailed(Exception):
    """Why a run failed."""


def run_locally(study: Study, runs: list[Run], jobs: int) -> dict[str, str]:
    """:return: The reasons of failed runs, by run id."""
    processes = LocalProcesses(study)
    # SIGTERM raises an exception, as SIGINT does, so that this program can still notify its processes
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                return watch(study, [(run, pool.submit(processes.complete, run)) for run in runs])
            except BaseException:
                processes.terminate()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def run_on_ray(study: Study, runs: list[Run], address: str, cpus: float, gpus: float) -> dict[str, str]:
    """
    Complete each run in a task, and return the reasons of failed runs by id. If a worker or node is lost, its run resumes on
    another one. All nodes must see the folders of the study under the same path.
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError("--engine ray needs Ray: pip install 'sb3_softac[cluster]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StudyError(f"--address {address}: {error}") from error

    # A process of its own for each run, as its threads and random generators are set for the whole process
    @ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RAY_RETRIES, max_calls=1)
    def task(run: Run) -> None:
        from sb3_softac.study.training import work

        work(study, run)

    for run in runs:
        study.failure_of(run).unlink(missing_ok=True)
    environments = [{"env_vars": thread_limits(run.threads)} for run in runs]
    tasks = [task.options(runtime_env=env).remote(run) for run, env in zip(runs, environments, strict=True)]
    return watch(study, [(run, reference.future()) for run, reference in zip(runs, tasks, strict=True)])


def thread_limits(threads: int) -> dict[str, str]:
    """:return: Environment variables that limit the numerical libraries to this number of threads."""
    return {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


class LocalProcesses:
    """The processes of a study on this machine."""

    def __init__(self, study: Study):
        self.study = study
        self._running: list[subprocess.Popen[bytes]] = []
        self._ended = False

    def complete(self, run: Run) -> None:
        """Complete a run in a separate process, which writes a log to the run's folder. Raises RunFailed if it fails."""
        log, failure = self.study.folder_of(run) / LOG, self.study.failure_of(run)
        sent = pickle.dumps((self.study, run))
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            failure.unlink(missing_ok=True)
            with open(log, "ab") as file:
                start = file.tell()
                if self._ended:
                    raise RunFailed("not started")
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
                process.communicate(sent)
            if process.returncode == 0 and self.study.result_of(run).exists():
                return
            reason = failure_reason(self.study, run) or exit_reason(process.returncode)
            if reason is None:
                output = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
                last = f"its last output: {output[-1]}" if output else "no output"
                reason = f"ended without a result or an error; {last}"
        except OSError as error:  # no space, no more processes: other runs may still end well
            raise RunFailed(f"cannot be started: {error}") from error
        if process.returncode not in INTERRUPTED and not self._ended and not failure.exists():
            write_failure(self.study, run, f"{reason}\n")
        raise RunFailed(f"{reason} (exit code {process.returncode}, see {log})")

    def terminate(self) -> None:
        """Make all processes save a checkpoint and end."""
        self._ended = True
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            process.wait()


def exit_reason(code: int) -> str | None:
    """:return: How a process with this exit code (negative for a signal) ended, if a signal ended it."""
    if code in INTERRUPTED:
        return f"interrupted by {INTERRUPTED[code]}; the same command continues it"
    if code >= 0:
        return None
    name = next((f" ({one.name})" for one in signal.Signals if one == -code), "")
    return f"killed by signal {-code}{name}" + (", perhaps because memory ran out" if code == -9 else "")


def failure_of(study: Study, run: Run, future: "Future[None]") -> str | None:
    """:return: Why a run that has ended failed: what it wrote itself, or what is known of a process that died."""
    error = future.exception()
    if error is None or isinstance(error, RunFailed):
        return None if error is None else str(error)
    path = study.failure_of(run)
    if not path.exists():
        write_failure(study, run, f"{' '.join(str(error).split())}\n\n{error}\n")
    return f"{failure_reason(study, run)} (see {path})"


def steps_of(study: Study, run: Run) -> int:
    """:return: Environment steps of a run so far."""
    if study.result_of(run).exists():
        return run.n_timesteps
    with suppress(OSError, ValueError):  # not begun, or being written
        return min(int(study.progress_of(run).read_text()), run.n_timesteps)
    return 0


def watch(study: Study, futures: "list[tuple[Run, Future[None]]]") -> dict[str, str]:
    """Show steps, runs and the remaining time until all runs have ended, and return why runs failed, by run id."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    ended: set[str] = set()
    failures: dict[str, str] = {}
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as progress:
        title = f"{study.name}, steps"
        whole = progress.add_task(title, total=sum(run.n_timesteps for run, _ in futures))
        bars: dict[str, TaskID] = {}
        while len(ended) < len(futures):
            done = 0
            for run, future in futures:
                is_over, steps = future.done(), steps_of(study, run)
                done += steps
                if is_over and run.id not in ended:
                    ended.add(run.id)
                    if (failure := failure_of(study, run, future)) is not None:
                        failures[run.id] = failure
                    if run.id in bars:
                        progress.remove_task(bars[run.id])
                    outcome = f"failed: {failure}" if failure else "done"
                    progress.console.print(f"{run.id}: {outcome}", markup=False, highlight=False)
                elif not is_over and steps:
                    if run.id not in bars:
                        bars[run.id] = progress.add_task(f"  {run.id}", total=run.n_timesteps)
                    progress.update(bars[run.id], completed=steps)
            failed = f" ({len(failures)} of {len(futures)} runs failed)" if failures else ""
            progress.update(whole, completed=done, description=title + failed)
            time.sleep(REFRESH_SECONDS)
    return failures
