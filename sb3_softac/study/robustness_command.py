"""
``python -m sb3_softac.zoo robustness``: trained models of RL Zoo under perturbations.

A run is a folder that ``rl_zoo3.train`` has written, or ``<output>/runs/<algorithm>/<env>/<seed>/zoo`` of a study.
"""

import argparse
import contextlib
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import yaml
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rl_zoo3.utils import ALGOS

from sb3_softac.files.plain_files import SAFE_LOAD, safe_load_is_on
from sb3_softac.study.declaration import PerturbationSweep, StudyError, group_name, slug, suggest
from sb3_softac.study.perturbed_evaluation import (
    INTERVAL,
    Returns,
    check_sweeps,
    common_sweeps,
    default_name,
    default_sweeps,
    digest_of,
    evaluate,
    read_rows,
    write_sweeps,
)
from sb3_softac.study.study_file import read_sweeps
from sb3_softac.study.user_code import import_user_module, reason_of
from sb3_softac.zoo.trained import arguments_of, env_kwargs_of, model_of, name_of_files


class Source(NamedTuple):
    """A run to evaluate."""

    folder: Path
    algo: str
    name: str
    """Runs with the same name count as seeds of one algorithm."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sb3_softac.zoo robustness", description="Evaluate trained models under perturbations."
    )
    parser.add_argument("--algo", nargs="+", required=True, help="Zoo ids of the algorithms")
    parser.add_argument("--env", required=True, help="id of the environment")
    parser.add_argument("--run", nargs="+", type=Path, metavar="FOLDER", help="folders of runs (default: all in --folder)")
    parser.add_argument("-f", "--folder", type=Path, default=Path("logs"), help="folder of RL Zoo's logs (default: logs)")
    parser.add_argument(
        *("-p", "--perturbation"),
        nargs="+",
        action="append",
        metavar=("NAME", "STRENGTH"),
        help="a perturbation, its strengths, and options as key=value: `-p push 50 100 body=torso`; may be repeated "
        "(default: all that apply, each with its default strengths)",
    )
    parser.add_argument("-n", "--episodes", type=int, default=10, help="episodes per strength (default: 10)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("robustness"), help="folder of the results (default: robustness)"
    )
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import that register environments")
    return parser.parse_args(arguments)


def sweeps_of_command(perturbations: list[list[str]]) -> tuple[PerturbationSweep, ...]:
    """:return: The meaning of the words of each ``--perturbation``."""
    content: dict[str, Any] = {}
    for perturbation, *words in perturbations:
        pairs = sorted(word.split("=", 1) for word in words if "=" in word)
        options = {key: number_or_text(value) for key, value in pairs}
        name = default_name(perturbation, options)
        if name in content:
            raise StudyError(f"--perturbation {name} is given twice")
        strengths = [word for word in words if "=" not in word]
        content[name] = {"perturbation": perturbation, "strengths": strengths or None, **options}
    return read_sweeps(content)


def number_or_text(word: str) -> int | float | str:
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    return word


def folders_of_runs(args: argparse.Namespace) -> list[Path]:
    """:return: The folders that were named, or that RL Zoo's naming suggests, whatever is in them."""
    if args.run is not None:
        return list(dict.fromkeys(args.run))
    pattern = re.compile(rf"{re.escape(name_of_files(args.env))}_(\d+)(_[0-9a-f-]{{36}})?")
    numbered = [
        (position, int(match[1]), folder)
        for position, algo in enumerate(dict.fromkeys(args.algo))
        for folder in (args.folder / algo).glob("*")
        if (match := pattern.fullmatch(folder.name))
    ]
    if not numbered:
        raise StudyError(f"No run of {' or '.join(args.algo)} on {args.env} in {args.folder}: give folders of runs with --run")
    return [folder for _, _, folder in sorted(numbered)]


def sources(args: argparse.Namespace) -> list[Source]:
    """Find the runs, and name those without a model: of a hyperparameter search, or of a training that was killed."""
    found = []
    for folder in folders_of_runs(args):
        model = model_of(folder, args.env)
        if model.is_file():
            found.append(source_of(folder, args))
        else:
            report(f"skipped: {folder} has no model {model.name}, which RL Zoo writes when a training ends")
    if not found:
        raise StudyError(f"{folder} has no model {model.name}, and no other folder has one")
    if absent := [algo for algo in args.algo if algo not in {source.algo for source in found}]:
        raise StudyError(f"No run of {' or '.join(absent)} on {args.env} has a model: train it, or leave it out of --algo")
    return found


def source_of(folder: Path, args: argparse.Namespace) -> Source:
    declaration = folder.resolve().parent / "run.json"
    try:
        if declaration.exists():  # a run of a study
            content = json.loads(declaration.read_text(encoding="utf-8"))
            source = Source(folder, content["algo"], group_name(content["algorithm"], content["varied"]))
        else:
            algo = arguments_of(folder, args.env).get("algo", args.algo[0])
            source = Source(folder, algo, group_name(algo, {}))
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StudyError(f"The declaration of {folder} cannot be read: {error}") from error
    if source.algo not in args.algo:
        raise StudyError(f"{folder} is a run of {source.algo}, not of {' or '.join(args.algo)}")
    return source


