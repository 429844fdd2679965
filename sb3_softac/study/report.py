"""The report of a study: one self-contained page, and its plots and tables as files."""

import dataclasses
import functools
import itertools
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from sb3_softac.files import replacing
from sb3_softac.study import plots
from sb3_softac.study.declaration import Study, StudyError, slug
from sb3_softac.study.perturbed_evaluation import declared_returns, sweeps_of, write_sweeps, write_table
from sb3_softac.study.results import TRAINING_EPISODES, Result, at_equal_steps, by_name, read_results
from sb3_softac.study.statistics import (
    Interval,
    Tolerance,
    interquartile_mean,
    iqm_interval,
    probability_of_improvement,
    tolerance_interval,
)
from sb3_softac.study.user_code import import_user_code, reason_of

TEMPLATE = Path(__file__).with_name("report.html")
Groups = dict[str, list[Result]]  # by name; the runs of a list differ only in the seed


@dataclasses.dataclass
class Section:
    """A part of the page."""

    title: str
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    plots: dict[str, str] = dataclasses.field(default_factory=dict)
    """SVG by what it shows."""
    tables: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)
    """Rows by title."""


def number(value: float) -> str:
    """:return: Four significant digits; a dash for NaN."""
    return "-" if value != value else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def limits(interval: Interval | Tolerance) -> str:
    """:return: The limits of an interval; a dash if there are too few runs for one."""
    return "-" if interval.low != interval.low else f"{number(interval.low)} to {number(interval.high)}"


def last_steps(groups: Groups) -> str:
    """:return: The steps of the last evaluations: one number or a range."""
    last = [int(result.timesteps[-1]) for group in groups.values() for result in group]
    return str(min(last)) if min(last) == max(last) else f"{min(last)} to {max(last)}"


def final_table(groups: Groups, mode: str) -> list[dict[str, str]]:
    """:return: One row per name, at the step of comparison."""
    rows = []
    for name, group in groups.items():
        final, mean, training = zip(*((one.final(mode), one.mean(mode), one.training) for one in group), strict=True)
        iqm, tolerance = iqm_interval(final), tolerance_interval(final)
        rows.append(
            {
                "algorithm": name,
                "n": str(len(final)),
                "steps": last_steps({name: group}),
                "IQM": number(iqm.value),
                "95 % interval of the IQM": limits(iqm),
                "tolerance interval": limits(tolerance),
                "share of agents in the tolerance interval (confidence 0.95)": f"{tolerance.share:.2f}",
                "IQM of the mean of all evaluations": number(float(interquartile_mean(np.array(mean)))),
                f"IQM of the last {TRAINING_EPISODES} training episodes": number(
                    float(interquartile_mean(np.array(training)))
                ),
                "all seeds": ", ".join(map(number, sorted(final))),
            }
        )
    return rows


def improvement_table(groups: Groups, mode: str) -> list[dict[str, str]]:
    """:return: One row per pair, at the step of comparison."""
    final = {name: [result.final(mode) for result in group] for name, group in groups.items()}
    rows = []
    for first, second in itertools.combinations(final, 2):
        found = probability_of_improvement(final[first], final[second])
        value = "-" if found.value != found.value else f"{found.value:.2f}"
        rows.append({"better": first, "than": second, "probability": value, "95 % interval": limits(found)})
    return rows


def learning_section(results: list[Result], partial: list[Result], env: str, mode: str, folder: Path) -> Section:
    """Write the plots and tables of an environment and evaluation mode."""
    results, partial = ([one for one in part if mode in one.returns] for part in (results, partial))
    groups, unfinished, name = by_name(results, env), by_name(partial, env), slug(f"{env}_{mode}")
    timed = any(np.isfinite(one.seconds).any() for one in [*results, *partial] if one.run.env == env)
    axes = [axis for axis in plots.AXES if timed or axis != plots.SECONDS]
    figures = {f"by_{axis.split()[0]}": plots.learning_curves(groups, unfinished, mode, axis) for axis in axes}
    section = Section(f"{env}, {mode} policy")
    if groups:
        compared = at_equal_steps(groups)
        step = last_steps(compared)
        section.notes = [note for note in (comparison(groups, compared), not_finite(groups, mode)) if note]
        figures["final"] = plots.final_returns(compared, mode, step)
        for key in {key: None for group in groups.values() for key in group[0].run.varied}:
            figures[f"over_{slug(key)}"] = plots.sensitivity(compared, mode, key, step)
        section.tables[f"Return at step {step}"] = rows = final_table(compared, mode)
        write_table(rows, folder / f"{name}_final.csv")
        if len(groups) > 1:
            section.tables[f"Probability of improvement at step {step}"] = rows = improvement_table(compared, mode)
            write_table(rows, folder / f"{name}_improvement.csv")
    algorithms = ", ".join(dict.fromkeys([*groups, *unfinished]))
    for part, figure in figures.items():
        section.plots[f"{part.replace('_', ' ')}: {algorithms}"] = plots.save(figure, folder / f"{name}_{part}")
    return section


