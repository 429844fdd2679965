"""Perturbations of environments that keep their physics in attributes, as Gymnasium's classic control does."""

import inspect

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from sb3_softac.checks import is_number
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
        because the attribute is computed from others, set again in each episode, or read only when the environment is created.
    """

    lowest = 1e-3  # parameters stand in denominators

    def __init__(self, env: gym.Env, strength: float, name: str):
        super().__init__(env)
        plain = self.unwrapped
        if not isinstance(name, str) or name.startswith("_") or not is_number(getattr(plain, name, None)):
            static = {key: inspect.getattr_static(plain, key) for key in dir(plain) if not key.startswith("_")}
            numbers = [key for key, value in static.items() if is_number(value)]
            raise ValueError(
                f"{plain} has no parameter {name!r}; it has {', '.join(parameters_of(plain) or numbers) or 'none'}"
            )
        self.name = name
        self._scale(strength, name)

    def _derive(self, env: gym.Env) -> None:
        if isinstance(env, CartPoleEnv):
            env.total_mass = env.masspole + env.masscart
            env.polemass_length = env.masspole * env.length


def parameters_of(env: gym.Env) -> tuple[str, ...]:
    """:return: The physical parameters of an environment without wrappers, as far as they are known."""
    return next((PARAMETERS[cls.__name__] for cls in type(env).__mro__ if cls.__name__ in PARAMETERS), ())
