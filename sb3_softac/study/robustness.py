"""Trained models under perturbations: evaluated, kept in small files, and summed up over the seeds."""

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed

from sb3_softac.study.perturbed import Line
from sb3_softac.study.statistics import SEEDS_FOR_INTERVAL, iqm_interval
from sb3_softac.zoo.trained import Trained, load_trained

SEED = 1_000_000
"""Of the first episode's environment: far from the seeds of trainings, and the same for all models and strengths."""
MOST_ENVS = 10
UNPERTURBED = "none"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A model at one strength of one perturbation: what its return depends on."""

    perturbation: str
    options: str
    """As JSON."""
    strength: float
    episodes: int


def cell_of(line: Line, strength: float, episodes: int) -> Cell:
    """
    :param line: A perturbation.
    :param strength: One of its strengths.
    :param episodes: Number of episodes.
    :return: The cell; the same one for all perturbations at their neutral strength, where they are none.
    """
    if strength == line.kind.neutral:
        return Cell(UNPERTURBED, "{}", 0.0, episodes)
    return Cell(line.perturbation, json.dumps(line.options, sort_keys=True), strength, episodes)


def cells(lines: tuple[Line, ...], episodes: int) -> Iterator[tuple[Line, float, Cell]]:
    """
    :param lines: Perturbations.
    :param episodes: Number of episodes.
    :return: Each strength of each perturbation, the neutral ones included.
    """
    for line in lines:
        for strength in line.axis:
            yield line, strength, cell_of(line, strength, episodes)


def returns_of(trained: Trained, line: Line, strength: float, episodes: int) -> list[float]:
    """
    :param trained: A trained model.
    :param line: A perturbation.
    :param strength: Its strength.
    :param episodes: Number of episodes.
    :return: Return of each episode, by deterministic actions. The episodes start alike whatever the model and the strength.
    """
    set_random_seed(SEED)
    perturbation = {line.kind: {"strength": strength, **line.options}}
    envs = trained.make_envs(min(episodes, MOST_ENVS), SEED, perturbation if strength != line.kind.neutral else None)
    try:
        returns, _ = evaluate_policy(trained.model, envs, episodes, deterministic=True, return_episode_rewards=True)
    finally:
        envs.close()
    assert isinstance(returns, list)
    return returns


def evaluate(
    folder: Path, algo: str, env: str, env_kwargs: dict[str, Any] | None, lines: tuple[Line, ...], episodes: int, file: Path
) -> dict[Cell, float]:
    """
    Evaluate a model under all perturbations. What the file has of the same model is not done again.

    :param folder: Folder of the run, as RL Zoo writes it.
    :param algo: Zoo id.
    :param env: Id of the environment.
    :param env_kwargs: Its arguments; None for those of the training.
    :param lines: Perturbations.
    :param episodes: Episodes of each strength.
    :param file: CSV file of the returns.
    :return: Mean return of each cell.
    :raises FileNotFoundError: if there is no model.
    """
    trained = load_trained(folder, algo, env, env_kwargs)
    model = hashlib.sha256((folder / f"{env}.zip").read_bytes()).hexdigest()[:12]
    known = {cell: row for cell, row in read_rows(file).items() if row["model"] == model}
    rows: dict[Cell, dict[str, Any]] = {}
    for line, strength, cell in cells(lines, episodes):
        if cell not in known:
            returns = returns_of(trained, line, strength, episodes)
            found = {"return": f"{np.mean(returns):.6g}", "deviation": f"{np.std(returns):.4g}"}
            known[cell] = {**dataclasses.asdict(cell), **found, "model": model}
        rows[cell] = known[cell]
    write_rows(list(rows.values()), file)
    return {cell: float(row["return"]) for cell, row in rows.items()}


def read_rows(file: Path) -> dict[Cell, dict[str, Any]]:
    """
    :param file: CSV file that :func:`evaluate` has written, or none.
    :return: Its rows.
    """
    if not file.exists():
        return {}
    with open(file, newline="") as content:
        rows = list(csv.DictReader(content))
    return {Cell(row["perturbation"], row["options"], float(row["strength"]), int(row["episodes"])): row for row in rows}


def write_rows(rows: list[dict[str, Any]], file: Path) -> None:
    """
    :param rows: Rows of a table.
    :param file: CSV file, replaced at once.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    writing = file.with_name(f".{file.name}.{os.getpid()}")
    with open(writing, "w", newline="") as content:
        writer = csv.DictWriter(content, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    os.replace(writing, file)


def curve(line: Line, episodes: int, runs: list[dict[Cell, float]]) -> np.ndarray:
    """
    :param line: A perturbation.
    :param episodes: Episodes of each strength.
    :param runs: Returns of runs that differ in the seed only.
    :return: Their returns over the strengths ``[runs, strengths]``.
    """
    return np.array([[run[cell] for _, _, cell in cells((line,), episodes)] for run in runs])


def summary(groups: dict[str, list[dict[Cell, float]]], lines: tuple[Line, ...], episodes: int) -> list[dict[str, str]]:
    """
    :param groups: Returns of the runs, by algorithm.
    :param lines: Perturbations.
    :param episodes: Episodes of each strength.
    :return: One row for each perturbation, strength and algorithm.
    """
    rows = []
    for line, strength, cell in cells(lines, episodes):
        for name, runs in groups.items():
            returns = [run[cell] for run in runs]
            found = iqm_interval(returns)
            rows.append(
                {
                    "algorithm": name,
                    "perturbation": line.name,
                    "strength": f"{strength:g}",
                    "unit": line.kind.unit,
                    "n": str(len(runs)),
                    "IQM": f"{found.value:.5g}",
                    "95 % interval": "-" if len(runs) < SEEDS_FOR_INTERVAL else f"{found.low:.5g} to {found.high:.5g}",
                    "all seeds": ", ".join(f"{value:.5g}" for value in sorted(returns)),
                }
            )
    return rows
