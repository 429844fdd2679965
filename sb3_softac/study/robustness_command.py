"""
``python -m sb3_softac.zoo robustness``: trained models of RL Zoo under perturbations.

A run is a folder that ``rl_zoo3.train`` has written, or ``<output>/runs/<algorithm>/<env>/<seed>/zoo`` of a study.
"""

import argparse
import contextlib
import importlib
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

from sb3_softac.study.declaration import Line, StudyError, name_of, slug, suggest
from sb3_softac.study.evaluations import draw
from sb3_softac.study.perturbed import all_lines, check_lines, read_lines
from sb3_softac.study.robustness import INTERVAL, Cell, digest_of, evaluate, known_lines, label_of, read_rows
from sb3_softac.study.user_code import import_user_module, reason_of
from sb3_softac.zoo.safe import SAFE_LOAD, safe_load_is_on
from sb3_softac.zoo.trained import arguments_of, model_of, name_of_files


class Source(NamedTuple):
    """A run to evaluate."""

    folder: Path
    algo: str
    name: str
    """Runs of one name differ in their seeds only."""
    env_kwargs: dict[str, Any] | None


def parse(arguments: list[str]) -> argparse.Namespace:
    """
    :param arguments: Arguments of the command line.
    :return: What they say.
    """
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


def lines_of_command(said: list[list[str]]) -> tuple[Line, ...]:
    """
    :param said: Words of each ``--perturbation``.
    :return: The perturbations.
    :raises StudyError: if one is unknown, or a strength is no number.
    """
    content: dict[str, Any] = {}
    for perturbation, *words in said:
        strengths = [word for word in words if "=" not in word]
        typed = {key: value_of(value) for key, _, value in (word.partition("=") for word in words if "=" in word)}
        options = dict(sorted(typed.items()))
        name = label_of(perturbation, options)
        if name in content:
            raise StudyError(f"--perturbation {name} is given twice")
        content[name] = {"perturbation": perturbation, "strengths": strengths or None, **options}
    return read_lines(content)


def value_of(word: str) -> int | float | str:
    """
    :param word: Value of an option.
    :return: The number that it is, or the word.
    """
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(word)
    return word


def folders_of_runs(args: argparse.Namespace) -> list[Path]:
    """
    :param args: Arguments of the command.
    :return: Folders of the runs that they mean, whatever is in them.
    :raises StudyError: if there is none.
    """
    if args.run is not None:
        return list(dict.fromkeys(args.run))
    pattern = re.compile(rf"{re.escape(name_of_files(args.env))}_(\d+)(_[0-9a-f-]{{36}})?")
    numbered = [
        (number, int(match[1]), folder)
        for number, algo in enumerate(dict.fromkeys(args.algo))
        for folder in (args.folder / algo).glob("*")
        if (match := pattern.fullmatch(folder.name))
    ]
    if not numbered:
        raise StudyError(f"No run of {' or '.join(args.algo)} on {args.env} in {args.folder}: give folders of runs with --run")
    return [folder for _, _, folder in sorted(numbered)]


def sources(args: argparse.Namespace) -> list[Source]:
    """
    Find the runs, and name those without a model: of an optimization of hyperparameters, or of a training that was killed.

    :param args: Arguments of the command.
    :return: The runs that they mean.
    :raises StudyError: if there is none, or one is of another algorithm.
    """
    folders = folders_of_runs(args)
    found = [folder for folder in folders if model_of(folder, args.env).is_file()]
    for folder in folders:
        if folder not in found:
            say(f"skipped: {folder} has no model {model_of(folder, args.env).name}, which RL Zoo writes when a training ends")
    if not found:
        raise StudyError(f"{folders[0]} has no model {model_of(folders[0], args.env).name}, nor has any other folder")
    return [source_of(folder, args) for folder in found]


def source_of(folder: Path, args: argparse.Namespace) -> Source:
    """
    :param folder: Folder of a run.
    :param args: Arguments of the command.
    :return: The run.
    :raises StudyError: if it is of another algorithm, or a file of it cannot be read.
    """
    declaration = folder.resolve().parent / "run.json"
    try:
        if declaration.exists():  # a run of a study
            content = json.loads(declaration.read_text(encoding="utf-8"))
            source = Source(folder, content["algo"], name_of(content["algorithm"], content["varied"]), content["env_kwargs"])
        else:
            algo = arguments_of(folder, args.env).get("algo", args.algo[0])
            source = Source(folder, algo, name_of(algo, {}), None)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StudyError(f"The declaration of {folder} cannot be read: {error}") from error
    if source.algo not in args.algo:
        raise StudyError(f"{folder} is a run of {source.algo}, not of {' or '.join(args.algo)}")
    return source


