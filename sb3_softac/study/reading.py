"""Reading and checking the file that declares a study, before any run starts."""

import itertools
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
    *("robustness", "output", "results", "threads", "checkpoint_every"),
)
OF_ALGORITHM = ("algo", "hyperparams", "config", "n_timesteps", "seeds")
OF_ENVIRONMENT = ("n_timesteps", "hyperparams", "env_kwargs", "evaluation", "robustness")
OF_EVALUATION = ("every", "episodes", "modes")
OF_ROBUSTNESS = ("perturbations", "episodes")


class _Loader(yaml.SafeLoader):
    """Reads 1e6 and 3e-4 as numbers; YAML 1.1 treats them as strings because they have no decimal point."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def read_study(path: str | Path) -> Study:
    """
    :param path: YAML file.
    :return: The study. Folders in the file are relative to the file.
    :raises StudyError: if something in it is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        text = path.read_text()
        content = yaml.load(text, _Loader)
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error
    try:
        content = _table(content, "the file", TOP)
        runs = tuple(_runs(content))
        robustness = dict(_robustness(content))
        checkpoint_every = _number(content.get("checkpoint_every", 10_000), "checkpoint_every")
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from error
    ids = [run.id for run in runs]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise StudyError(f"{path}: two runs would share the folder {twice}: seeds, names and values of the grid must differ")
    folder = path.parent.resolve()
    output = folder / content.get("output", path.stem)
    results = folder / content["results"] if "results" in content else output / "results"
    return Study(path.stem, text, runs, folder, output, results, checkpoint_every, robustness)


def _runs(content: dict[str, Any]) -> Iterator[Run]:
    algorithms = _named(content, "algorithms", OF_ALGORITHM)
    environments = _named(content, "environments", OF_ENVIRONMENT)
    grid = _table(content.get("grid"), "grid")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise StudyError(f"grid: {key} needs a list of values, got {values!r}")
    common, threads = _table(content.get("hyperparams"), "hyperparams"), _number(content.get("threads", 1), "threads")
    for env, of_env in environments.items():
        evaluation = {**_evaluation(content, "evaluation"), **_evaluation(of_env, f"evaluation of {env}")}
        if "every" not in evaluation:
            raise StudyError("evaluation: `every` (environment steps between evaluations) is missing")
        for name, of_algorithm in algorithms.items():
            n_timesteps = {**content, **of_algorithm, **of_env}.get("n_timesteps")
            if n_timesteps is None:
                raise StudyError(f"n_timesteps (environment steps per run) is missing for {name} on {env}")
            hyperparams = {
                **common,
                **_table(of_algorithm.get("hyperparams"), f"hyperparams of {name}"),
                **_table(of_env.get("hyperparams"), f"hyperparams of {env}"),
            }
            for values in itertools.product(*grid.values()):
                varied = dict(zip(grid, values, strict=True))
                for seed in _seeds(of_algorithm.get("seeds", content.get("seeds"))):
                    yield Run(
                        algorithm=name,
                        algo=of_algorithm.get("algo", name),
                        env=env,
                        seed=seed,
                        n_timesteps=_number(n_timesteps, "n_timesteps"),
                        hyperparams={**hyperparams, **varied},
                        varied=varied,
                        env_kwargs=_table(of_env.get("env_kwargs"), f"env_kwargs of {env}"),
                        config=of_algorithm.get("config"),
                        evaluate_every=_number(evaluation["every"], "evaluation: every"),
                        evaluation_episodes=_number(evaluation.get("episodes", 10), "evaluation: episodes"),
                        evaluation_modes=tuple(evaluation.get("modes", ("deterministic",))),
                        threads=threads,
                    )


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
    """:return: A dictionary, empty for None, without unknown keys."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StudyError(f"{what} must be a table of `key: value`, got {value!r}")
    for key in value:
        if known is not None and key not in known:
            raise StudyError(f"{what}: unknown key {key!r}, {suggest(key, known)}")
        if not isinstance(key, str):
            raise StudyError(f"{what}: keys must be names, got {key!r}")
    return value


def _named(content: dict[str, Any], what: str, known: Collection[str]) -> dict[str, dict[str, Any]]:
    """:return: Settings by name; empty settings for a list of names."""
    value = content.get(what)
    if not value:
        raise StudyError(f"{what} is missing: give a list of names, or a table of `name: settings`")
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
            raise StudyError(f"{what} must be a list of distinct names, got {value!r}")
        value = dict.fromkeys(value)
    return {name: _table(settings, f"{what}: {name}", known) for name, settings in _table(value, what).items()}


def _evaluation(content: dict[str, Any], what: str) -> dict[str, Any]:
    evaluation = _table(content.get("evaluation"), what, OF_EVALUATION)
    modes = evaluation.get("modes", ["deterministic"])
    if not isinstance(modes, list) or not modes or len(set(modes)) < len(modes):
        raise StudyError(f"{what}: modes must be a list of {' and '.join(MODES)}, got {modes!r}")
    for mode in modes:
        if mode not in MODES:
            raise StudyError(f"{what}: unknown mode {mode!r}, {suggest(mode, MODES)}")
    return evaluation


def _seeds(value: Any) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return list(range(value))
    if isinstance(value, list) and value and all(isinstance(seed, int) and seed >= 0 for seed in value):
        return value
    raise StudyError(f"seeds must be the number of seeds (0, 1, ... are used) or a list of seeds, got {value!r}")


def _number(value: Any, what: str) -> int:
    if isinstance(value, float) and value.is_integer():  # 1e6
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StudyError(f"{what} must be a whole number of at least 1, got {value!r}")
    return value
