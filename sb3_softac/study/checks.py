"""Checks of a study before it is run."""

import inspect
import json

import gymnasium as gym
import numpy as np

from sb3_softac.study.declaration import Line, Run, Study, StudyError, suggest
from sb3_softac.study.perturbed import all_lines, check_lines

# What an entry of RL Zoo's files may have beside the arguments of the algorithm.
OF_ZOO = {
    *("n_timesteps", "n_envs", "policy", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "callback"),
    *("noise_type", "noise_std", "noise_std_final", "monitor_kwargs"),
}


def check_names(study: Study) -> None:
    """
    :param study: Study.
    :raises StudyError: if an algorithm, an environment or a hyperparameter is unknown, or a perturbation does not apply.
    """
    from rl_zoo3.exp_manager import ALGOS  # registers the Zoo's environments as well

    for run in study.runs:
        if run.algo not in ALGOS:
            raise StudyError(f"{run.algorithm}: RL Zoo has no algorithm {run.algo!r}, {suggest(run.algo, ALGOS)}")
        if run.env not in gym.registry:
            raise StudyError(f"Unknown environment {run.env!r}, {suggest(run.env, gym.registry)[:200]}")
        if run.config is not None and not study.path_of(run.config).exists():
            raise StudyError(f"{run.algorithm}: the hyperparameter file {run.config} does not exist")
        known = OF_ZOO | inspect.signature(ALGOS[run.algo]).parameters.keys()
        for name in run.hyperparams:
            if name not in known:
                raise StudyError(f"{run.algorithm}: {run.algo} has no hyperparameter {name!r}, {suggest(name, known)}")
    for env, env_kwargs in {run.env: run.env_kwargs for run in study.runs}.items():
        if env in study.robustness:
            check_lines(lines_of(study, env), env, env_kwargs)


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
    """
    before = declared_before(study, run)
    now = json.loads(run.as_json())
    if before is None or before == now:
        return None
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys)


def declared_before(study: Study, run: Run) -> dict[str, object] | None:
    """
    :param study: Study.
    :param run: One of its runs.
    :return: The declaration with which it was started; None if it was not.
    """
    if study.declaration_of(run).exists():
        return json.loads(study.declaration_of(run).read_text())
    for result in (study.result_of(run), study.partial_result_of(run)):
        if result.exists():
            with np.load(result) as data:
                return json.loads(str(data["declaration"]))
    return None


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
