"""Checks of a study before it is run: names that RL Zoo and the algorithms know, perturbations that apply, unchanged runs."""

import dataclasses
import inspect
import itertools
from collections.abc import Set
from typing import Any

import gymnasium as gym

from sb3_softac.checks import Argument, integer, one_of, optional
from sb3_softac.study.declaration import Run, Study, StudyError, suggest
from sb3_softac.study.perturbed_evaluation import check_sweeps, kwargs_in, made_with, sweeps_of
from sb3_softac.study.results import changed_settings
from sb3_softac.study.study_file import one
from sb3_softac.study.user_code import import_user_code, with_defaults

# What an entry of RL Zoo's files may have besides the arguments of the algorithm
ZOO_KEYS = {
    *("n_envs", "policy", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "callback"),
    *("noise_type", "noise_std", "noise_std_final", "monitor_kwargs"),
}
# What the study sets itself
STUDY_KEYS = {
    "n_timesteps": "`n_timesteps` is a key of the file, of an algorithm or of an environment",
    "env_kwargs": "`env_kwargs` is a key of the environment",
    "seed": "`seeds` is a key of the file or of an algorithm",
    **dict.fromkeys(("env", "device", "verbose", "tensorboard_log", "_init_setup_model"), "the study sets it"),
}


MANY = 4
"""Keys of a grid whose possible orders are not compared with those of existing runs if there are more."""


def _schedule(value: Any) -> float:
    _, start = value.split("_") if isinstance(value, str) else ("", value)
    return float(start)


# What RL Zoo reads without checking it
SCHEDULE = Argument("a number, or a text such as lin_3e-4 for one that decreases to 0", _schedule)
READ_BY_ZOO = {
    "n_envs": integer(1),
    **dict.fromkeys(("learning_rate", "clip_range", "clip_range_vf", "delta_std"), SCHEDULE),
    "noise_type": optional(one_of("normal", "ornstein-uhlenbeck")),
}


def check_names(study: Study) -> None:
    """
    :raises StudyError: if the user's code cannot be imported, if an algorithm, an environment or a hyperparameter is unknown,
        or if a perturbation does not apply.
    """
    import_user_code(study)
    from rl_zoo3.exp_manager import ALGOS

    for run in study.runs:
        if run.algo not in ALGOS:
            raise StudyError(f"{run.algorithm}: RL Zoo has no algorithm {run.algo!r}, {suggest(run.algo, ALGOS)}")
        if run.env_id not in gym.registry:
            hint = "if a module of your own registers it, name the module under `gym_packages`"
            raise StudyError(f"Unknown environment {run.env!r}, {suggest(run.env_id, gym.registry)[:200]} ({hint})")
        _check_hyperparams(study, run, ZOO_KEYS | inspect.signature(ALGOS[run.algo]).parameters.keys() - STUDY_KEYS.keys())
    for env in {run.env: None for run in study.runs}:
        if env in study.robustness:
            check_sweeps(sweeps_of(study, env), env, kwargs_in(study, env))
        else:
            with made_with(env, [kwargs for kwargs in kwargs_in(study, env) if kwargs]):
                pass


def _check_hyperparams(study: Study, run: Run, known: Set[str]) -> None:
    for name in run.hyperparams:
        if name in STUDY_KEYS:
            raise StudyError(f"hyperparams of {run.algorithm}: {name} is not allowed here: {STUDY_KEYS[name]}")
        if name not in known:
            raise StudyError(f"{run.algorithm}: {run.algo} has no hyperparameter {name!r}, {suggest(name, known)}")
    defaults = with_defaults(study, run).defaults or {}
    unknown = [name for name in defaults if name not in known | {"n_timesteps", "env_kwargs"}]
    if unknown and run.config is not None:
        raise StudyError(f"{run.config}: {run.algo} has no hyperparameter {unknown[0]!r}, {suggest(unknown[0], known)}")
    used = {**defaults, **run.hyperparams}
    for name, argument in READ_BY_ZOO.items():
        if name in used:
            one(argument)(used[name], f"{run.algorithm}: {name}")
    if used.get("noise_type") is not None and "noise_std" not in used:
        raise StudyError(f"{run.algorithm}: noise_type needs noise_std, the standard deviation of the noise")


def check_unchanged(study: Study) -> None:
    """:raises StudyError: if existing runs no longer match the file."""
    changes = {run.id: change for run in study.runs if (change := changed_settings(study, run))}
    if changes:
        raise StudyError(
            f"These runs were started with a different declaration: {', '.join(changes)} (of the first one: "
            f"{next(iter(changes.values()))}). Undo the change, set a different `output` in the file, or remove those runs "
            f"from {study.output} and {study.results}"
        )
    for run in study.runs:  # whose folders are named after their hyperparameters, in this order
        for order in itertools.permutations(run.varied.items()) if len(run.varied) <= MANY else ():
            other = dataclasses.replace(run, varied=dict(order))
            if other.id != run.id and (study.declaration_of(other).exists() or study.result_of(other).exists()):
                raise StudyError(f"The keys of `grid` were in another order when {other.id} was started: restore that order")
