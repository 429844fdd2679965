"""Live progress of a study, read from the folders of its runs."""

import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sb3_softac.study.declaration import Run, Study

Outcome = dict[str, str | None]
"""By the id of a run that has ended: the reason if it failed, otherwise None."""
SECONDS = 0.5


def steps_of(study: Study, run: Run) -> int:
    """
    :param study: Study.
    :param run: One of its runs.
    :return: Its environment steps so far.
    """
    if study.result_of(run).exists():
        return run.n_timesteps
    with suppress(OSError, ValueError):  # not begun, or being written
        return min(int(study.progress_of(run).read_text()), run.n_timesteps)
    return 0


def watch(study: Study, runs: list[Run], outcome: Callable[[], Outcome]) -> None:
    """
    Show steps, runs and an estimate of the remaining time until all runs have ended.

    :param study: Study.
    :param runs: The active runs.
    :param outcome: The outcome of runs that have ended.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as progress:
        whole = progress.add_task(f"{study.name}, steps", total=sum(run.n_timesteps for run in runs))
        bars: dict[str, TaskID] = {}
        over: Outcome = {}
        while len(over) < len(runs):
            over = outcome()
            done = 0
            for run in runs:
                steps = steps_of(study, run)
                done += steps
                if run.id in over:
                    _report(progress, bars, run, over[run.id])
                elif steps and run.id not in bars:
                    bars[run.id] = progress.add_task(f"  {run.id}", total=run.n_timesteps)
                if run.id in bars and run.id not in over:
                    progress.update(bars[run.id], completed=steps)
            failed = sum(reason is not None for reason in over.values())
            title = f"{study.name}, steps" + (f" ({failed} of {len(runs)} runs failed)" if failed else "")
            progress.update(whole, completed=done, description=title)
            time.sleep(SECONDS)


def _report(progress: Progress, bars: dict[str, TaskID], run: Run, failure: str | None) -> None:
    """Remove the progress bar of a run that has ended, once."""
    if bars.get(run.id) == -1:
        return
    if run.id in bars:
        progress.remove_task(bars[run.id])
    bars[run.id] = TaskID(-1)
    message = "done" if failure is None else f"failed: {failure}"
    progress.console.print(f"{run.id}: {message}", markup=False, highlight=False)
