"""The point mass with four goals of arXiv:1702.08165 (section 5.1), on which soft Q-learning keeps visiting all goals."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class MultiGoal(gym.Env[np.ndarray, np.ndarray]):
    """
    A point in the plane that moves by its action; the episode ends near any of four goals.

    Observation: position ``[2]`` in [-7, 7]. Action: displacement ``[2]`` in [-1, 1]. Reward: -30 times the squared length
    of the action, minus the squared distance to the nearest goal, plus 10 when a goal is reached (closer than 1). The start is
    normal around the origin with standard deviation 0.1. Gymnasium's time limit is 30 steps.

    The best return from the origin is about -110; standing still costs -750. ``info["goal"]`` is the index of the goal that
    was reached, -1 otherwise. (The authors' code looks for it in the last state before the end, which is never near a goal.)

    :param render_mode: ``"human"`` for a window, ``"rgb_array"`` for an image ``[360, 360, 3]``, or None.
    :raises ValueError: if the render mode is unknown.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # type: ignore[misc]
    goals = np.array([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    goal_radius, goal_reward, action_cost, start_std, size = 1.0, 10.0, 30.0, 0.1, 7.0
    obstacles: tuple[tuple[float, float, float], ...] = ()
    """Centres and radii of disks that nothing passes: a move that would touch one does not happen."""

    def __init__(self, render_mode: str | None = None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be one of {self.metadata['render_modes']} or None, got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-self.size, self.size, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._figure: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: Seed of the start.
        :param options: ``{"position": [x, y]}`` to start there.
        :return: Position and an empty dictionary.
        :raises ValueError: if the position is not two finite numbers.
        """
        super().reset(seed=seed)
        start = self.start_std * self.np_random.standard_normal(2)
        position = np.asarray((options or {}).get("position", start), dtype=np.float64)
        if position.shape != (2,) or not np.isfinite(position).all():
            raise ValueError(f"options['position'] must be two finite numbers [x, y], got {position.tolist()}")
        self.position = position.clip(-self.size, self.size)
        self.path = [self.position]
        if self.render_mode == "human":
            self.render()
        return self.position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: Displacement ``[2]``, clipped to [-1, 1].
        :return: Position, reward, whether a goal was reached, False, and the index of the goal.
        """
        action = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        moved = (self.position + action).clip(-self.size, self.size)
        if not self._touches_an_obstacle(self.position, moved):
            self.position = moved
        self.path.append(self.position)
        square_distances = ((self.goals - self.position) ** 2).sum(axis=1)
        nearest = int(square_distances.argmin())
        reached = bool(square_distances[nearest] < self.goal_radius**2)
        reward = -self.action_cost * (action**2).sum() - square_distances[nearest] + self.goal_reward * reached
        if self.render_mode == "human":
            self.render()
        return self.position.astype(np.float32), float(reward), reached, False, {"goal": nearest if reached else -1}

    def _touches_an_obstacle(self, start: np.ndarray, end: np.ndarray) -> bool:
        """:return: Whether the line between two positions touches an obstacle."""
        move = end - start
        for x, y, radius in self.obstacles:
            to_centre = np.array([x, y]) - start
            along = np.clip(to_centre @ move / max(move @ move, 1e-12), 0.0, 1.0)  # where the line comes nearest to the centre
            if radius > 0 and ((to_centre - along * move) ** 2).sum() <= radius**2:
                return True
        return False

    def render(self) -> np.ndarray | None:
        """
        Draw the cost of the distance, the goals and the path of the episode.

        :return: An image ``[360, 360, 3]`` in the mode ``"rgb_array"``, else None.
        """
        if self.render_mode is None:
            gym.logger.warn(
                'MultiGoal was created without a render mode: use gym.make("MultiGoal-v0", render_mode="rgb_array")'
            )
            return None
        if self._figure is None:
            self._figure = self._make_figure()
        path = np.array(self.path)
        self._line.set_data(path[:, 0], path[:, 1])
        self._point.set_data(path[-1:, 0], path[-1:, 1])
        if self.render_mode == "human":
            from matplotlib import pyplot as plt

            plt.pause(1.0 / self.metadata["render_fps"])
            return None
        self._figure.canvas.draw()
        return np.asarray(self._figure.canvas.buffer_rgba())[..., :3].copy()

    def _make_figure(self) -> Any:
        from matplotlib.patches import Circle

        if self.render_mode == "human":
            from matplotlib import pyplot as plt

            plt.ion()
            figure = plt.figure(figsize=(3.6, 3.6), dpi=100)
        else:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            figure = Figure(figsize=(3.6, 3.6), dpi=100)
            FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        line = np.linspace(-self.size, self.size, 101)
        grid = np.stack(np.meshgrid(line, line), axis=-1)
        cost = ((grid[:, :, None] - self.goals) ** 2).sum(axis=-1).min(axis=-1)
        axes.contour(line, line, cost, 20, linewidths=0.7, cmap="viridis")
        axes.plot(*self.goals.T, "ro")
        for x, y, radius in self.obstacles:
            axes.add_patch(Circle((x, y), radius, color="0.4"))
        (self._line,) = axes.plot([], [], "b-")
        (self._point,) = axes.plot([], [], "bo")
        axes.set(xlim=(-self.size, self.size), ylim=(-self.size, self.size), xticks=[], yticks=[])
        return figure

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._figure is not None and self.render_mode == "human":
            from matplotlib import pyplot as plt

            plt.close(self._figure)
        self._figure = None
