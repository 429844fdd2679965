"""The report of a study: one self-contained page, and its plots and tables as files."""

import csv
import functools
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from sb3_softac.files import replacing
from sb3_softac.study import plots
from sb3_softac.study.declaration import Study, StudyError, slug
from sb3_softac.study.evaluations import robustness_section
from sb3_softac.study.results import TRAINING_EPISODES, Missing, Result, by_name, compared, read_results
from sb3_softac.study.statistics import (
    Interval,
    interquartile_mean,
    iqm_interval,
    probability_of_improvement,
    tolerance_interval,
)
from sb3_softac.study.user_code import import_user_code, reason_of

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


def steps_of(groups: dict[str, list[Result]]) -> str:
    """
    :param groups: Runs by name.
    :return: The steps of their last evaluations: one number or a range.
    """
    last = [int(result.timesteps[-1]) for group in groups.values() for result in group]
    return str(min(last)) if min(last) == max(last) else f"{min(last)} to {max(last)}"


def final_table(groups: dict[str, list[Result]], mode: str) -> list[dict[str, str]]:
    """
    :param groups: Runs by name, until the step at which they are compared.
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
                "steps": steps_of({name: group}),
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
    :param groups: Runs by name, until the step at which they are compared.
    :param mode: Evaluation mode.
    :return: One row per ordered pair.
    """
    rows = []
    for first, second in itertools.combinations(groups, 2):
        found = probability_of_improvement(
            [result.final(mode) for result in groups[first]], [result.final(mode) for result in groups[second]]
        )
        value = "-" if found.value != found.value else f"{found.value:.2f}"
        rows.append({"better": first, "than": second, "probability": value, "95 % interval": between(found)})
    return rows


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """
    :param rows: Rows of a table.
    :param path: CSV file.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
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
    equal, tables, notes = compared(groups), {}, not_finite(groups, mode)
    if groups:
        step = steps_of(equal)
        notes = [comparison(groups, equal), *notes]
        drawn["final"] = plots.final_returns(equal, mode, step)
        varied = {key: None for group in groups.values() for key in group[0].run.varied}
        drawn |= {f"over_{slug(key)}": plots.sensitivity(equal, mode, key, step) for key in varied}
        tables = {"final": final_table(equal, mode), "improvement": improvement_table(equal, mode)}
    for part, rows in tables.items():
        if rows:
            write_table(rows, folder / f"{name}_{part}.csv")
    return {
        "title": f"{env}, {mode} policy",
        "plots": {part: plots.save(figure, folder / f"{name}_{part}") for part, figure in drawn.items()},
        "tables": {titles(part, equal): rows for part, rows in tables.items() if rows},
        "notes": notes,
        "algorithms": ", ".join(dict.fromkeys([*groups, *not_ended])),
    }


def titles(part: str, equal: dict[str, list[Result]]) -> str:
    """
    :param part: ``final`` or ``improvement``.
    :param equal: Runs by name, until the step at which they are compared.
    :return: The title of that table.
    """
    return f"{'Return' if part == 'final' else 'Probability of improvement'} at step {steps_of(equal)}"


def comparison(groups: dict[str, list[Result]], equal: dict[str, list[Result]]) -> str:
    """
    :param groups: Runs by name.
    :param equal: The runs until the step at which they are compared.
    :return: A sentence that says which step that is, and who was trained for longer.
    """
    said = f"The runs are compared at step {steps_of(equal)}, the last evaluation that all of them have."
    longer = [name for name, group in groups.items() if steps_of({name: group}) != steps_of({name: equal[name]})]
    if not longer:
        return said
    until = "; ".join(f"{name}: step {steps_of({name: groups[name]})}" for name in longer)
    return f"{said} Some were evaluated for longer, which only the learning curves show ({until})."


def not_finite(groups: dict[str, list[Result]], mode: str) -> list[str]:
    """
    :param groups: Runs by name.
    :param mode: Evaluation mode.
    :return: A note that names the runs with returns that are not finite, if there are any.
    """
    names = [one.run.id for group in groups.values() for one in group if not np.isfinite(one.returns[mode]).all()]
    if not names:
        return []
    return [f"Some returns are not finite, and the means and intervals with them are missing: {', '.join(names)}."]


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
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table([{key: row.get(key, "") for key in columns} for row in rows], path)


def write_report(study: Study, folder: Path) -> Path:
    """
    Write what there is; the page names the runs without a result, and parts that could not be made.

    :param study: Study.
    :param folder: Folder to write to.
    :return: The page.
    :raises StudyError: if nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"The report cannot be written to {folder}: {error.strerror}") from error
    if study.robustness:  # asks the environments which perturbations apply
        made_or_named("modules of the user", functools.partial(_imported, study))
    results, cut, missing = read_results(study)
    known = [*results, *cut]
    sections = [
        made_or_named(
            f"{env}, {mode} policy",
            functools.partial(
                section, [r for r in results if mode in r.returns], [r for r in cut if mode in r.returns], env, mode, folder
            ),
        )
        for env in dict.fromkeys(one.run.env for one in known)
        for mode in dict.fromkeys(mode for one in known if one.run.env == env for mode in one.returns)
    ]
    perturbed = [
        made_or_named(f"{env}, robustness", functools.partial(robustness_section, study, results, env, folder))
        for env in dict.fromkeys(result.run.env for result in results)
        if env in study.robustness
    ]
    write_curves(known, folder / "curves.csv")
    versions = {json.dumps(result.versions, sort_keys=True): result.versions for result in known}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=study,
        sections=sections,
        perturbed=perturbed,
        n_done=len(results),
        missing=_grouped(missing),
        n_missing=len(missing),
        versions=list(versions.values()),
    )
    page = folder / "index.html"
    with replacing(page) as file:
        file.write(text.encode(errors="replace"))
    return page


def _imported(study: Study) -> dict[str, Any]:
    import_user_code(study)
    return {}


def made_or_named(title: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """
    :param title: Title of a section.
    :param make: Makes it.
    :return: The section, or one that says why it could not be made: the rest of the report is written in any case.
    """
    try:
        return make()
    except Exception as error:
        reason = reason_of(error)
        warnings.warn(f"The section {title!r} of the report could not be made: {reason}", stacklevel=2)
        return {"title": title, "error": reason}


def _grouped(missing: list[Missing]) -> dict[str, list[str]]:
    """:return: The runs without a result, by reason."""
    reasons: dict[str, list[str]] = {}
    for one in missing:
        reasons.setdefault(one.why, []).append(one.run.id)
    return reasons
