"""Checks of a study before it is run."""

import inspect
import json
from collections.abc import Iterator, Set
from contextlib import suppress
from typing import Any

import gymnasium as gym

from sb3_softac.study.archive import read_arrays
from sb3_softac.study.declaration import Line, Run, Study, StudyError, suggest
from sb3_softac.study.perturbed import all_lines, check_lines, make
from sb3_softac.study.user_code import import_user_code, with_defaults

# What an entry of RL Zoo's files may have beside the arguments of the algorithm.
OF_ZOO = {
    *("n_envs", "policy", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "callback"),
    *("noise_type", "noise_std", "noise_std_final", "monitor_kwargs"),
}
# What the study sets itself.
OF_STUDY = {
    "n_timesteps": "`n_timesteps` is a key of the file, of an algorithm or of an environment",
    "env_kwargs": "`env_kwargs` is a key of the environment",
    "seed": "`seeds` is a key of the file or of an algorithm",
    **dict.fromkeys(("env", "device", "verbose", "tensorboard_log", "_init_setup_model"), "the study sets it"),
}


def check_names(study: Study) -> None:
    """
    :param study: Study.
    :raises StudyError: if the user's code cannot be imported, if an algorithm, an environment or a hyperparameter is unknown,
        or if a perturbation does not apply.
    """
    import_user_code(study)
    from rl_zoo3.exp_manager import ALGOS

    checked: set[tuple[str, str]] = set()
    for run in study.runs:
        if run.algo not in ALGOS:
            raise StudyError(f"{run.algorithm}: RL Zoo has no algorithm {run.algo!r}, {suggest(run.algo, ALGOS)}")
        if run.env_id not in gym.registry:
            hint = "If a module of your own registers it, name the module under `gym_packages`"
            raise StudyError(f"Unknown environment {run.env!r}, {suggest(run.env_id, gym.registry)[:200]}. {hint}")
        known = OF_ZOO | inspect.signature(ALGOS[run.algo]).parameters.keys() - OF_STUDY.keys()
        _check_hyperparams(run, known)
        if (run.algorithm, run.env) not in checked:
            checked.add((run.algorithm, run.env))
            _check_defaults(with_defaults(study, run), known)
    for env, env_kwargs in {run.env: run.env_kwargs for run in study.runs}.items():
        if env_kwargs or env in study.robustness:
            make(env, env_kwargs).close()
        if env in study.robustness:
            check_lines(lines_of(study, env), env, env_kwargs)


def _check_hyperparams(run: Run, known: Set[str]) -> None:
    for name in run.hyperparams:
        if name in OF_STUDY:
            raise StudyError(f"hyperparams of {run.algorithm}: {name} is not allowed here: {OF_STUDY[name]}")
        if name not in known:
            raise StudyError(f"{run.algorithm}: {run.algo} has no hyperparameter {name!r}, {suggest(name, known)}")


def _check_defaults(run: Run, known: Set[str]) -> None:
    for name in run.defaults or {}:
        if run.config is not None and name not in {*known, "n_timesteps", "env_kwargs"}:
            raise StudyError(f"{run.config}: {run.algo} has no hyperparameter {name!r}, {suggest(name, known)}")


def lines_of(study: Study, env: str) -> tuple[Line, ...]:
    """
    :param study: Study that declares a robustness.
    :param env: One of its environments.
    :return: The perturbations that its agents are evaluated under.
    """
    lines = study.robustness[env].lines
    if lines is not None:
        return lines
    return all_lines(env, next(run.env_kwargs for run in study.runs if run.env == env))


def made_otherwise(study: Study, run: Run) -> str | None:
    """
    :param study: Study.
    :param run: One of its runs.
    :return: What differs from the declaration with which it was started; None if nothing does.
    :raises StudyError: if this declaration cannot be read.
    """
    for before in declared_before(study, run):
        now = json.loads(run.as_json())
        if not ("defaults" in before and "defaults" in now):  # the hyperparameter files have not been read
            before.pop("defaults", None)
            now.pop("defaults", None)
        if differences := ", ".join(_differences(before, now)):
            return differences
    return None


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{key}: {difference}" for difference in _differences(old, new))
        elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):  # True is not 1
            yield f"{key}: {old} -> {new}"


def declared_before(study: Study, run: Run) -> Iterator[dict[str, Any]]:
    """
    :param study: Study.
    :param run: One of its runs.
    :return: The declarations with which it was started and which its result has; nothing if it was not started.
    :raises StudyError: if it was, but the file cannot be read.
    """
    declaration = study.declaration_of(run)
    if declaration.exists():
        try:
            yield dict(json.loads(declaration.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StudyError(
                f"{declaration} cannot be read ({error}): remove the folder {declaration.parent} to start this run over"
            ) from error
    for result in (study.result_of(run), study.partial_result_of(run)):
        if result.exists():
            with suppress(StudyError, KeyError, ValueError, TypeError):  # a damaged result counts as none
                yield dict(json.loads(str(read_arrays(result)["declaration"])))


def check_unchanged(study: Study) -> None:
    """
    :param study: Study.
    :raises StudyError: if existing runs no longer match the file.
    """
    changes = {run.id: change for run in study.runs if (change := made_otherwise(study, run))}
    if changes:
        first, change = next(iter(changes.items()))
        raise StudyError(
            f"{len(changes)} runs were started with a different declaration, for example {first} ({change}). Undo the "
            f"change, set a different `output` in the file, or remove those runs from {study.output} and {study.results}"
        )
