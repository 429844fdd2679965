"""Noise, losses and delays between agent and environment. They need no simulator."""

import copy
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_softac.robustness.perturbation import Perturbation


def _refuse_one_value(space: spaces.Space, who: str, what: str) -> None:
    """Refuse a space with a single value, which neither noise nor delay can change."""
    one = (
        (isinstance(space, spaces.Discrete) and space.n == 1)
        or (isinstance(space, spaces.MultiDiscrete) and (space.nvec == 1).all())
        or (isinstance(space, spaces.Box) and (space.low == space.high).all())
    )
    if one:
        raise ValueError(f"{who} has no effect where there is only one {what}: {space}")


class ActionNoise(Perturbation):
    """
    Normal noise on each component of each action, independent from step to step; the result is clipped to the action space.

    :param env: Environment with a bounded ``Box`` of actions.
    :param strength: Standard deviation, as a fraction of half the range of the component: 0.1 is 0.2 for actions in [-2, 2].
    :raises ValueError: if the action space is no such Box, or the strength is negative.
    """

    unit = "standard deviation / half the range of the action"
    strengths = (0.1, 0.25, 0.5, 1.0)

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box) or not space.is_bounded():
            raise ValueError(f"ActionNoise needs a bounded Box action space, got {space}")
        _refuse_one_value(space, "ActionNoise", "action")
        self._low, self._high = space.low, space.high
        self.strength = strength

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.strength > 0:
            deviation = self.strength * (self._high.astype(np.float64) - self._low) / 2
            noisy = action + deviation * self.generator.standard_normal(self._low.shape)
            if self._low.dtype.kind != "f":
                noisy = noisy.round()
            action = noisy.clip(self._low, self._high).astype(self._low.dtype)
        return self.env.step(action)


class ObservationNoise(Perturbation):
    """
    Normal noise on each component of each observation, independent from step to step. As a sensor that saturates, the result
    is clipped to the observation space. Rewards come from the true state.

    :param env: Environment with a ``Box`` of floating-point observations, not pixels.
    :param strength: Standard deviation, in the units of the observation.
    :raises ValueError: if the observation space is no such Box, or the strength is negative.
    """

    unit = "standard deviation, in units of the observation"
    strengths = (0.05, 0.1, 0.2, 0.4)

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            raise ValueError(f"ObservationNoise needs a Box observation space of floating-point numbers, got {space}")
        _refuse_one_value(space, "ObservationNoise", "observation")
        self._low, self._high = space.low, space.high
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = super().reset(seed=seed, options=options)
        return self._noisy(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._noisy(obs), reward, terminated, truncated, info

    def _noisy(self, obs: Any) -> Any:
        if self.strength == 0:
            return obs
        obs = np.asarray(obs)
        dtype = obs.dtype if obs.dtype.kind == "f" else self._low.dtype  # whole numbers would cut the noise off
        return (obs + self.strength * self.generator.standard_normal(obs.shape)).clip(self._low, self._high).astype(dtype)


class DroppedActions(Perturbation):
    """
    Drops actions: the last one that arrived is repeated. The first action of an episode always arrives.

    :param env: Environment without action masks: the repeated action may be invalid by then.
    :param strength: Probability that an action is lost, in [0, 1], independent from step to step.
    :raises ValueError: if the environment has action masks, or the strength is not a probability.
    """

    unit = "probability that an action is lost"
    highest = 1.0
    strengths = (0.1, 0.25, 0.5, 0.75)

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        if env.has_wrapper_attr("action_masks"):
            raise ValueError(f"DroppedActions repeats actions, which the masks of {env.unwrapped} may not allow by then")
        _refuse_one_value(env.action_space, "DroppedActions", "action")
        self._held: Any = None
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._held = None
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        lost = self.generator.random() < self.strength
        if self._held is None or not lost:
            self._held = copy.copy(action)
        return self.env.step(copy.copy(self._held))


class DelayedActions(Perturbation):
    """
    Delays actions. Until the first one arrives, the action is zero, or what is nearest to zero in the action space.

    :param env: Environment with a ``Box`` of actions.
    :param strength: Delay in environment steps. Set later, it counts from the next episode on.
    :raises ValueError: if the action space is not a Box, or the strength is not a whole number of at least 0.
    """

    unit = "delay in environment steps"
    whole = True
    strengths = (1, 2, 3, 4)

    def __init__(self, env: gym.Env, strength: int):
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box):
            raise ValueError(f"DelayedActions needs a Box action space, in which zero stands for no action, got {space}")
        _refuse_one_value(space, "DelayedActions", "action")
        self._zero = np.zeros(space.shape, space.dtype).clip(space.low, space.high)
        self._pending: deque[np.ndarray] = deque()
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._pending = deque(self._zero.copy() for _ in range(int(self.strength)))
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._pending.append(copy.copy(action))
        return self.env.step(self._pending.popleft())
