"""Perturbations of MultiGoal: moved goals, and an obstacle on the way to one."""

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_softac.checks import number, read
from sb3_softac.envs import MultiGoal
from sb3_softac.robustness.perturbation import Perturbation


def _plane_of(perturbation: Perturbation) -> MultiGoal:
    if not isinstance(perturbation.unwrapped, MultiGoal):
        raise ValueError(f"{type(perturbation).__name__} needs MultiGoal-v0, got {perturbation.unwrapped}")
    return perturbation.unwrapped


class MovedGoals(Perturbation):
    """
    Moves each goal in a random direction, drawn for each episode. The agent does not observe it.

    :param env: MultiGoal.
    :param strength: Distance, in units of the plane (which reaches from -7 to 7; goals have a radius of 1).
    :raises ValueError: if the environment is not MultiGoal, or the distance is negative.
    """

    unit = "distance in the plane"
    strengths = (0.5, 1.0, 1.5, 2.0)

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        plane = _plane_of(self)
        self._unmoved = vars(plane).setdefault("_unmoved_goals", plane.goals)
        self._is_outer = self.has_wrapper_attr("_is_outer")  # another one moves them first
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        result = super().reset(seed=seed, options=options)
        plane = _plane_of(self)
        goals = plane.goals if self._is_outer else self._unmoved
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
    :param x: Coordinate of its centre. The default lies on the way to the goal at (5, 0).
    :param y: The other coordinate of its centre.
    :raises ValueError: if the environment is not MultiGoal, or the disk covers the start (within 0.5 of the origin) or lies
        outside of the plane.
    """

    unit = "radius in the plane"
    strengths = (0.25, 0.5, 1.0, 1.5)

    def __init__(self, env: gym.Env, strength: float, x: float = 2.5, y: float = 0.0):
        super().__init__(env)
        plane = _plane_of(self)
        coordinate = number("a number")
        self.x, self.y = float(read("Obstacle: x", x, coordinate)), float(read("Obstacle: y", y, coordinate))
        self._index = len(plane.obstacles)
        plane.obstacles = (*plane.obstacles, (self.x, self.y, 0.0))
        self.strength = strength

    def _unsupported_reason(self, strength: float) -> str | None:
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
        plane = _plane_of(self)
        others = plane.obstacles
        plane.obstacles = (*others[: self._index], (self.x, self.y, strength), *others[self._index + 1 :])
