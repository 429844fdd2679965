"""Perturbations of MultiGoal: moved goals, and an obstacle on the way to one."""

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_softac.envs import MultiGoal
from sb3_softac.robustness.base import Perturbation, wrappers_of
from sb3_softac.robustness.parameters import is_number


def plane_of(env: gym.Env, who: str) -> MultiGoal:
    """
    :param env: Environment.
    :param who: Who asks, for the error.
    :return: The MultiGoal in it.
    :raises ValueError: if it is another environment.
    """
    if not isinstance(env.unwrapped, MultiGoal):
        raise ValueError(f"{who} needs MultiGoal-v0, got {env.unwrapped}")
    return env.unwrapped


class MovedGoals(Perturbation):
    """
    Moves each goal in a random direction, drawn anew for each episode. The agent does not observe it.

    :param env: MultiGoal.
    :param strength: Distance, in units of the plane (which reaches from -7 to 7; goals have a radius of 1).
    :raises ValueError: if the environment is not MultiGoal, or the distance is negative.
    """

    unit = "distance in the plane"
    strengths = (0.5, 1.0, 1.5, 2.0)

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        plane = plane_of(env, "MovedGoals")
        self._unmoved = vars(plane).setdefault("_unmoved_goals", plane.goals)
        self._around_another = any(isinstance(inner, MovedGoals) for inner in wrappers_of(env))
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: Seed of the environment and of the directions.
        :param options: Options of the environment.
        :return: Observation and info.
        """
        result = super().reset(seed=seed, options=options)
        plane = plane_of(self.env, "MovedGoals")
        goals = plane.goals if self._around_another else self._unmoved
        angle = self.generator.uniform(0.0, 2 * np.pi, len(goals))
        if self.strength > 0:
            plane.close()  # a picture shows the goals as they were
        plane.goals = goals + self.strength * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return result


class Obstacle(Perturbation):
    """
    Adds a disk that blocks the point: a move that would touch it does not happen, but still costs its action.

    :param env: MultiGoal.
    :param strength: Radius, in units of the plane.
    :param x: Its centre. The default lies on the way to the goal at (5, 0).
    :param y: Its centre.
    :raises ValueError: if the environment is not MultiGoal, or the disk covers the start (within 0.5 of the origin) or lies
        outside of the plane.
    """

    unit = "radius in the plane"
    strengths = (0.25, 0.5, 1.0, 1.5)

    def __init__(self, env: gym.Env, strength: float, x: float = 2.5, y: float = 0.0):
        super().__init__(env)
        plane = plane_of(env, "Obstacle")
        for name, number in (("x", x), ("y", y)):
            if not is_number(number) or not np.isfinite(number):
                raise ValueError(f"Obstacle: {name} must be a number, got {number!r}")
        self.x, self.y = float(x), float(y)
        self._place = len(plane.obstacles)
        plane.obstacles = (*plane.obstacles, (self.x, self.y, 0.0))
        self.strength = strength

    def _why_not(self, strength: float) -> str | None:
        distance = np.hypot(self.x, self.y)
        if distance - strength < 0.5:
            return (
                f"an obstacle of this radius at ({self.x:g}, {self.y:g}) covers the start: the radius must be at most "
                f"{distance - 0.5:.3g}"
            )
        if np.hypot(*np.maximum(np.abs([self.x, self.y]) - MultiGoal.size, 0.0)) >= strength:
            return f"an obstacle of this radius at ({self.x:g}, {self.y:g}) lies outside of the plane"
        return None

    def _apply(self, env: gym.Env, strength: float) -> None:
        plane = plane_of(env, "Obstacle")
        others = plane.obstacles
        plane.obstacles = (*others[: self._place], (self.x, self.y, strength), *others[self._place + 1 :])
