"""What all factors on numbers of an environment have in common: several of them multiply, and each must have an effect."""

import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_softac.robustness.base import Perturbation
from sb3_softac.robustness.trial import CannotTry, why_no_effect

REGISTRY = "_scaled_numbers"
"""Attribute of an environment without wrappers: by name, the unperturbed number and the factor of each wrapper."""

_effective: set[Any] = set()
"""What had an effect on registered environments."""


class Scaled(Perturbation):
    """
    Multiplies numbers of the environment by the strength.

    All wrappers of an environment share its numbers: each number is the unperturbed one times the factors of all wrappers. The
    first factor other than 1 is tried on copies of the environment, and refused if it changes nothing.

    :param env: Environment.
    :param names: Names of the numbers.
    """

    unit = "factor"
    neutral = 1.0
    strengths = (0.5, 0.75, 1.25, 1.5, 2.0)
    _attribute: str | None = None
    """The attribute of the environment that holds the number, if one does."""

    def __init__(self, env: gym.Env, names: tuple[str, ...]):
        super().__init__(env)
        self.names = names
        self._tried = False
        self._place = max(len(_entry(env.unwrapped, name)["factors"]) for name in names)  # among the factors of each number
        self._apply(env.unwrapped, 1.0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Scale a copy anew: some environments are pickled as the arguments of their constructor."""
        self.__dict__.update(state)
        self._apply(self.unwrapped, self.strength)

    def _read(self, env: gym.Env, name: str) -> Any:
        """:return: A number or an array of the environment without wrappers."""
        raise NotImplementedError

    def _write(self, env: gym.Env, name: str, value: Any) -> None:
        raise NotImplementedError

    def _derive(self, env: gym.Env) -> None:
        """Recompute what the environment derived from the numbers when it was created."""

    def _factor(self, name: str, strength: float) -> Any:
        """:return: The factor, or factors that fit the array."""
        return strength

    def _acts_elsewhere(self, env: gym.Env) -> bool:
        """:return: Whether the numbers have an effect in states that random actions may not reach."""
        return False

    def _apply(self, env: gym.Env, strength: float) -> None:
        changed = False
        for name in self.names:
            entry = _entry(env, name)
            factors = entry["factors"]
            factors += [1.0] * (self._place + 1 - len(factors))
            if _neutral(factors):
                entry["unperturbed"] = _copy(self._read(env, name))
            factor = 1.0 if strength == 1 else self._factor(name, strength)
            if not np.array_equal(factor, factors[self._place]):
                factors[self._place] = factor
                self._write(env, name, _scaled(entry))
                changed = True
        if changed:
            self._derive(env)

    def _kept(self, env: gym.Env) -> bool:
        """:return: Whether the numbers are what they were set to."""
        entries = [(self._read(env, name), _entry(env, name)) for name in self.names]
        return all(_neutral(entry["factors"]) or np.array_equal(value, _scaled(entry)) for value, entry in entries)

    def _why_not(self, strength: float) -> str | None:
        if self._tried:
            return None
        env, what = self.unwrapped, " and ".join(map(repr, self.names))
        factors = [np.asarray(self._factor(name, strength)) for name in self.names]
        values = [np.asarray(self._read(env, name)) for name in self.names]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = [value * factor for value, factor in zip(values, factors, strict=True)]
        if all(map(np.array_equal, values, scaled)):
            return f"no factor changes {what} (zero or infinite)"
        if not all(np.isfinite(value).all() for value in scaled):
            return f"{what} would be infinite"
        key = None
        if (spec := env.spec) is not None:
            key = (type(self), self.names, *(factor.tobytes() for factor in factors), spec.entry_point, repr(spec.kwargs))
        if key is None or key not in _effective:
            try:
                reason = why_no_effect(
                    env,
                    lambda twin: self._apply(twin, strength),
                    self._kept,
                    what,
                    attribute=self._attribute,
                    slightly=lambda twin: self._apply(twin, 0.999 if strength > 1 else 1.001),
                    rare=self._acts_elsewhere(env),
                )
            except CannotTry as error:
                reason = None
                warnings.warn(
                    f"It is not known whether {type(self).__name__} has an effect on {env}: a copy of the environment, with "
                    f"random actions, could not be tried ({error})",
                    stacklevel=4,
                )
            if reason is not None:
                return reason
            _effective.update([key] if key else [])
        self._tried = True
        return None


def _entry(env: Any, name: str) -> dict[str, Any]:
    return vars(env).setdefault(REGISTRY, {}).setdefault(name, {"unperturbed": None, "factors": []})


def _neutral(factors: list[Any]) -> bool:
    return all(np.all(factor == 1) for factor in factors)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _scaled(entry: dict[str, Any]) -> Any:
    """:return: The number under all factors. An integer stays one where it can."""
    value, factor = entry["unperturbed"], math.prod(entry["factors"])
    if np.all(factor == 1):
        return value
    scaled = value * factor
    if isinstance(value, int | np.integer) and float(scaled).is_integer():
        return type(value)(scaled)
    return scaled
