"""What a study uses besides RL Zoo's own: modules that register environments, and hyperparameter files in YAML or Python."""

import dataclasses
import functools
import importlib
import pickle
import runpy
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.study_file import MODULE, ZooLoader


def import_user_code(study: Study) -> None:
    """
    Register the environments of a study: RL Zoo's, those of ``gym_packages`` and of ``module:id``, and those of hyperparameter
    files in Python. Modules are found in the folder of the study's file, in the working directory and on Python's path.
    """
    from sb3_softac.zoo import register

    register()
    importlib.import_module("rl_zoo3.import_envs")
    sys.path.extend(folder for folder in study.import_folders if folder not in sys.path)
    for module in dict.fromkeys([*study.gym_packages, *filter(None, (run.env_module for run in study.runs))]):
        import_user_module(module)
    for config in dict.fromkeys(run.config for run in study.runs):
        if config is not None and not _is_yaml(config):
            _python_config(study, config)


@contextmanager
def _located_errors(what: str) -> Iterator[None]:
    """Turn errors of the user's code into a :class:`StudyError` with the traceback."""
    try:
        yield
    except (Exception, SystemExit) as error:
        where = f"\n{traceback_of(error)}" if _user_frames(error) else ""
        raise StudyError(f"{what}: {reason_of(error)}{where}") from error


def import_user_module(name: str) -> None:
    with _located_errors(f"{name} cannot be imported"):
        importlib.import_module(name)


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """:return: The traceback without this file and the machinery of imports."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not frame.filename.startswith(("<frozen ", importlib.__file__, __file__))]


def traceback_of(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(_user_frames(error))
    return "".join(shown.format())


def reason_of(error: BaseException) -> str:
    """:return: One line: what an error says and where it was raised."""
    if isinstance(error, StudyError):
        return str(error).splitlines()[0]
    frames = _user_frames(error)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 500)}{where}"


def _is_yaml(config: str) -> bool:
    return config.endswith((".yml", ".yaml"))


def _python_config(study: Study, config: str) -> dict[str, Any]:
    """:return: The names that a hyperparameter file or module in Python defines."""
    if config.endswith(".py"):
        with _located_errors(f"config: {config} cannot be run"):
            return _run_once((study.folder / config).resolve())
    if not MODULE.fullmatch(config):
        raise StudyError(f"config: {config} is neither a file (.yml, .yaml or .py) nor the name of a module")
    with _located_errors(f"config: {config} is neither a file (.yml, .yaml or .py) nor a module that can be imported"):
        return vars(importlib.import_module(config))


@functools.cache
def _run_once(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))


def with_defaults(study: Study, run: Run) -> Run:
    """:return: The run with the hyperparameters that RL Zoo's file or its ``config`` has for it now, unless it has them."""
    if run.defaults is not None:
        return run
    defaults = _entry(study, run) if run.sent is None else pickle.loads(run.sent).var
    return dataclasses.replace(run, defaults=defaults, sent=None)


def freeze(study: Study) -> Study:
    """:return: The study with the hyperparameter files as they are now, so that no run reads a later version."""
    return dataclasses.replace(study, runs=tuple(with_defaults(study, run) for run in study.runs))


def _entry(study: Study, run: Run) -> dict[str, Any]:
    from rl_zoo3.exp_manager import ExperimentManager

    source, content = _config_of(study, run)
    if not isinstance(content, dict):
        raise StudyError(f"{source} must have a table of hyperparameters for each environment, got {type(content).__name__}")
    names = [run.env, run.env_id, *(["atari"] if ExperimentManager.is_atari(run.env_id) else []), "default"]
    name = next((name for name in names if name in content), None)
    if name is None:
        raise StudyError(f"{source} has no hyperparameters for {run.env_id}, and none under the name `default`")
    if not isinstance(content[name], dict):
        raise StudyError(f"{source}: {name} must be a table of hyperparameters, got {content[name]!r}")
    return dict(content[name])


def _config_of(study: Study, run: Run) -> tuple[str, Any]:
    """:return: Path or name of the hyperparameter file of a run, and its content."""
    if run.config is not None and not _is_yaml(run.config):
        names = _python_config(study, run.config)
        if "hyperparams" not in names:
            raise StudyError(
                f"config: {run.config} has no `hyperparams`, a table with the hyperparameters of each environment"
            )
        return run.config, names["hyperparams"]
    path = _yaml_config(study, run)
    name = run.config or str(path)
    if not path.is_file():
        raise StudyError(f"{run.algorithm}: the hyperparameter file {name} does not exist")
    try:
        return name, _yaml_content(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StudyError(f"{run.algorithm}: the hyperparameter file {name} cannot be read: {error}") from error


def _yaml_config(study: Study, run: Run) -> Path:
    """:return: The study's own file, a preset of this package, or the file of RL Zoo or this package for the algorithm."""
    import rl_zoo3

    from sb3_softac.zoo.algorithms import ALGORITHMS, hyperparameter_file

    own = study.folder / (run.config or "")
    if run.algo in ALGORITHMS:
        default = hyperparameter_file(run.algo)
        preset = default.parent / "presets" / (run.config or "")
        return own if own.is_file() else preset if preset.is_file() else own if run.config else default
    package = Path(rl_zoo3.__file__).parent
    zoo = (package if (package / "hyperparams").is_dir() else package.parent) / "hyperparams"
    return own if run.config else zoo / f"{run.algo}.yml"


@functools.lru_cache(maxsize=64)
def _yaml_content(path: Path, modified: int) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), ZooLoader)
