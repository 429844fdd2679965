"""Reading and checking the file that declares a study, before any run starts."""

import itertools
import math
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from sb3_softac.study.declaration import Robustness, Run, Study, StudyError, suggest
from sb3_softac.study.perturbed import read_lines

MODES = ("deterministic", "stochastic")
TOP = (
    *("algorithms", "environments", "seeds", "n_timesteps", "hyperparams", "grid", "evaluation"),
    *("robustness", "output", "results", "threads", "checkpoint_every", "gym_packages"),
)
OF_ALGORITHM = ("algo", "hyperparams", "config", "n_timesteps", "seeds")
OF_ENVIRONMENT = ("n_timesteps", "hyperparams", "env_kwargs", "evaluation", "robustness")
OF_EVALUATION = ("every", "episodes", "modes")
OF_ROBUSTNESS = ("perturbations", "episodes")
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
MOST_RUNS = 100_000
MOST_VALUES = 100_000
MOST_THREADS = 1024
LARGEST = 2**63 - 1
LARGEST_SEED = 2**32 - 1
"""NumPy accepts no larger one."""


class ZooLoader(yaml.SafeLoader):
    """Reads 1e6 and 3e-4 as numbers; YAML 1.1 treats them as strings because they have no decimal point."""


ZooLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


class _Loader(ZooLoader):
    """Refuses what YAML 1.1 reads otherwise than its author is likely to mean: 0100, 1:30, off, and keys that are repeated."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key))
            if name in lines:
                raise StudyError(f"line {line}: the key {key.value!r} is already on line {lines[name]}: remove one of them")
            lines[name] = line
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (StudyError, yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # a date of a 13th month, `!!int x`
            kind = node.tag.rpartition(":")[2]
            raise StudyError(f"line {node.start_mark.line + 1}: {node.value!r} is no {kind}: write it in quotes") from error

    def _bool(self, node: yaml.ScalarNode) -> bool:
        if node.value.lower() not in ("true", "false"):
            raise StudyError(
                f"line {node.start_mark.line + 1}: YAML reads {node.value} as a boolean: write true or false, or "
                f"'{node.value}' in quotes"
            )
        return self.construct_yaml_bool(node)

    def _int(self, node: yaml.ScalarNode) -> int:
        if re.fullmatch(r"[-+]?0[\d_]+", node.value):
            raise StudyError(
                f"line {node.start_mark.line + 1}: YAML reads {node.value} as an octal number: write it without "
                f"leading zeros, or '{node.value}' in quotes"
            )
        return self.construct_yaml_int(_not_in_base_60(node))

    def _float(self, node: yaml.ScalarNode) -> float:
        return self.construct_yaml_float(_not_in_base_60(node))


_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader._bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader._int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader._float)


def _not_in_base_60(node: yaml.ScalarNode) -> yaml.ScalarNode:
    if ":" in node.value:
        raise StudyError(
            f"line {node.start_mark.line + 1}: YAML reads {node.value} as a number in base 60: write '{node.value}' in quotes"
        )
    return node


def read_study(path: str | Path) -> Study:
    """
    :param path: YAML file.
    :return: The study. Folders in the file are relative to the file.
    :raises StudyError: if something in it is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        text = _text_of(path)
        content = _parsed(text)
        _check_plain(content, (), frozenset(), itertools.count())
        content = _table(content, "the file", TOP)
        runs = tuple(_runs(content))
        robustness = dict(_robustness(content))
        checkpoint_every = _number(content.get("checkpoint_every", 10_000), "checkpoint_every")
        packages = _packages(content.get("gym_packages", []))
        folder = path.parent.resolve()
        output = folder / _path(content.get("output", path.stem), "output")
        results = folder / _path(content["results"], "results") if "results" in content else output / "results"
        for what, chosen in (("output", output), ("results", results)):
            if chosen.resolve() == path.resolve():
                raise StudyError(f"{what} would be a folder in the place of the file itself: set another `{what}`")
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error
    ids: set[str] = set()
    for run in runs:
        if run.id in ids:
            raise StudyError(
                f"{path}: two runs would share the folder {run.id}: seeds, names and values of the grid must differ"
            )
        ids.add(run.id)
    return Study(
        *(path.stem, text, runs, folder, output, results, checkpoint_every, robustness),
        gym_packages=packages,
        import_folders=(str(folder), os.getcwd()),
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise StudyError(f"the file cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"the file is not in UTF-8 (byte {error.start + 1}): save it in this encoding") from error
    except ValueError as error:  # a path with a null character
        raise StudyError(f"the file cannot be read: {error}") from error


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise StudyError(f"the file cannot be read as YAML: {error}") from error
    except RecursionError as error:
        raise StudyError("the file cannot be read as YAML: it is nested too deeply") from error


def _check_plain(value: Any, at: tuple[str, ...], above: frozenset[int], visited: Iterator[int]) -> None:
    """Refuse what cannot be stored and compared: dates, sets, bytes, NaN, and values that contain themselves."""
    where = f"{': '.join(at)}: " if at else ""
    if next(visited) > MOST_VALUES:
        raise StudyError(f"{at[0]}: the file has more than {MOST_VALUES} values")
    if isinstance(value, list | dict):
        if id(value) in above:
            raise StudyError(f"{where}the value contains itself")
        if len(above) > 100:
            raise StudyError(f"{at[0]}: the value is nested too deeply")
        within = above | {id(value)}
        for key, part in value.items() if isinstance(value, dict) else enumerate(value, 1):
            if isinstance(value, dict):
                _check_plain(key, at, within, visited)
            _check_plain(part, (*at, str(key)), within, visited)
    elif reason := _not_storable(value):
        raise StudyError(f"{where}{reason}")


def _not_storable(value: Any) -> str | None:
    if isinstance(value, str):
        return (
            f"{value!r} contains a character that cannot be written to a file"
            if re.search("[\0\ud800-\udfff]", value)
            else None
        )
    if isinstance(value, int):
        return "whole numbers may have at most 64 bits" if abs(value) > LARGEST else None
    if isinstance(value, float):
        return "NaN is no value" if math.isnan(value) else None
    return None if value is None else f"{value!r} is a {type(value).__name__}, which a study cannot store: write it in quotes"


def _runs(content: dict[str, Any]) -> Iterator[Run]:
    algorithms = _named(content, "algorithms", OF_ALGORITHM)
    environments = _named(content, "environments", OF_ENVIRONMENT)
    grid = _grid(content)
    common = _table(content.get("hyperparams"), "hyperparams")
    threads = _number(content.get("threads", 1), "threads", MOST_THREADS)
    seeds = {name: _seeds(of_algorithm.get("seeds", content.get("seeds"))) for name, of_algorithm in algorithms.items()}
    if sum(map(len, seeds.values())) * len(environments) * math.prod(map(len, grid.values())) > MOST_RUNS:
        raise StudyError(f"seeds, grid, algorithms and environments make more than {MOST_RUNS} runs: split the study")
    for env, of_env in environments.items():
        _check_environment(env)
        evaluation = {**_evaluation(content, "evaluation"), **_evaluation(of_env, f"evaluation of {env}")}
        if "every" not in evaluation:
            raise StudyError("evaluation: `every` (environment steps between evaluations) is missing")
        every = _number(evaluation["every"], "evaluation: every")
        for name, of_algorithm in algorithms.items():
            n_timesteps = {**content, **of_algorithm, **of_env}.get("n_timesteps")
            if n_timesteps is None:
                raise StudyError(f"n_timesteps (environment steps per run) is missing for {name} on {env}")
            n_timesteps = _number(n_timesteps, "n_timesteps")
            if every > n_timesteps:
                raise StudyError(
                    f"evaluation: every ({every}) is larger than n_timesteps ({n_timesteps}) of {name} on {env}: these runs "
                    "would have no evaluation"
                )
            hyperparams = {
                **common,
                **_table(of_algorithm.get("hyperparams"), f"hyperparams of {name}"),
                **_table(of_env.get("hyperparams"), f"hyperparams of {env}"),
            }
            config = of_algorithm.get("config")
            for values in itertools.product(*grid.values()):
                varied = dict(zip(grid, values, strict=True))
                for seed in seeds[name]:
                    yield Run(
                        algorithm=name,
                        algo=_text(of_algorithm.get("algo", name), f"algo of {name}"),
                        env=env,
                        seed=seed,
                        n_timesteps=n_timesteps,
                        hyperparams={**hyperparams, **varied},
                        varied=varied,
                        env_kwargs=_table(of_env.get("env_kwargs"), f"env_kwargs of {env}"),
                        config=None if config is None else _text(config, f"config of {name}"),
                        evaluate_every=every,
                        evaluation_episodes=_number(evaluation.get("episodes", 10), "evaluation: episodes"),
                        evaluation_modes=tuple(evaluation.get("modes", ("deterministic",))),
                        threads=threads,
                    )


def _grid(content: dict[str, Any]) -> dict[str, list[Any]]:
    grid = _table(content.get("grid"), "grid")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise StudyError(f"grid: {key} needs a list of values, got {values!r}")
    return grid


def _robustness(content: dict[str, Any]) -> Iterator[tuple[str, Robustness]]:
    """:return: By environment, where it or the file says something of it."""
    for env, of_env in _named(content, "environments", OF_ENVIRONMENT).items():
        said = {}
        for part, what in ((content, "robustness"), (of_env, f"robustness of {env}")):
            said.update(_table(part.get("robustness"), what, OF_ROBUSTNESS))
        if "robustness" in content or "robustness" in of_env:
            perturbations = said.get("perturbations")
            lines = None if perturbations is None else read_lines(_table(perturbations, "robustness: perturbations"))
            yield env, Robustness(lines, _number(said.get("episodes", 10), "robustness: episodes"))


def _table(value: Any, what: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """:return: A dictionary, empty for None, without unknown keys; of known ones, those with a value."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StudyError(f"{what} must be a table of `key: value`, got {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise StudyError(f"{what}: keys must be names, got {key!r}")
        if known is not None and key not in known:
            raise StudyError(f"{what}: unknown key {key!r}, {suggest(key, known)}")
    return value if known is None else {key: part for key, part in value.items() if part is not None or key == "robustness"}


def _named(content: dict[str, Any], what: str, known: Collection[str]) -> dict[str, dict[str, Any]]:
    """:return: Settings by name; empty settings for a list of names."""
    value = content.get(what)
    if not value:
        raise StudyError(f"{what} is missing: give a list of names, or a table of `name: settings`")
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
            raise StudyError(f"{what} must be a list of distinct names, got {value!r}")
        value = dict.fromkeys(value)
    table = _table(value, what)
    for name in table:
        _text(name, f"a name in {what}")
    return {name: _table(settings, f"{what}: {name}", known) for name, settings in table.items()}


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise StudyError(f"{what} must be a text that is not empty, got {value!r}")
    return value


def _path(value: Any, what: str) -> str:
    return os.path.expanduser(_text(value, what))


def _packages(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and MODULE.fullmatch(name) for name in value):
        raise StudyError(f"gym_packages must be a list of Python modules that register environments, got {value!r}")
    return tuple(value)


def _check_environment(env: str) -> None:
    module, colon, name = env.rpartition(":")
    if colon and (not MODULE.fullmatch(module) or not name.strip()):
        raise StudyError(f"environments: {env!r} must be an id such as Pendulum-v1, or `module:id`")


def _evaluation(content: dict[str, Any], what: str) -> dict[str, Any]:
    evaluation = _table(content.get("evaluation"), what, OF_EVALUATION)
    modes = evaluation.get("modes", ["deterministic"])
    if not isinstance(modes, list) or not modes or any(modes.count(mode) > 1 for mode in modes):
        raise StudyError(f"{what}: modes must be a list of {' and '.join(MODES)}, got {modes!r}")
    for mode in modes:
        if mode not in MODES:
            raise StudyError(f"{what}: modes: unknown mode {mode!r}, {suggest(mode, MODES)}")
    return evaluation


def _seeds(value: Any) -> range | list[int]:
    numbers = [_whole(seed) for seed in value] if isinstance(value, list) else []
    count = _whole(value)
    if isinstance(count, int) and 1 <= count <= LARGEST_SEED:
        return range(count)
    if numbers and all(isinstance(seed, int) and 0 <= seed <= LARGEST_SEED for seed in numbers):
        return [seed for seed in numbers if seed is not None]
    raise StudyError(
        f"seeds must be the number of seeds (0, 1, ... are used) or a list of seeds from 0 to {LARGEST_SEED}, got {value!r}"
    )


def _whole(value: Any) -> int | None:
    """:return: A whole number, also for a float such as 1e6; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any, what: str, most: int = LARGEST) -> int:
    number = _whole(value)
    if number is None or not 1 <= number <= most:
        limit = "" if most == LARGEST else f" and at most {most}"
        raise StudyError(f"{what} must be a whole number of at least 1{limit}, got {value!r}")
    return number
