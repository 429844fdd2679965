"""The report of a study: one self-contained page, and its plots and tables as files."""

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from sb3_softac.study import plots
from sb3_softac.study.declaration import Study, StudyError, slug
from sb3_softac.study.evaluations import robustness_section
from sb3_softac.study.results import TRAINING_EPISODES, Missing, Result, by_name, read_results
from sb3_softac.study.statistics import (
    Interval,
    interquartile_mean,
    iqm_interval,
    probability_of_improvement,
    tolerance_interval,
)

TRAINING = f"IQM of the last {TRAINING_EPISODES} training episodes"
TEMPLATE = Path(__file__).with_name("report.html")


def number(value: float) -> str:
    """
    :param value: A number.
    :return: The number with four significant digits; a dash for NaN.
    """
    return "-" if value != value else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def iqm_of(values: list[float]) -> str:
    """
    :param values: One number per run.
    :return: Their interquartile mean as text.
    """
    return number(float(interquartile_mean(np.array(values))))


def between(interval: Interval) -> str:
    """
    :param interval: An interval.
    :return: Its limits as text; a dash if there are too few runs for one.
    """
    return "-" if interval.low != interval.low else f"{number(interval.low)} to {number(interval.high)}"


def final_table(groups: dict[str, list[Result]], mode: str) -> list[dict[str, str]]:
    """
    :param groups: Runs by name.
    :param mode: Evaluation mode.
    :return: One row per name.
    """
    rows = []
    for name, group in groups.items():
        final = [result.final(mode) for result in group]
        iqm, tolerance = iqm_interval(final), tolerance_interval(final)
        rows.append(
            {
                "algorithm": name,
                "n": str(len(final)),
                "steps": str(group[0].timesteps[-1]),
                "IQM": number(iqm.value),
                "95 % interval of the IQM": between(iqm),
                "tolerance interval": f"{number(tolerance.low)} to {number(tolerance.high)}",
                "share of agents in the tolerance interval (confidence 0.95)": f"{tolerance.share:.2f}",
                "IQM of the mean of all evaluations": iqm_of([result.mean(mode) for result in group]),
                TRAINING: iqm_of([result.training for result in group]),
                "all seeds": ", ".join(number(value) for value in sorted(final)),
            }
        )
    return rows


def improvement_table(groups: dict[str, list[Result]], mode: str) -> list[dict[str, str]]:
    """
    :param groups: Runs by name.
    :param mode: Evaluation mode.
    :return: One row per ordered pair.
    """
    rows = []
    for first, second in itertools.combinations(groups, 2):
        found = probability_of_improvement(
            [result.final(mode) for result in groups[first]], [result.final(mode) for result in groups[second]]
        )
        rows.append({"better": first, "than": second, "probability": f"{found.value:.2f}", "95 % interval": between(found)})
    return rows


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """
    :param rows: Rows of a table.
    :param path: CSV file.
    """
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def section(results: list[Result], cut: list[Result], env: str, mode: str, folder: Path) -> dict[str, Any]:
    """
    Write plots and tables of an environment.

    :param results: All results.
    :param cut: Unfinished runs.
    :param env: Environment.
    :param mode: Evaluation mode.
    :param folder: Folder of the report.
    :return: The section of the page.
    """
    groups, not_ended, name = by_name(results, env), by_name(cut, env), slug(f"{env}_{mode}")
    timed = any(np.isfinite(one.seconds).any() for group in [*groups.values(), *not_ended.values()] for one in group)
    axes = [axis for axis in plots.AXES if timed or axis != plots.SECONDS]
    drawn = {f"by_{axis.split()[0]}": plots.learning_curves(groups, not_ended, mode, axis) for axis in axes}
    if groups:
        drawn["final"] = plots.final_returns(groups, mode)
    varied = {key: None for group in groups.values() for key in group[0].run.varied}
    drawn |= {f"over_{slug(key)}": plots.sensitivity(groups, mode, key) for key in varied}
    tables = {"final": final_table(groups, mode), "improvement": improvement_table(groups, mode)}
    for part, rows in tables.items():
        if rows:
            write_table(rows, folder / f"{name}_{part}.csv")
    return {
        "env": env,
        "mode": mode,
        "plots": {part: plots.save(figure, folder / f"{name}_{part}") for part, figure in drawn.items()},
        "tables": tables,
        "algorithms": ", ".join(dict.fromkeys([*groups, *not_ended])),
    }


def write_curves(results: list[Result], path: Path) -> None:
    """
    :param results: Results.
    :param path: CSV file: one row per evaluation of each run.
    """
    rows = [
        {
            "algorithm": result.run.name,
            "environment": result.run.env,
            "seed": result.run.seed,
            "timesteps": int(result.timesteps[k]),
            "seconds": f"{result.seconds[k]:.1f}",
            **{mode: f"{returns[k]:.3f}" for mode, returns in result.returns.items()},
        }
        for result in results
        for k in range(len(result.timesteps))
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table([{key: row.get(key, "") for key in columns} for row in rows], path)


def write_report(study: Study, folder: Path) -> Path:
    """
    :param study: Study.
    :param folder: Folder to write to.
    :return: The page.
    :raises StudyError: if no run has results yet.
    """
    results, cut, missing = read_results(study)
    known = [*results, *cut]
    if not known:
        raise StudyError(
            f"None of the {len(study.runs)} runs has reached its first evaluation. To start them: python -m sb3_softac.study "
            "run FILE"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sections = [
        section([r for r in results if mode in r.returns], [r for r in cut if mode in r.returns], env, mode, folder)
        for env in dict.fromkeys(result.run.env for result in known)
        for mode in dict.fromkeys(mode for one in known if one.run.env == env for mode in one.returns)
    ]
    perturbed = [
        robustness_section(study, results, env, folder)
        for env in dict.fromkeys(result.run.env for result in results)
        if env in study.robustness
    ]
    write_curves(known, folder / "curves.csv")
    versions = {json.dumps(result.versions, sort_keys=True): result.versions for result in known}
    page = folder / "index.html"
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text()).render(
        study=study,
        sections=sections,
        perturbed=perturbed,
        n_done=len(results),
        missing=_grouped(missing),
        n_missing=len(missing),
        versions=list(versions.values()),
    )
    page.write_text(text)
    return page


def _grouped(missing: list[Missing]) -> dict[str, list[str]]:
    """:return: The runs without a result, by reason."""
    reasons: dict[str, list[str]] = {}
    for one in missing:
        reasons.setdefault(one.why, []).append(one.run.id)
    return reasons
