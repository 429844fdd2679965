"""Results of the runs of a study."""

import dataclasses
import functools
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from sb3_softac.files import replacing
from sb3_softac.resume.store import Store
from sb3_softac.study.declaration import Run, Study, StudyError

TRAINING_EPISODES = 20


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a finished run, or the partial result of an unfinished one, up to the declared number of steps."""

    run: Run
    timesteps: np.ndarray
    """Environment steps at the evaluations."""
    returns: dict[str, np.ndarray]
    """Mean return at each evaluation ``[evaluations]``, by evaluation mode."""
    seconds: np.ndarray
    """Seconds of training at the evaluations; NaN if not measured."""
    train_returns: np.ndarray
    """Return of each training episode, with exploration."""
    train_timesteps: np.ndarray
    """Environment steps at the end of each training episode."""
    versions: dict[str, str]

    def final(self, mode: str) -> float:
        """Mean return at the last evaluation."""
        return float(self.returns[mode][-1])

    def mean(self, mode: str) -> float:
        """Mean return of all evaluations, which is high for a run that learns early."""
        return float(self.returns[mode].mean())

    @property
    def training(self) -> float:
        """Mean return of the last training episodes; NaN if no episode was finished."""
        return float(self.train_returns[-TRAINING_EPISODES:].mean()) if len(self.train_returns) else float("nan")

    def first(self, evaluations: int, step: int) -> "Result":
        """The result as if the run had ended after so many evaluations, and its training episodes at that step."""
        within = self.train_timesteps <= step
        return dataclasses.replace(
            self,
            timesteps=self.timesteps[:evaluations],
            returns={mode: returns[:evaluations] for mode, returns in self.returns.items()},
            seconds=self.seconds[:evaluations],
            train_returns=self.train_returns[within],
            train_timesteps=self.train_timesteps[within],
        )

    def until(self, step: int) -> "Result":
        """
        :param step: Environment steps.
        :return: The result as if the run had ended at the evaluation nearest to that step. The number of environments that an
            algorithm steps at a time may shift its evaluations by some steps.
        """
        distance = np.abs(self.timesteps - step)
        nearest = int(np.flatnonzero(distance == distance.min())[-1])
        return self.first(nearest + 1, max(step, int(self.timesteps[nearest])))


@dataclasses.dataclass(frozen=True)
class Missing:
    """A run without a result."""

    run: Run
    why: str


def read_results(study: Study) -> tuple[list[Result], list[Result], list[Missing]]:
    """Results, partial results of unfinished runs, and missing runs with the reasons: each run is in the first or the last."""
    results: list[Result] = []
    partial: list[Result] = []
    missing: list[Missing] = []
    for run in study.runs:
        try:
            if change := changed_settings(study, run):
                missing.append(Missing(run, f"run with a different declaration ({change})"))
                continue
            result = read_result(run, study.result_of(run)) if study.result_of(run).exists() else None
        except StudyError as error:  # a damaged file
            missing.append(Missing(run, str(error)))
            continue
        if result is not None and len(result.timesteps):
            results.append(result)
        elif result is not None:
            missing.append(Missing(run, "ended by a callback before the first evaluation"))
        else:
            with suppress(StudyError, FileNotFoundError):  # damaged: written again when the run continues
                so_far = read_result(run, study.partial_result_of(run))
                is_own = not _change(_declaration_in(study.partial_result_of(run)), run)
                partial += [so_far] if len(so_far.timesteps) and is_own else []
            missing.append(Missing(run, _state(study, run, partial)))
    return results, partial, missing


def _state(study: Study, run: Run, partial: list[Result]) -> str:
    if (reason := failure_reason(study, run)) is not None:
        return f"failed: {reason}"
    if partial and partial[-1].run is run:
        return f"stopped after step {partial[-1].timesteps[-1]} of {run.n_timesteps}, or still running"
    return "started" if study.declaration_of(run).exists() else "not started"


def failure_reason(study: Study, run: Run) -> str | None:
    """:return: Why a run failed when it was last started; None if it did not."""
    with suppress(OSError):
        lines = study.failure_of(run).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[0] if lines else "unknown reason"
    return None


def write_failure(study: Study, run: Run, reason: str) -> None:
    with suppress(OSError), replacing(study.failure_of(run)) as file:  # a full disk has another reason to report
        file.write(reason.encode(errors="replace"))


def is_finished(study: Study, run: Run) -> bool:
    """:return: Whether the result of a run is there. Warns about one that is damaged, which counts as none."""
    if not study.result_of(run).exists():
        return False
    try:
        read_result(run, study.result_of(run))
    except StudyError as error:
        warnings.warn(f"{error}. {run.id} counts as not finished", stacklevel=2)
        return False
    return True


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """:raises StudyError: if the file is damaged."""
    try:
        with open(path, "rb") as file, np.load(file) as data:
            return {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever zip, zlib and NumPy find wrong
        raise StudyError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def read_result(run: Run, path: Path) -> Result:
    """The result in a file, up to the declared number of steps; StudyError if the file is damaged."""
    data = read_arrays(path)
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # returns that are not finite
            result = Result(
                run,
                data["timesteps"],
                {mode: data[mode].mean(axis=-1) if len(data["timesteps"]) else np.zeros(0) for mode in run.evaluation_modes},
                data["seconds"],
                data["train_returns"],
                data["train_timesteps"],
                dict(json.loads(str(data["versions"]))),
            )
        shapes = {result.seconds.shape, *(returns.shape for returns in result.returns.values())}
        if (
            result.timesteps.ndim != 1
            or shapes != {result.timesteps.shape}
            or result.train_returns.shape != result.train_timesteps.shape
        ):
            raise ValueError(f"arrays do not match: {[*map(np.shape, data.values())]}")
        within = int(np.sum(result.timesteps <= run.n_timesteps))
        return result.first(within or 1, run.n_timesteps)  # a single step of all environments may pass n_timesteps
    except (KeyError, ValueError, TypeError) as error:
        raise StudyError(f"{path} is not the result of this run ({type(error).__name__}: {error})") from error


def changed_settings(study: Study, run: Run) -> str | None:
    """How a run differs from its declaration when it was started; None if it does not, StudyError if that is unreadable."""
    return next(filter(None, (_change(before, run) for before in _started_with(study, run))), None)


def _change(before: dict[str, Any], run: Run) -> str:
    now = json.loads(run.as_json())
    if not ("defaults" in before and "defaults" in now):  # the hyperparameter files have not been read
        before.pop("defaults", None)
        now.pop("defaults", None)
    return ", ".join(_differences(before, now))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{key}: {difference}" for difference in _differences(old, new))
        elif _comparable(old) != _comparable(new):
            yield f"{key}: {old} -> {new}"


def _comparable(value: Any) -> str:
    """:return: A value as text, in which True is not 1, and functions are the same wherever they are in memory."""
    return re.sub(r" at 0x[\dA-Fa-f]+", "", json.dumps(value, sort_keys=True))


def _started_with(study: Study, run: Run) -> Iterator[dict[str, Any]]:
    """:return: The declarations in the folder and in the result of a run; none if it was not started."""
    declaration, results = study.declaration_of(run), [study.result_of(run)]
    # A run that failed before its first checkpoint has left nothing to continue
    if declaration.exists() and Store(study.checkpoints_of(run)).checkpoints():
        results.append(study.partial_result_of(run))
        try:
            yield dict(json.loads(declaration.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StudyError(
                f"{declaration} cannot be read ({error}): remove the folder {declaration.parent} to start this run over"
            ) from error
    for result in results:
        with suppress(StudyError, FileNotFoundError):  # a damaged result counts as none
            yield _declaration_in(result)


def _declaration_in(result: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(str(read_arrays(result)["declaration"])))
    except (KeyError, ValueError, TypeError) as error:
        raise StudyError(f"{result} has no declaration ({error!r})") from error


def by_name(results: Iterable[Result], env: str) -> dict[str, list[Result]]:
    """:return: The results of an environment by name; the runs of a list differ only in the seed."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.run.env == env:
            groups.setdefault(result.run.name, []).append(result)
    return groups


def at_equal_steps(groups: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """:return: The results as if all runs had ended at the last evaluation that each of them has."""
    last = min((int(result.timesteps[-1]) for group in groups.values() for result in group), default=0)
    return {name: [result.until(last) for result in group] for name, group in groups.items()}


def shared_evaluations(group: list[Result]) -> list[np.ndarray]:
    """:return: For each run of a group, the indices of the evaluations at the steps that all of them have."""
    steps: np.ndarray = functools.reduce(np.intersect1d, [result.timesteps for result in group])
    return [np.searchsorted(result.timesteps, steps, side="right") - 1 for result in group]
