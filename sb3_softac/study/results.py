"""Results of the runs of a study."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sb3_softac.study.checks import made_otherwise
from sb3_softac.study.declaration import Run, Study

TRAINING_EPISODES = 20


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a finished run, or the partial result of an unfinished one."""

    run: Run
    timesteps: np.ndarray
    """Environment steps at the evaluations."""
    returns: dict[str, np.ndarray]
    """Mean return at each evaluation ``[evaluations]``, by evaluation mode."""
    seconds: np.ndarray
    """Seconds of training at the evaluations; NaN if not measured."""
    train_returns: np.ndarray
    """Return of each training episode, with exploration."""
    versions: dict[str, str]

    def final(self, mode: str) -> float:
        """
        :param mode: Evaluation mode.
        :return: Mean return at the last evaluation.
        """
        return float(self.returns[mode][-1])

    def mean(self, mode: str) -> float:
        """
        :param mode: Evaluation mode.
        :return: Mean return of all evaluations, which is high for a run that learns early.
        """
        return float(self.returns[mode].mean())

    @property
    def training(self) -> float:
        """Mean return of the last training episodes; NaN if no episode was finished."""
        return float(self.train_returns[-TRAINING_EPISODES:].mean()) if len(self.train_returns) else float("nan")


@dataclasses.dataclass(frozen=True)
class Missing:
    """A run without a result."""

    run: Run
    why: str


def read_results(study: Study) -> tuple[list[Result], list[Result], list[Missing]]:
    """
    :param study: Study.
    :return: The results, the partial results of unfinished runs, and the runs without a result, each with the reason. Every
        run is in the first or in the last list.
    """
    results: list[Result] = []
    cut: list[Result] = []
    missing: list[Missing] = []
    for run in study.runs:
        if change := made_otherwise(study, run):
            missing.append(Missing(run, f"run with a different declaration ({change})"))
        elif study.result_of(run).exists():
            results.append(read_result(run, study.result_of(run)))
        elif study.partial_result_of(run).exists():
            cut.append(read_result(run, study.partial_result_of(run)))
            missing.append(Missing(run, f"stopped after step {cut[-1].timesteps[-1]} of {run.n_timesteps}, or still running"))
        else:
            missing.append(Missing(run, "started" if study.declaration_of(run).exists() else "not started"))
    return results, cut, missing


def read_result(run: Run, path: Path) -> Result:
    """
    :param run: Run.
    :param path: File of its result.
    :return: Its result.
    """
    with np.load(path) as data:
        return Result(
            run,
            data["timesteps"],
            {mode: data[mode].mean(axis=1) for mode in run.evaluation_modes},
            data["seconds"],
            data["train_returns"],
            json.loads(str(data["versions"])),
        )


def by_name(results: Iterable[Result], env: str) -> dict[str, list[Result]]:
    """
    :param results: Results.
    :param env: Environment.
    :return: The results of the environment by name; the runs of a list differ only in the seed.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.run.env == env:
            groups.setdefault(result.run.name, []).append(result)
    return groups


def curves(group: list[Result], mode: str) -> np.ndarray:
    """
    :param group: Runs that differ only in the seed.
    :param mode: Evaluation mode.
    :return: Their returns ``[runs, evaluations]``.
    """
    return np.array([result.returns[mode] for result in group])
