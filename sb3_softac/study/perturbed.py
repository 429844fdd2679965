"""Which perturbations a trained model is evaluated under, and how strong: declared and checked."""

import importlib
import inspect
from typing import Any

import gymnasium as gym

from sb3_softac.robustness import PERTURBATIONS
from sb3_softac.robustness.parameters import parameters_of
from sb3_softac.study.declaration import Line, StudyError, suggest


def read_lines(content: dict[str, Any]) -> tuple[Line, ...]:
    """
    :param content: By name: strengths, or a table with ``strengths``, ``perturbation`` if the name is none, and the options
        of that perturbation.
    :return: The lines.
    :raises StudyError: if a perturbation, option or strength is unknown or missing.
    """
    if not content:
        raise StudyError("robustness: `perturbations` is empty: leave it out to evaluate all that apply")
    return tuple(_line(name, settings) for name, settings in content.items())


def _line(name: str, settings: Any) -> Line:
    options = dict(settings) if isinstance(settings, dict) else {"strengths": settings}
    perturbation = options.pop("perturbation", name)
    if not isinstance(perturbation, str) or perturbation not in PERTURBATIONS:
        raise StudyError(f"robustness: unknown perturbation {perturbation!r}, {suggest(perturbation, PERTURBATIONS)}")
    kind = PERTURBATIONS[perturbation]
    said = options.pop("strengths", None)
    said = list(kind.strengths) if said is None else said
    strengths = [number_of(value) for value in said] if isinstance(said, list) else []
    if not strengths or None in strengths or len(set(strengths)) < len(strengths):
        raise StudyError(f"robustness: {name}: strengths must be a list of distinct numbers ({kind.unit}), got {said!r}")
    known = dict(list(inspect.signature(kind).parameters.items())[2:])  # after environment and strength
    for key in options:
        if key not in known:
            raise StudyError(f"robustness: {name}: unknown key {key!r}, {suggest(key, ['strengths', 'perturbation', *known])}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in options:
            raise StudyError(f"robustness: {name}: {perturbation} needs {key!r}")
    return Line(name, perturbation, options, tuple(value for value in strengths if value is not None))


def number_of(value: Any) -> float | None:
    """
    :param value: A number, or the text of one: YAML 1.1 reads ``1e-1`` as text.
    :return: The number; None if it is none.
    """
    if type(value) not in (int, float, str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def make(env: str, env_kwargs: dict[str, Any]) -> gym.Env:
    """
    :param env: Id of an environment, also of one that only RL Zoo registers.
    :param env_kwargs: Its arguments.
    :return: The environment.
    :raises StudyError: if it cannot be created.
    """
    importlib.import_module("rl_zoo3.import_envs")
    try:
        return gym.make(env, **env_kwargs)
    except Exception as error:  # in the code of the environment
        raise StudyError(f"{env} cannot be created: {type(error).__name__}: {error}") from error


def all_lines(env: str, env_kwargs: dict[str, Any]) -> tuple[Line, ...]:
    """
    :param env: Id of an environment.
    :param env_kwargs: Its arguments.
    :return: All perturbations that apply to it, with their own strengths.
    :raises StudyError: if none does.
    """
    made = make(env, env_kwargs)
    names = parameters_of(made.unwrapped)
    lines = [Line(name, name, {}, kind.strengths) for name, kind in PERTURBATIONS.items() if name != "parameter"]
    lines += [Line(f"parameter {name}", "parameter", {"name": name}, PERTURBATIONS["parameter"].strengths) for name in names]
    applicable = tuple(line for line in lines if _applies(line, made))
    made.close()
    if not applicable:
        raise StudyError(
            f"robustness: none of the default perturbations applies to {env}. Name one: `parameter` multiplies an attribute "
            "of the environment, given by its `name`"
        )
    return applicable


def _applies(line: Line, env: gym.Env) -> bool:
    try:
        _try(line, env)
    except ValueError:
        return False
    return True


def _try(line: Line, env: gym.Env) -> None:
    """Put each strength around an environment, and take it back."""
    for strength in line.strengths:
        perturbed = line.wrap(env, strength)
        perturbed.strength = line.kind.neutral  # type: ignore[attr-defined]


def check_lines(lines: tuple[Line, ...], env: str, env_kwargs: dict[str, Any]) -> None:
    """
    :param lines: Perturbations.
    :param env: Id of the environment.
    :param env_kwargs: Its arguments.
    :raises StudyError: if one of them does not apply to it, or not with that strength.
    """
    made = make(env, env_kwargs)
    for line in lines:
        try:
            _try(line, made)
        except (ValueError, TypeError) as error:
            raise StudyError(f"robustness: {line.name} for {env}: {error}") from error
    made.close()
