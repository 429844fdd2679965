"""Trained models under perturbations: evaluated, kept in small files, and summed up over the seeds."""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed

from sb3_softac.files import replacing
from sb3_softac.robustness import PERTURBATIONS
from sb3_softac.study.declaration import Line, StudyError
from sb3_softac.study.statistics import SEEDS_FOR_INTERVAL, iqm_interval
from sb3_softac.zoo.trained import Trained, load_trained, model_of

SEED = 1_000_000
"""Of the first episode's environment: far from the seeds of trainings, and the same for all models and strengths."""
MOST_ENVS = 10
UNPERTURBED = "none"
COLUMNS = ("perturbation", "options", "strength", "episodes", "return", "deviation", "model")
"""Of the file of a run."""
INTERVAL = "95 % interval"
"""A column of the summary."""


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
    Evaluate a model under all perturbations. What the file has of the same model is kept and not done again.

    :param folder: Folder of the run, as RL Zoo writes it.
    :param algo: Zoo id.
    :param env: Id of the environment.
    :param env_kwargs: Its arguments; None for those of the training.
    :param lines: Perturbations.
    :param episodes: Episodes of each strength.
    :param file: CSV file of the returns.
    :return: Mean return of each cell, those among them that the file had before.
    :raises FileNotFoundError: if there is no model.
    """
    trained = load_trained(folder, algo, env, env_kwargs)
    model = digest_of(folder, env)
    rows = {cell: row for cell, row in read_rows(file).items() if row["model"] == model}
    for line, strength, cell in cells(lines, episodes):
        if cell not in rows:
            returns = returns_of(trained, line, strength, episodes)
            found = {"return": f"{np.mean(returns):.6g}", "deviation": f"{np.std(returns):.4g}"}
            rows[cell] = {**dataclasses.asdict(cell), **found, "model": model}
            write_rows(list(rows.values()), file)
    return {cell: float(row["return"]) for cell, row in rows.items()}


def digest_of(folder: Path, env: str) -> str:
    """
    :param folder: Folder of a run.
    :param env: Id of the environment.
    :return: What tells its model from others.
    """
    return hashlib.sha256(model_of(folder, env).read_bytes()).hexdigest()[:12]


def read_rows(file: Path) -> dict[Cell, dict[str, Any]]:
    """
    :param file: CSV file that :func:`evaluate` has written, or none.
    :return: Its rows.
    :raises StudyError: if it is another file.
    """
    if not file.exists():
        return {}
    try:
        with open(file, newline="", encoding="utf-8") as content:
            rows = [{column: row[column] for column in COLUMNS} for row in csv.DictReader(content)]
        cells = [Cell(row["perturbation"], row["options"], float(row["strength"]), int(row["episodes"])) for row in rows]
        _ = [float(row["return"]) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise StudyError(f"{file} has no returns under perturbations: remove it, or write the results elsewhere") from error
    return dict(zip(cells, rows, strict=True))


def write_rows(rows: list[dict[str, Any]], file: Path) -> None:
    """
    :param rows: Rows of a table.
    :param file: CSV file, replaced at once.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    with replacing(file) as content:
        content.write(text.getvalue().encode())


def known_lines(groups: dict[str, list[dict[Cell, float]]]) -> list[tuple[Line, int]]:
    """
    :param groups: Returns of the runs, by algorithm.
    :return: The perturbations that all of them have been evaluated under, with the strengths and numbers of episodes.
    """
    first, *others = [run for group in groups.values() for run in group]
    strengths: dict[tuple[str, str, int], list[float]] = {}
    for cell in first:
        if all(cell in run for run in others) and cell.perturbation in PERTURBATIONS:
            strengths.setdefault((cell.perturbation, cell.options, cell.episodes), []).append(cell.strength)
    return [
        (Line(label_of(name, options := json.loads(text)), name, options, tuple(sorted(values))), episodes)
        for (name, text, episodes), values in strengths.items()
    ]


def label_of(perturbation: str, options: dict[str, Any]) -> str:
    """
    :param perturbation: Key of ``PERTURBATIONS``.
    :param options: Its options.
    :return: What it is called where it has no name of its own.
    """
    return " ".join([perturbation, *map(str, options.values())])


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
                    "episodes": str(episodes),
                    "n": str(len(runs)),
                    "IQM": f"{found.value:.5g}",
                    INTERVAL: "-" if len(runs) < SEEDS_FOR_INTERVAL else f"{found.low:.5g} to {found.high:.5g}",
                    "all seeds": ", ".join(f"{value:.5g}" for value in sorted(returns)),
                }
            )
    return rows
