"""Reads the file that declares a study, and refuses what is wrong in it before any run starts."""

import inspect
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from sb3_softac.checks import LARGEST, Argument, Refused, checked, integer, read
from sb3_softac.robustness import PERTURBATIONS
from sb3_softac.study.declaration import PerturbationSweep, Robustness, Run, Study, StudyError, suggest

MODES = ("deterministic", "stochastic")
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
MAX_RUNS = 100_000
MAX_VALUES = 100_000
MAX_THREADS = 1024
MAX_SEED = 2**32 - 1  # NumPy accepts no larger one


class ZooLoader(yaml.SafeLoader):
    """Reads 1e6 and 3e-4 as numbers, which YAML 1.1 treats as strings without a decimal point; refuses repeated keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key))
            if name in lines:
                raise StudyError(f"line {line}: the key {key.value!r} is already on line {lines[name]}: remove one of them")
            lines[name] = line
        return node


ZooLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))

# What YAML 1.1 reads differently from what it looks like
MISLEADING = {
    r"(?i:yes|no|on|off)": "a boolean: write true or false",
    r"[-+]?0[\d_]+": "an octal number: write it without leading zeros",
    r"[-+]?\d[\d_]*(:\d+)+(\.\d*)?": "a number in base 60: write it as a decimal number",
}


class StrictLoader(ZooLoader):
    """Refuses misleading values too, and values that cannot be stored and compared (dates, sets, bytes, NaN)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        line, plain = f"line {node.start_mark.line + 1}: ", isinstance(node, yaml.ScalarNode) and node.style is None
        for pattern, reading in MISLEADING.items() if plain and not node.tag.endswith(":str") else ():
            if re.fullmatch(pattern, node.value):
                raise StudyError(f"{line}YAML reads {node.value} as {reading}, or '{node.value}' in quotes")
        try:
            value = super().construct_object(node, deep=True)  # refuses a value that contains itself
        except (StudyError, yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # a date of a 13th month, `!!int x`
            raise StudyError(
                f"{line}{node.value!r} is not a valid {node.tag.rpartition(':')[2]}: write it in quotes"
            ) from error
        if reason := _not_storable(value):
            raise StudyError(f"{line}{reason}")
        return value


def _not_storable(value: Any) -> str | None:
    if not isinstance(value, str | int | float | list | dict | None):
        return f"{value!r} is a {type(value).__name__}, which a study cannot store: write it in quotes"
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        return f"{value!r} contains a character that cannot be written to a file"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "whole numbers may have at most 64 bits"
    return "NaN is not a number: leave it out" if isinstance(value, float) and math.isnan(value) else None


def _parse(text: str) -> Any:
    try:
        content = yaml.load(text, StrictLoader)
        # Aliases can make a short file as large as they like
        if next(itertools.islice(json.JSONEncoder().iterencode(content), MAX_VALUES, None), None) is not None:
            raise StudyError(f"the file has more than {MAX_VALUES} values")
    except yaml.YAMLError as error:
        raise StudyError(f"the file cannot be read as YAML: {error}") from error
    except RecursionError as error:
        raise StudyError("the file cannot be read: it is nested too deeply") from error
    return content


# Each function below takes a value and its name, and returns what it means or raises StudyError.
Reader = Callable[[Any, str], Any]


def any_table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StudyError(f"{name or 'the file'} must be a table of `key: value`, got {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise StudyError(f"{name or 'the file'}: keys must be names, got {key!r}")
    return value


def table(readers: dict[str, Reader]) -> Reader:
    """A table with these keys; one without a value is left out, except `robustness`, which then means all perturbations."""

    def read(value: Any, name: str) -> dict[str, Any]:
        content = any_table({} if value is None else value, name)
        for key in content:
            if key not in readers:
                raise StudyError(f"{name or 'the file'}: unknown key {key!r}, {suggest(key, readers)}")
        return {
            key: readers[key](part, f"{name}: {key}" if name else key)
            for key, part in content.items()
            if part is not None or key == "robustness"
        }

    return read


def named(readers: dict[str, Reader]) -> Reader:
    """A list of names, or a table of settings by name."""

    def read(value: Any, name: str) -> dict[str, dict[str, Any]]:
        if isinstance(value, list):
            if not all(isinstance(one, str) for one in value) or len(set(value)) < len(value):
                raise StudyError(f"{name} must be a list of distinct names, got {value!r}")
            value = dict.fromkeys(value)
        read_settings = table(readers)
        return {
            string(key, f"a name in {name}"): read_settings(settings, f"{name}: {key}")
            for key, settings in any_table(value, name).items()
        }

    return read


def one(argument: Argument) -> Reader:
    """A single value."""

    def read_one(value: Any, name: str) -> Any:
        try:
            return read(name, value, argument)
        except Refused as error:
            raise StudyError(str(error)) from None

    return read_one


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def are_modules(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and MODULE.fullmatch(each) for each in value)


def _seeds(value: Any) -> Sequence[int]:
    if isinstance(value, list) and value:
        return [integer(0, high=MAX_SEED).read(seed) for seed in value]
    return range(integer(1, high=MAX_SEED).read(value))


count = one(integer(1))
string = one(checked("a non-empty text", is_text))
folder = one(checked("a non-empty text", is_text, os.path.expanduser))
modules = one(checked("a list of Python modules that register environments", are_modules, tuple))
seeds = one(Argument(f"the number of seeds (0, 1, ... are used) or a list of seeds from 0 to {MAX_SEED}", _seeds))


def grid(value: Any, name: str) -> dict[str, list[Any]]:
    for key, values in any_table(value, name).items():
        if not isinstance(values, list) or not values:
            raise StudyError(f"{name}: {key} needs a list of values, got {values!r}")
    return value


def modes(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(value.count(mode) > 1 for mode in value):
        raise StudyError(f"{name} must be a list of {' and '.join(MODES)}, got {value!r}")
    for mode in value:
        if mode not in MODES:
            raise StudyError(f"{name}: unknown mode {mode!r}, {suggest(mode, MODES)}")
    return tuple(value)


def read_sweeps(value: Any, name: str = "robustness") -> tuple[PerturbationSweep, ...]:
    """By name: strengths, or a table with ``strengths``, ``perturbation`` if the name is none, and its options."""
    if not any_table(value, name):
        raise StudyError(f"{name} is empty: leave it out to evaluate all that apply")
    return tuple(_sweep(title, settings, f"{name}: {title}") for title, settings in value.items())


def _sweep(title: str, settings: Any, name: str) -> PerturbationSweep:
    options = dict(any_table(settings, name)) if isinstance(settings, dict) else {"strengths": settings}
    perturbation = options.pop("perturbation", title)
    if not isinstance(perturbation, str) or perturbation not in PERTURBATIONS:
        raise StudyError(f"{name}: unknown perturbation {perturbation!r}, {suggest(perturbation, PERTURBATIONS)}")
    wrapper = PERTURBATIONS[perturbation]
    given = options.pop("strengths", None)
    given = list(wrapper.strengths) if given is None else given
    strengths = tuple(number for value in given if (number := _number(value)) is not None) if isinstance(given, list) else ()
    if not strengths or len({*strengths}) < len(given):
        raise StudyError(f"{name}: strengths must be a list of distinct numbers ({wrapper.unit}), got {given!r}")
    if {*strengths} == {wrapper.neutral}:
        raise StudyError(f"{name}: {wrapper.neutral:g} changes nothing, and is always evaluated: give other strengths")
    known = dict(list(inspect.signature(wrapper).parameters.items())[2:])  # after environment and strength
    for key in options:
        if key not in known:
            raise StudyError(f"{name}: unknown key {key!r}, {suggest(key, ['strengths', 'perturbation', *known])}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in options:
            raise StudyError(f"{name}: {perturbation} needs {key!r}")
    return PerturbationSweep(title, perturbation, options, strengths)


def _number(value: Any) -> float | None:
    """:return: A number, or the number in a text: the command line and RL Zoo's loader read ``1e-1`` as text."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


EVALUATION = {"every": count, "episodes": count, "modes": modes}
ROBUSTNESS = {"perturbations": read_sweeps, "episodes": count}
SHARED = {"n_timesteps": count, "hyperparams": any_table, "evaluation": table(EVALUATION), "robustness": table(ROBUSTNESS)}
ENVIRONMENT = {**SHARED, "env_kwargs": any_table}
ALGORITHM = {"algo": string, "hyperparams": any_table, "config": string, "n_timesteps": count, "seeds": seeds}
FILE = {
    **SHARED,
    **{"algorithms": named(ALGORITHM), "environments": named(ENVIRONMENT), "seeds": seeds, "grid": grid},
    **{"output": folder, "results": folder, "gym_packages": modules},
    **{"threads": one(integer(1, f" and at most {MAX_THREADS}", MAX_THREADS)), "checkpoint_every": count},
}  # fmt: skip


def read_study(path: str | Path) -> Study:
    """
    :param path: YAML file.
    :return: The study. Folders in the file are relative to the file.
    :raises StudyError: if something in it is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        text = _read_text(path)
        return _study(path, text, table(FILE)(_parse(text), ""))
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError(f"the file is not in UTF-8 (byte {error.start + 1}): save it in this encoding") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise StudyError(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _distinct_runs(content: dict[str, Any]) -> tuple[Run, ...]:
    runs: dict[str, Run] = {}
    names: dict[str, str] = {}
    for run in itertools.islice(_runs(content), MAX_RUNS + 1):
        if run.id in runs:
            raise StudyError(f"two runs would share the folder {run.id}: seeds, names and values of the grid must differ")
        runs[run.id] = run
        if (other := names.setdefault(run.name, run.algorithm)) != run.algorithm:
            raise StudyError(f"{other} and {run.algorithm} would both be called {run.name}: give one of them another name")
    if len(runs) > MAX_RUNS:
        raise StudyError(f"seeds, grid, algorithms and environments make more than {MAX_RUNS} runs: split the study")
    return tuple(runs.values())


def _study(path: Path, text: str, content: dict[str, Any]) -> Study:
    for what in ("algorithms", "environments"):
        if not content.get(what):
            raise StudyError(f"{what} is missing: give a list of names, or a table of `name: settings`")
    folder = path.parent.resolve()
    output = folder / content.get("output", path.stem)
    results = folder / content["results"] if "results" in content else output / "results"
    for what, chosen in (("output", output), ("results", results)):
        if chosen.resolve() == path.resolve():
            raise StudyError(f"{what} would be a folder at the path of this file: set another `{what}`")
    runs = _distinct_runs(content)
    robustness = {}
    for env, of_env in content["environments"].items():
        if "robustness" in content or "robustness" in of_env:
            settings = {**content.get("robustness", {}), **of_env.get("robustness", {})}
            robustness[env] = Robustness(settings.get("perturbations"), settings.get("episodes", 10))
    return Study(
        path.stem,
        text,
        runs,
        folder,
        output,
        results,
        content.get("checkpoint_every", 10_000),
        robustness,
        content.get("gym_packages", ()),
        import_folders=(str(folder), os.getcwd()),
    )


def _runs(content: dict[str, Any]) -> Iterator[Run]:
    """Settings of an environment override those of an algorithm, which override those of the whole file."""
    grid = content.get("grid", {})
    for env, of_env in content["environments"].items():
        module, colon, name = env.rpartition(":")
        if colon and (not MODULE.fullmatch(module) or not name.strip()):
            raise StudyError(f"environments: {env!r} must be an id such as Pendulum-v1, or `module:id`")
        evaluation = {**content.get("evaluation", {}), **of_env.get("evaluation", {})}
        if "every" not in evaluation:
            raise StudyError("evaluation: `every` (environment steps between evaluations) is missing")
        for algorithm, of_algorithm in content["algorithms"].items():
            settings = {**content, **of_algorithm, **of_env}
            _check_run(settings, evaluation["every"], f"{algorithm} on {env}")
            hyperparams: dict[str, Any] = {}
            for part in (content, of_algorithm, of_env):
                hyperparams.update(part.get("hyperparams", {}))
            combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
            for varied, seed in ((varied, seed) for varied in combinations for seed in settings["seeds"]):
                yield Run(
                    algorithm=algorithm,
                    algo=of_algorithm.get("algo", algorithm),
                    env=env,
                    seed=seed,
                    n_timesteps=settings["n_timesteps"],
                    hyperparams={**hyperparams, **varied},
                    varied=varied,
                    env_kwargs=of_env.get("env_kwargs", {}),
                    config=of_algorithm.get("config"),
                    evaluate_every=evaluation["every"],
                    evaluation_episodes=evaluation.get("episodes", 10),
                    evaluation_modes=evaluation.get("modes", MODES[:1]),
                    threads=content.get("threads", 1),
                )


def _check_run(settings: dict[str, Any], every: int, name: str) -> None:
    if "seeds" not in settings:
        seeds(None, "seeds")
    if "n_timesteps" not in settings:
        raise StudyError(f"n_timesteps (environment steps per run) is missing for {name}")
    if every > settings["n_timesteps"]:
        raise StudyError(
            f"evaluation: every ({every}) is larger than n_timesteps ({settings['n_timesteps']}) of {name}: these runs would "
            "have no evaluation"
        )
