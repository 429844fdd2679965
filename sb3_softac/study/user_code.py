"""What a study uses beside RL Zoo's own: modules that register environments, and hyperparameter files in YAML or Python."""

import dataclasses
import functools
import importlib
import json
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.reading import MODULE, ZooLoader

PYTHON_CONFIG = "sb3_softac_study_config_{}"
_loaded: dict[str, ModuleType] = {}
"""Hyperparameter files in Python that this process has run, by path."""


def import_user_code(study: Study) -> None:
    """
    Register the environments of a study: RL Zoo's, those of ``gym_packages`` and of ``module:id``, and those of hyperparameter
    files in Python. Modules are found in the folder of the study's file, in the working directory and on Python's path.

    :param study: Study.
    :raises StudyError: if one of the modules cannot be imported.
    """
    from sb3_softac.zoo import register

    register()
    importlib.import_module("rl_zoo3.import_envs")
    sys.path.extend(folder for folder in study.import_folders if folder not in sys.path)
    modules = [run.env.rpartition(":")[0] for run in study.runs]
    for module in dict.fromkeys([*study.gym_packages, *filter(None, modules)]):
        import_user_module(module)
    for config in dict.fromkeys(run.config for run in study.runs if run.config is not None):
        if not _is_yaml(config):
            _python_config(study, config)


@contextmanager
def _errors_located(what: str) -> Iterator[None]:
    """Turn errors of the user's code into a :class:`StudyError` with the traceback."""
    try:
        yield
    except (Exception, SystemExit) as error:
        where = f"\n{traceback_of(error)}" if _frames(traceback.extract_tb(error.__traceback__)) else ""
        raise StudyError(f"{what}: {reason_of(error)}{where}") from error


def import_user_module(name: str) -> None:
    """
    :param name: Module that registers environments.
    :raises StudyError: if it cannot be imported.
    """
    with _errors_located(f"{name} cannot be imported"):
        importlib.import_module(name)


def _frames(frames: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """:return: Those of the user's code and of what it calls, without the machinery of imports."""
    without = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", importlib.__file__, __file__)
    return [frame for frame in frames if frame.filename not in without]


def traceback_of(error: BaseException) -> str:
    """
    :param error: An error.
    :return: Its traceback, without the machinery of imports.
    """
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(_frames(list(shown.stack)))
    return "".join(shown.format())


def reason_of(error: BaseException) -> str:
    """
    :param error: An error.
    :return: One line: what it says and where it was raised.
    """
    if isinstance(error, StudyError):
        return str(error).splitlines()[0]
    frames = _frames(traceback.extract_tb(error.__traceback__))
    said = textwrap.shorten(str(error), 500)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {said}{where}"


def _is_yaml(config: str) -> bool:
    return config.endswith((".yml", ".yaml"))


def _python_config(study: Study, config: str) -> ModuleType:
    """:return: The module of a hyperparameter file in Python, run once per process."""
    if not config.endswith(".py"):
        if not MODULE.fullmatch(config):
            raise StudyError(f"config: {config} is neither a file (.yml, .yaml or .py) nor the name of a module")
        with _errors_located(f"config: {config} is neither a file (.yml, .yaml or .py) nor a module that can be imported"):
            return importlib.import_module(config)
    path = study.path_of(config).resolve()
    if str(path) not in _loaded:
        module = ModuleType(PYTHON_CONFIG.format(len(_loaded)))
        module.__file__ = str(path)
        with _errors_located(f"config: {config} cannot be run"):
            code = compile(path.read_bytes(), str(path), "exec")
            sys.modules[module.__name__] = module  # classes that are defined there can be pickled within this process
            exec(code, module.__dict__)
        _loaded[str(path)] = module
    return _loaded[str(path)]


def with_defaults(study: Study, run: Run) -> Run:
    """
    :param study: Study, whose code has been imported.
    :param run: One of its runs.
    :return: The run, with the hyperparameters that RL Zoo's file or its ``config`` has for it now.
    :raises StudyError: if the file cannot be read, or has no hyperparameters for this environment.
    """
    return run if run.defaults is not None else dataclasses.replace(run, defaults=_entry(study, run))


def frozen(study: Study) -> Study:
    """
    :param study: Study, whose code has been imported.
    :return: The study with the hyperparameter files as they are now, so that no run reads a later version. Python code in
        them is not plain data, and stays with its file.
    """
    runs = (with_defaults(study, run) for run in study.runs)
    return dataclasses.replace(study, runs=tuple(run if _is_plain(run.defaults) else _thawed(run) for run in runs))


def _thawed(run: Run) -> Run:
    return dataclasses.replace(run, defaults=None)


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


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
    import rl_zoo3

    from sb3_softac.zoo.algorithms import ALGORITHMS, hyperparameter_file

    if run.config is not None and not _is_yaml(run.config):
        module = _python_config(study, run.config)
        if not hasattr(module, "hyperparams"):
            raise StudyError(
                f"config: {run.config} has no `hyperparams`, a table with the hyperparameters of each environment"
            )
        return run.config, module.hyperparams
    package = Path(rl_zoo3.__file__).parent
    of_zoo = (package if (package / "hyperparams").is_dir() else package.parent) / "hyperparams" / f"{run.algo}.yml"
    path = hyperparameter_file(run.algo) if run.algo in ALGORITHMS else of_zoo
    if run.config is not None:
        preset = path.parent / "presets" / run.config
        path = study.path_of(run.config)
        if run.algo in ALGORITHMS and not path.is_file() and preset.is_file():
            path = preset
    if not path.is_file():
        raise StudyError(f"{run.algorithm}: the hyperparameter file {run.config or path} does not exist")
    try:
        return str(run.config or path), _yaml_content(str(path), path.stat().st_mtime_ns)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StudyError(f"{run.algorithm}: the hyperparameter file {run.config or path} cannot be read: {error}") from error


@functools.lru_cache(maxsize=64)
def _yaml_content(path: str, changed: int) -> Any:
    return yaml.load(Path(path).read_text(encoding="utf-8"), ZooLoader)