def report_others(runs: list[Source], env: str) -> None:
    """Warn of runs with one name that are not several seeds of one training."""
    first: dict[str, tuple[Path, Any]] = {}
    seeds: dict[tuple[str, Any], Path] = {}
    for source in runs:
        with contextlib.suppress(Exception):  # what cannot be read is reported with its run
            arguments, config = arguments_of(source.folder, env), source.folder / name_of_files(env) / "config.yml"
            kwargs = env_kwargs_of(source.folder, env)
            settings = config.read_text(), kwargs, arguments.get("n_timesteps"), arguments.get("trained_agent")
            other, others_settings = first.setdefault(source.name, (source.folder, settings))
            same = seeds.setdefault((source.name, arguments["seed"]), source.folder)
            if settings != others_settings:
                report(f"warning: {source.folder} and {other} count as seeds of {source.name}, but their settings differ")
            elif same is not source.folder:
                report(f"warning: {source.folder} and {same} count as seeds of {source.name}, but have the same seed")


def report(text: str) -> None:
    print(text, file=sys.stderr)


def register_environments(args: argparse.Namespace) -> None:
    """
    Import what registers environments: RL Zoo's own list, the given packages, the module of ``module:id``, and the packages of
    the training.
    """
    try:
        name_of_files(args.env)
    except ValueError as error:
        raise StudyError(str(error)) from error
    module, _, env = args.env.rpartition(":")
    for package in [*args.gym_packages, *filter(None, [module])]:
        import_user_module(package)
    folders: list[Path] = []
    if env not in gym.registry:
        with contextlib.suppress(StudyError):  # later code reports that there are none
            folders = folders_of_runs(args)
    for folder in folders:
        packages = arguments_of(folder, args.env).get("gym_packages") or []
        if packages and safe_load_is_on():
            hint = f"If you trust whoever made it, give its modules with --gym-packages, or unset {SAFE_LOAD}"
            raise StudyError(f"Refused: {folder} names the modules {packages}, which would be imported. {hint}")
        with contextlib.suppress(StudyError):
            for package in packages:
                import_user_module(package)
    if env not in gym.registry:
        hint = "if a module of your own registers it, give the module with --gym-packages"
        raise StudyError(f"Unknown environment {args.env!r}, {suggest(env, gym.registry)[:200]} ({hint})")


def file_of(source: Source, args: argparse.Namespace) -> Path:
    """:return: The file with returns of this model, or else a new one."""
    stem, model = slug(f"{args.env}_{source.name}"), digest_of(source.folder, args.env)
    files = (args.output / f"{stem}_{number}.csv" for number in itertools.count(1))
    return next(file for file in files if not file.exists() or any(row["model"] == model for row in read_rows(file).values()))


def run(args: argparse.Namespace) -> int:
    """:return: Exit code: 1 if a run could not be evaluated."""
    for algo in args.algo:
        if algo not in ALGOS:
            raise StudyError(f"RL Zoo has no algorithm {algo!r}, {suggest(algo, ALGOS)}")
    register_environments(args)
    if args.episodes < 1:
        raise StudyError(f"--episodes must be at least 1, got {args.episodes}")
    runs = sources(args)
    report_others(runs, args.env)
    all_kwargs: list[dict[str, Any]] = []
    for source in runs:
        with contextlib.suppress(Exception):  # what cannot be read is reported with its run
            kwargs = env_kwargs_of(source.folder, args.env)
            all_kwargs += [kwargs] if kwargs not in all_kwargs else []
    all_kwargs = all_kwargs or [{}]
    sweeps = sweeps_of_command(args.perturbation) if args.perturbation else default_sweeps(args.env, all_kwargs)
    check_sweeps(sweeps, args.env, all_kwargs)
    groups: dict[str, list[Returns]] = {}
    failures = []
    for number, source in enumerate(runs, 1):
        report(f"[{number}/{len(runs)}] {source.name}: {source.folder}")
        try:
            file = file_of(source, args)
            returns = evaluate(source.folder, source.algo, args.env, sweeps, args.episodes, file)
            groups.setdefault(source.name, []).append(returns)
        except Exception as error:  # in what a training has left, or in the code of an environment
            failures.append(f"{source.folder}: {reason_of(error)}")
            report(f"failed: {failures[-1]}")
    if not groups:
        raise StudyError(f"No run could be evaluated: {failures[0]}")
    path = args.output / slug(f"{args.env}_robustness")
    _, rows = write_sweeps(groups, common_sweeps(groups), path)
    show([row for row in rows if row["episodes"] == str(args.episodes)], sweeps)
    for suffix in ("csv", "png"):
        print(path.with_name(f"{path.name}.{suffix}"))
    return 1 if failures else 0


def show(rows: list[dict[str, str]], sweeps: tuple[PerturbationSweep, ...]) -> None:
    """Print the returns under the perturbations that were asked for."""
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    found = {(row["perturbation"], row["strength"], row["algorithm"]): row for row in rows}
    table = Table("perturbation", "strength", *map(escape, algorithms), title="return (IQM)", box=box.SIMPLE)
    for sweep in sweeps:
        for strength in sweep.axis:
            returns = [found[sweep.name, f"{strength:g}", name] for name in algorithms]
            cells = [row["IQM"] if row[INTERVAL] == "-" else f"{row['IQM']} ({row[INTERVAL]})" for row in returns]
            table.add_row(escape(sweep.name), f"{strength:g}", *cells, end_section=strength == sweep.axis[-1])
    console = Console()
    console.width = max(console.width, 40 + 40 * len(algorithms)) if not console.is_terminal else console.width
    console.print(table)


def main() -> None:
    try:
        sys.exit(run(parse(sys.argv[1:])))
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
