"""The trained models of a study under its perturbations: evaluated in several processes, and their part of the report."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch as th

from sb3_softac.study import plots
from sb3_softac.study.checks import lines_of
from sb3_softac.study.declaration import Line, Run, Study, slug
from sb3_softac.study.results import Result, by_name
from sb3_softac.study.robustness import Cell, cells, curve, evaluate, read_rows, summary, write_rows
from sb3_softac.study.user_code import import_user_code


def evaluate_run(study: Study, run: Run) -> None:
    """
    Evaluate the last model of a run. What is known of it already is not done again.

    :param study: Study.
    :param run: One of its runs, which has come to its end.
    """
    import_user_code(study)
    th.set_num_threads(run.threads)
    folder, file = study.folder_of(run) / "zoo", study.robustness_of(run)
    episodes = study.robustness[run.env].episodes
    evaluate(folder, run.algo, run.env, run.env_kwargs, lines_of(study, run.env), episodes, file)


def evaluate_all(study: Study, runs: list[Run], jobs: int) -> dict[str, str]:
    """
    :param study: Study.
    :param runs: Runs that have come to their ends.
    :param jobs: Processes.
    :return: Why evaluations failed, by the ids of the runs.
    """
    failures = {}
    # Not forked: PyTorch's threads do not survive that
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(evaluate_run, study, run): run.id for run in runs}
        for number, future in enumerate(as_completed(futures), 1):
            name, error = futures[future], future.exception()
            if isinstance(error, BrokenProcessPool):
                failures[name] = "a process was killed, perhaps for lack of memory: try again with fewer --jobs"
            elif error is not None:
                failures[name] = f"{type(error).__name__}: {error}"
            print(f"[{number}/{len(runs)}] {name}: {'done' if error is None else 'failed'}", file=sys.stderr)
    return failures


def draw(
    groups: dict[str, list[dict[Cell, float]]], lines: list[tuple[Line, int]], path: Path
) -> tuple[str, list[dict[str, str]]]:
    """
    Write plot and table of an environment.

    :param groups: Returns of the runs, by algorithm.
    :param lines: Perturbations, each with the number of episodes of each strength.
    :param path: Where to write them, without an ending: as PNG, SVG and CSV.
    :return: The SVG, and the rows of the table.
    """
    axes, curves, rows = {}, {}, []
    several = len({episodes for _, episodes in lines}) > 1
    for line, episodes in lines:
        title = f"{line.name}, {episodes} episodes" if several else line.name
        axes[title] = (line.kind.unit, line.axis)
        curves[title] = {name: curve(line, episodes, group) for name, group in groups.items()}
        rows += summary(groups, (line,), episodes)
    write_rows(rows, path.with_name(f"{path.name}.csv"))
    return plots.save(plots.return_against_strength(axes, curves), path), rows


def robustness_section(study: Study, results: list[Result], env: str, folder: Path) -> dict[str, Any]:
    """
    :param study: Study that declares a robustness for the environment.
    :param results: All results.
    :param env: Environment.
    :param folder: Folder of the report.
    :return: What the page shows of it: plot, rows of the table, and the runs that were not evaluated.
    """
    lines, episodes = lines_of(study, env), study.robustness[env].episodes
    needed = [cell for _, _, cell in cells(lines, episodes)]
    groups: dict[str, list[dict[Cell, float]]] = {}
    missing = []
    for name, group in by_name(results, env).items():
        for result in group:
            rows = read_rows(study.robustness_of(result.run))
            if all(cell in rows for cell in needed):
                groups.setdefault(name, []).append({cell: float(rows[cell]["return"]) for cell in needed})
            else:
                missing.append(result.run.id)
    path = folder / slug(f"{env}_robustness")
    svg, table = draw(groups, [(line, episodes) for line in lines], path) if groups else ("", [])
    return {"env": env, "svg": svg, "rows": table, "missing": missing, "episodes": episodes}
