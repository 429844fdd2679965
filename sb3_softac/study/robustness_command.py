"""
``python -m sb3_softac.zoo robustness``: trained models of RL Zoo under perturbations.

A run is a folder that ``rl_zoo3.train`` has written, or ``<output>/runs/<algorithm>/<env>/<seed>/zoo`` of a study.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import yaml
from rl_zoo3.utils import ALGOS

from sb3_softac.study.declaration import Line, StudyError, name_of, slug, suggest
from sb3_softac.study.evaluations import draw
from sb3_softac.study.perturbed import all_lines, check_lines, read_lines
from sb3_softac.study.robustness import Cell, evaluate
from sb3_softac.zoo.trained import arguments_of


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
        values = [yaml.safe_load(word) for word in words if "=" not in word]
        options = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words if "=" in word)}
        name = " ".join([perturbation, *(str(value) for value in options.values())])
        if name in content:
            raise StudyError(f"--perturbation {name} is given twice")
        content[name] = {"perturbation": perturbation, "strengths": values or None, **options}
    return read_lines(content)


def sources(args: argparse.Namespace) -> list[Source]:
    """
    :param args: Arguments of the command.
    :return: The runs that they mean.
    :raises StudyError: if there is none, or one is of another algorithm.
    """
    if args.run is None:
        pattern = re.compile(rf"{re.escape(args.env)}_\d+")
        folders = [
            folder
            for algo in args.algo
            for folder in sorted((args.folder / algo).glob(f"{args.env}_*"))
            if pattern.fullmatch(folder.name)
        ]
    else:
        folders = args.run
    if not folders:
        raise StudyError(f"No run of {' or '.join(args.algo)} on {args.env} in {args.folder}: give folders of runs with --run")
    return [source_of(folder, args) for folder in folders]


def source_of(folder: Path, args: argparse.Namespace) -> Source:
    """
    :param folder: Folder of a run.
    :param args: Arguments of the command.
    :return: The run.
    :raises StudyError: if it is of another algorithm.
    """
    declaration = folder.parent / "run.json"
    if declaration.exists():  # a run of a study
        content = json.loads(declaration.read_text())
        name = name_of(content["algorithm"], content["varied"])
        source = Source(folder, content["algo"], name, content["env_kwargs"])
    else:
        algo = arguments_of(folder, args.env).get("algo", args.algo[0])
        source = Source(folder, algo, algo, None)
    if source.algo not in args.algo:
        raise StudyError(f"{folder} is a run of {source.algo}, not of {' or '.join(args.algo)}")
    return source


def run(args: argparse.Namespace) -> Path:
    """
    :param args: Arguments of the command.
    :return: The picture.
    :raises StudyError: if something in them is unknown or does not fit.
    """
    for package in args.gym_packages:
        importlib.import_module(package)
    for algo in args.algo:
        if algo not in ALGOS:
            raise StudyError(f"RL Zoo has no algorithm {algo!r}, {suggest(algo, ALGOS)}")
    if args.env not in gym.registry:
        raise StudyError(f"Unknown environment {args.env!r}, {suggest(args.env, gym.registry)[:200]}")
    if args.episodes < 1:
        raise StudyError(f"--episodes must be at least 1, got {args.episodes}")
    runs = sources(args)
    env_kwargs = runs[0].env_kwargs or arguments_of(runs[0].folder, args.env).get("env_kwargs") or {}
    lines = lines_of_command(args.perturbation) if args.perturbation else all_lines(args.env, env_kwargs)
    check_lines(lines, args.env, env_kwargs)
    groups: dict[str, list[dict[Cell, float]]] = {}
    for number, source in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {source.name}: {source.folder}", file=sys.stderr)
        group = groups.setdefault(source.name, [])
        file = args.output / f"{slug(f'{args.env}_{source.name}')}_{len(group) + 1}.csv"
        group.append(evaluate(source.folder, source.algo, args.env, source.env_kwargs, lines, args.episodes, file))
    path = args.output / slug(f"{args.env}_robustness")
    draw(groups, lines, args.episodes, path)
    return path.with_name(f"{path.name}.png")


def main() -> None:
    """Run the command with the arguments of this process."""
    try:
        print(run(parse(sys.argv[1:])))
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
