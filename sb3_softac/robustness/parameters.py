"""Perturbations of environments that keep their physics in attributes, as Gymnasium's classic control does."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from sb3_softac.robustness.scaled import Scaled

# Physical parameters by the class of the environment: what is tried where none is named.
PARAMETERS = {
    "PendulumEnv": ("g", "m", "l"),
    "CartPoleEnv": ("gravity", "masscart", "masspole", "length", "force_mag"),
    "MountainCarEnv": ("force", "gravity"),
    "Continuous_MountainCarEnv": ("power",),
}


class Parameter(Scaled):
    """
    Multiplies a physical parameter of the environment by the strength: ``g``, ``m`` or ``l`` of Pendulum, ``masspole`` of
    CartPole, or any other attribute of the environment that is a number. An integer stays one if the product is whole.

    :param env: Environment.
    :param strength: Factor, above 0.
    :param name: Name of the attribute.
    :raises ValueError: if the environment has no such number, the factor is not positive, or it changes nothing: for example
        because the attribute is computed from others, set anew in each episode, or read only when the environment is created.
    """

    lowest = 1e-3  # parameters stand in denominators

    def __init__(self, env: gym.Env, strength: float, name: str):
        if not isinstance(name, str) or name.startswith("_") or not is_number(getattr(env.unwrapped, name, None)):
            known = parameters_of(env.unwrapped) or tuple(numbers_of(env.unwrapped))
            raise ValueError(f"{env.unwrapped} has no parameter {name!r}; it has {', '.join(known) or 'none'}")
        self._attribute = name
        super().__init__(env, (name,))
        self.strength = strength

    @property
    def name(self) -> str:
        """Name of the attribute."""
        return self.names[0]

    def _read(self, env: gym.Env, name: str) -> Any:
        return getattr(env, name)

    def _write(self, env: gym.Env, name: str, value: Any) -> None:
        setattr(env, name, value)

    def _derive(self, env: gym.Env) -> None:
        if isinstance(env, CartPoleEnv):
            env.total_mass = env.masspole + env.masscart
            env.polemass_length = env.masspole * env.length


def parameters_of(env: gym.Env) -> tuple[str, ...]:
    """
    :param env: Environment without wrappers.
    :return: Its physical parameters, as far as they are known.
    """
    return next((PARAMETERS[cls.__name__] for cls in type(env).__mro__ if cls.__name__ in PARAMETERS), ())


def is_number(value: Any) -> bool:
    """
    :param value: Any value.
    :return: Whether it is a number, and not a truth value.
    """
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def numbers_of(env: gym.Env) -> dict[str, float]:
    """
    :param env: Environment without wrappers.
    :return: Its public attributes, those of its class included, that are numbers.
    """
    attributes = {name: value for cls in reversed(type(env).__mro__) for name, value in vars(cls).items()} | vars(env)
    return {name: value for name, value in attributes.items() if is_number(value) and not name.startswith("_")}