def comparison(groups: Groups, compared: Groups) -> str:
    """:return: At which step the runs are compared, and which were trained for longer."""
    note = f"The runs are compared at step {last_steps(compared)}, the last evaluation that all of them have."
    last = {name: (last_steps({name: group}), last_steps({name: compared[name]})) for name, group in groups.items()}
    longer = "; ".join(f"{name}: step {own}" for name, (own, shared) in last.items() if own != shared)
    return f"{note} Some were evaluated for longer, which only the learning curves show ({longer})." if longer else note


def not_finite(groups: Groups, mode: str) -> str:
    names = ", ".join(one.run.id for group in groups.values() for one in group if not np.isfinite(one.returns[mode]).all())
    return f"Some returns are not finite, so there are no means and intervals of: {names}." if names else ""


def robustness_section(study: Study, results: list[Result], env: str, folder: Path) -> Section:
    """Write the plot and the table of an environment whose perturbations are declared."""
    section, episodes = Section(f"{env}, robustness"), study.robustness[env].episodes
    groups, missing = declared_returns(study, results, env)
    if missing:
        section.warnings = [
            f"Not evaluated under all perturbations, and not in this plot: {', '.join(missing)}. "
            "`python -m sb3_softac.study robustness FILE` evaluates them."
        ]
    if groups:
        section.notes = [
            f"The last models under perturbations, {episodes} episodes per strength with the same seeds for all models. Thin "
            "lines are single seeds, thick lines the interquartile mean; shaded is its 95 % interval, or the range of the "
            "seeds if there are fewer than 10."
        ]
        sweeps = [(sweep, episodes) for sweep in sweeps_of(study, env)]
        svg, rows = write_sweeps(groups, sweeps, folder / slug(f"{env}_robustness"))
        section.plots, section.tables = {"return against the strength of perturbations": svg}, {"Perturbations": rows}
    return section


def write_curves(results: list[Result], path: Path) -> None:
    """Write one row per evaluation of each run."""
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
    if rows:
        write_table(rows, path)


def write_report(study: Study, folder: Path) -> Path:
    """Write a report of all results so far, and return its page. It names runs without a result, and sections that failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StudyError(f"The report cannot be written to {folder} ({error.strerror}): choose one with --to") from error
    if study.robustness:  # asks the environments which perturbations apply
        make_section("modules of the user", lambda: import_user_code(study))
    results, partial, missing = read_results(study)
    parts: dict[str, Callable[[], Section]] = {}
    for one in [*results, *partial]:
        for mode in one.returns:
            parts[f"{one.run.env}, {mode} policy"] = functools.partial(
                learning_section, results, partial, one.run.env, mode, folder
            )
    for env in dict.fromkeys(result.run.env for result in results):
        if env in study.robustness:
            parts[f"{env}, robustness"] = functools.partial(robustness_section, study, results, env, folder)
    sections = [make_section(title, make) for title, make in parts.items()]
    write_curves([*results, *partial], folder / "curves.csv")
    reasons: dict[str, list[str]] = {}
    for unfinished in missing:
        reasons.setdefault(unfinished.why, []).append(unfinished.run.id)
    versions = {json.dumps(one.versions, sort_keys=True): one.versions for one in [*results, *partial]}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=study,
        sections=sections,
        n_done=len(results),
        missing=reasons,
        n_missing=len(missing),
        versions=list(versions.values()),
    )
    path = folder / "index.html"
    with replacing(path) as file:
        file.write(page.encode(errors="replace"))
    return path


def make_section(title: str, make: Callable[[], Any]) -> Any:
    """:return: A section, or one that says why it could not be made: the rest of the report is written in any case."""
    try:
        return make()
    except Exception as error:
        reason = reason_of(error)
        warnings.warn(f"The section {title!r} of the report could not be made: {reason}", stacklevel=2)
        return Section(title, [f"This section could not be made: {reason}"])
