"""What all factors on numbers of an environment have in common: several of them multiply, and each must have an effect."""

import math
import warnings
from operator import attrgetter
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_softac.robustness.effect import CannotTry, why_no_effect
from sb3_softac.robustness.perturbation import Perturbation

REGISTRY = "_scaled_numbers"
"""Attribute of an environment without wrappers: by name, the unperturbed number and the factor of each wrapper."""

_effective: set[Any] = set()
"""What had an effect on registered environments."""


class Scaled(Perturbation):
    """
    Multiplies numbers of the environment by the strength.

    All wrappers of an environment share its numbers: each number is the unperturbed one times the factors of all wrappers. The
    first factor other than 1 is tried on copies of the environment, and refused if it changes nothing.
    """

    unit = "factor"
    neutral = 1.0
    strengths = (0.5, 0.75, 1.25, 1.5, 2.0)

    def _scale(self, strength: float, *names: str) -> None:
        """Finish the construction: the names of the numbers are attributes, or paths to arrays, from the environment on."""
        self._names = names
        self._tried = False
        self._index = max(len(_entry(self.unwrapped, name)["factors"]) for name in names)  # among the factors of each number
        self._apply(self.unwrapped, 1.0)
        self.strength = strength

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Scale the numbers of a copy: some environments are pickled as the arguments of their constructor."""
        self.__dict__.update(state)
        self._apply(self.unwrapped, self.strength)

    def _derive(self, env: gym.Env) -> None:
        """Recompute what the environment derived from the numbers when it was created."""

    def _factor(self, name: str, strength: float) -> Any:
        """:return: The factor, or factors that fit the array."""
        return strength

    def _acts_elsewhere(self) -> bool:
        """:return: Whether the numbers have an effect in states that random actions may not reach."""
        return False

    def _apply(self, env: gym.Env, strength: float) -> None:
        changed = False
        for name in self._names:
            entry, value = _entry(env, name), attrgetter(name)(env)
            factors = entry["factors"]
            factors += [1.0] * (self._index + 1 - len(factors))
            if np.all([np.all(factor == 1) for factor in factors]):
                entry["unperturbed"] = value.copy() if isinstance(value, np.ndarray) else value
            factor = 1.0 if strength == 1 else self._factor(name, strength)
            if not np.array_equal(factor, factors[self._index]):
                factors[self._index], changed = factor, True
                if isinstance(value, np.ndarray):
                    value[...] = _scaled(entry)
                else:
                    setattr(env, name, _scaled(entry))
        if changed:
            self._derive(env)

    def _is_kept(self, env: gym.Env) -> bool:
        """:return: Whether the numbers are what they were set to."""
        return all(np.array_equal(attrgetter(name)(env), _scaled(_entry(env, name))) for name in self._names)

    def _unsupported_reason(self, strength: float) -> str | None:
        if self._tried:
            return None
        env, what = self.unwrapped, " and ".join(repr(name.rpartition(".")[2]) for name in self._names)
        factors = [np.asarray(self._factor(name, strength)) for name in self._names]
        values = [np.asarray(attrgetter(name)(env)) for name in self._names]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = [value * factor for value, factor in zip(values, factors, strict=True)]
        if all(map(np.array_equal, values, scaled)):
            return f"no factor changes {what} (zero or infinite)"
        if not all(np.isfinite(value).all() for value in scaled):
            return f"{what} would be infinite"
        key = (type(self), self._names, *(factor.tobytes() for factor in factors), env.spec and repr(env.spec))
        if env.spec is None or key not in _effective:
            try:
                reason = why_no_effect(
                    env,
                    what,
                    lambda twin: self._apply(twin, strength),
                    slight=lambda twin: self._apply(twin, 0.999 if strength > 1 else 1.001),
                    is_kept=self._is_kept,
                    attribute=None if "." in self._names[0] else self._names[0],
                    acts_elsewhere=self._acts_elsewhere(),
                )
                if reason is not None:
                    return reason
            except CannotTry as error:
                warnings.warn(
                    f"It is unknown whether {type(self).__name__} has an effect on {env}: no copy of the environment could be "
                    f"tried with random actions ({error})",
                    stacklevel=4,
                )
            _effective.add(key)
        self._tried = True
        return None


def _entry(env: Any, name: str) -> dict[str, Any]:
    return vars(env).setdefault(REGISTRY, {}).setdefault(name, {"unperturbed": None, "factors": []})


def _scaled(entry: dict[str, Any]) -> Any:
    """:return: The number under all factors. An integer stays one where it can."""
    value, factor = entry["unperturbed"], math.prod(entry["factors"])
    if np.all(factor == 1):
        return value
    scaled = value * factor
    return type(value)(scaled) if isinstance(value, int | np.integer) and float(scaled).is_integer() else scaled
