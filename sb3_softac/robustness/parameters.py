"""Perturbations of environments that keep their physics in attributes, as Gymnasium's classic control does."""

from typing import Any

import gymnasium as gym

from sb3_softac.robustness.base import Perturbation

# Physical parameters by the class of the environment: what is tried where none is named.
PARAMETERS = {
    "PendulumEnv": ("g", "m", "l"),
    "CartPoleEnv": ("gravity", "masscart", "masspole", "length", "force_mag"),
    "MountainCarEnv": ("force", "gravity"),
    "Continuous_MountainCarEnv": ("power",),
}


def derive(env: Any) -> None:
    """
    Recompute what an environment derives from its parameters when it is created.

    :param env: Environment.
    """
    if type(env).__name__ == "CartPoleEnv":
        env.total_mass = env.masspole + env.masscart
        env.polemass_length = env.masspole * env.length


class Parameter(Perturbation):
    """
    Multiplies a physical parameter of the environment by the strength: ``g``, ``m`` or ``l`` of Pendulum, ``masspole`` of
    CartPole, or any other attribute of the environment that is a number.

    :param env: Environment.
    :param strength: Factor, above 0.
    :param name: Name of the attribute.
    :raises ValueError: if the environment has no such number, or the factor is not positive.
    """

    unit = "factor"
    neutral = 1.0
    lowest = 1e-3  # parameters stand in denominators
    strengths = (0.5, 0.75, 1.25, 1.5, 2.0)

    def __init__(self, env: gym.Env, strength: float, name: str):
        super().__init__(env)
        numbers = numbers_of(env.unwrapped)
        if name not in numbers:
            known = PARAMETERS.get(type(env.unwrapped).__name__, tuple(numbers))
            raise ValueError(f"{env.unwrapped} has no parameter {name!r}; it has {', '.join(known) or 'none'}")
        self.name, self._nominal = name, numbers[name]
        self.strength = strength

    def _apply(self) -> None:
        env = self.env.unwrapped
        setattr(env, self.name, self._nominal if self.strength == 1 else self.strength * self._nominal)
        derive(env)


def numbers_of(env: gym.Env) -> dict[str, float]:
    """
    :param env: Environment without wrappers.
    :return: Its public attributes, those of its class included, that are numbers.
    """
    attributes = {name: value for cls in reversed(type(env).__mro__) for name, value in vars(cls).items()} | vars(env)
    return {
        name: value
        for name, value in attributes.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.startswith("_")
    }