def say(text: str) -> None:
    """
    :param text: A message about the progress.
    """
    print(text, file=sys.stderr)


def register_environments(args: argparse.Namespace) -> None:
    """
    Import what registers environments: RL Zoo's own list, the given packages, the module of ``module:id``, and the packages of
    the training.

    :param args: Arguments of the command.
    :raises StudyError: if a package cannot be imported, or nothing registers the environment.
    """
    try:
        name_of_files(args.env)
    except ValueError as error:
        raise StudyError(str(error)) from error
    importlib.import_module("rl_zoo3.import_envs")
    module, _, env = args.env.rpartition(":")
    for package in [*args.gym_packages, *filter(None, [module])]:
        import_user_module(package)
    if env not in gym.registry:
        folders: list[Path] = []
        with contextlib.suppress(StudyError):  # of folders, which are looked for below
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
        hint = "If a module of your own registers it, give the module with --gym-packages"
        raise StudyError(f"Unknown environment {args.env!r}, {suggest(env, gym.registry)[:200]}. {hint}")


def file_of(source: Source, args: argparse.Namespace) -> Path:
    """
    :param source: A run.
    :param args: Arguments of the command.
    :return: The file of its returns: the one that has returns of its model, or else a new one.
    """
    stem, model = slug(f"{args.env}_{source.name}"), digest_of(source.folder, args.env)
    for number in itertools.count(1):
        file = args.output / f"{stem}_{number}.csv"
        if not file.exists() or any(row["model"] == model for row in read_rows(file).values()):
            return file
    raise AssertionError


def run(args: argparse.Namespace) -> int:
    """
    :param args: Arguments of the command.
    :return: Exit code: 1 if a run could not be evaluated.
    :raises StudyError: if something in them is unknown or does not fit.
    """
    for algo in args.algo:
        if algo not in ALGOS:
            raise StudyError(f"RL Zoo has no algorithm {algo!r}, {suggest(algo, ALGOS)}")
    register_environments(args)
    if args.episodes < 1:
        raise StudyError(f"--episodes must be at least 1, got {args.episodes}")
    runs = sources(args)
    env_kwargs = runs[0].env_kwargs or arguments_of(runs[0].folder, args.env).get("env_kwargs") or {}
    lines = lines_of_command(args.perturbation) if args.perturbation else all_lines(args.env, env_kwargs)
    check_lines(lines, args.env, env_kwargs)
    groups: dict[str, list[dict[Cell, float]]] = {}
    failures = []
    for number, source in enumerate(runs, 1):
        say(f"[{number}/{len(runs)}] {source.name}: {source.folder}")
        try:
            found = evaluate(
                *(source.folder, source.algo, args.env, source.env_kwargs, lines, args.episodes, file_of(source, args))
            )
        except Exception as error:  # in what a training has left, or in the code of an environment
            failures.append(f"{source.folder}: {reason_of(error)}")
            say(f"failed: {failures[-1]}")
            continue
        groups.setdefault(source.name, []).append(found)
    if not groups:
        raise StudyError(f"No run could be evaluated: {failures[0]}")
    path = args.output / slug(f"{args.env}_robustness")
    _, rows = draw(groups, known_lines(groups), path)
    show([row for row in rows if row["episodes"] == str(args.episodes)], lines)
    for end in ("csv", "png"):
        print(path.with_name(f"{path.name}.{end}"))
    return 1 if failures else 0


def show(rows: list[dict[str, str]], lines: tuple[Line, ...]) -> None:
    """
    Print the returns.

    :param rows: Rows of the table, of the number of episodes that was asked for.
    :param lines: The perturbations that were asked for.
    """
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    found = {(row["perturbation"], row["strength"], row["algorithm"]): row for row in rows}
    table = Table("perturbation", "strength", *map(escape, algorithms), title="return (IQM)", box=box.SIMPLE)
    for line in lines:
        for strength in line.axis:
            returns = [found[line.name, f"{strength:g}", name] for name in algorithms]
            cells = [row["IQM"] if row[INTERVAL] == "-" else f"{row['IQM']} ({row[INTERVAL]})" for row in returns]
            table.add_row(escape(line.name), f"{strength:g}", *cells, end_section=strength == line.axis[-1])
    console = Console()
    console.width = max(console.width, 40 + 40 * len(algorithms)) if not console.is_terminal else console.width
    console.print(table)


def main() -> None:
    """Run the command with the arguments of this process."""
    try:
        sys.exit(run(parse(sys.argv[1:])))
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
