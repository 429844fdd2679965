"""What all perturbations have in common: a strength with a unit, and a random number generator of their own."""

import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from stable_baselines3.common.vec_env import VecEnv

from sb3_softac.checks import is_number


class Perturbation(gym.Wrapper):
    """
    Wrapper that makes an environment differ from the one in which an agent was trained.

    At the neutral strength it is bit-identical to the environment. It has its own random number generator, seeded by
    ``reset(seed=...)``, so the random numbers of the environment do not change. All state is in plain attributes, so that
    :mod:`sb3_softac.resume` can restore it.

    :param env: Environment.
    """

    unit: ClassVar[str]
    """Unit of the strength."""
    neutral: ClassVar[float] = 0.0
    """The strength at which nothing changes."""
    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = math.inf
    whole: ClassVar[bool] = False
    """Whether the strength is a whole number."""
    strengths: ClassVar[tuple[float, ...]]
    """Strengths to evaluate if none are given."""

    def __init__(self, env: gym.Env):
        if not isinstance(env, gym.Env):
            hint = f": create it with gymnasium.make({env!r})" if isinstance(env, str) else ""
            if isinstance(env, VecEnv | gym.vector.VectorEnv):
                hint = f": wrap each environment in it, for example make_vec_env(..., wrapper_class={type(self).__name__})"
            raise ValueError(f"{type(self).__name__} needs an environment, got {env!r}{hint}")
        super().__init__(env)
        self._strength = self.neutral
        # Perturbations of one environment draw different numbers
        self._depth = 1
        while isinstance(env, gym.Wrapper):
            self._depth, env = self._depth + isinstance(env, Perturbation), env.env
        self.generator = seeding.np_random()[0]
        """Source of the random numbers of this perturbation."""

    @property
    def strength(self) -> float:
        """Strength in :attr:`unit`. It can be set; :attr:`neutral` restores the environment."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        name = type(self).__name__
        is_finite = is_number(value) and math.isfinite(value)
        if not is_finite or not self.lowest <= value <= self.highest or (self.whole and value % 1):
            what = "a whole number" if self.whole else "a number"
            limits = f"of at least {self.lowest:g}" + (f" and at most {self.highest:g}" if self.highest < math.inf else "")
            raise ValueError(f"The strength of {name} must be {what} {limits} ({self.unit}), got {value!r}")
        value = int(value) if self.whole else float(value)
        if value != self.neutral and (reason := self._unsupported_reason(value)):
            raise ValueError(f"{name} cannot have the strength {value:g} in {self.unwrapped}: {reason}")
        self._apply(self.unwrapped, value)
        self._strength = value

    def _unsupported_reason(self, strength: float) -> str | None:
        """:return: Why this strength cannot be set, or would have no effect."""
        return None

    def _apply(self, env: gym.Env, strength: float) -> None:
        """Change an environment without wrappers, where that is done once and not in every step."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; the perturbation's generator gets a seed derived from that of the environment."""
        if seed is not None:
            self.generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(self._depth,)))
        return self.env.reset(seed=seed, options=options)
