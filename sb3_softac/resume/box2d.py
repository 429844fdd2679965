"""Box2D cannot read or set the state of its world, so an episode is replayed from its start."""

from typing import Any

import gymnasium as gym
import numpy as np

from sb3_softac.resume.serialization import ResumeError


def is_box2d(env: gym.Env) -> bool:
    """Whether an environment is one of Gymnasium's Box2D environments, or of a subclass of one."""
    return any(cls.__module__.startswith("gymnasium.envs.box2d.") for cls in type(env.unwrapped).__mro__)


def record_episodes(env: gym.Env) -> gym.Env:
    """Make an :class:`EpisodeRecorder` the innermost wrapper of an environment."""
    if not isinstance(env, gym.Wrapper):
        return EpisodeRecorder(env)
    env.env = record_episodes(env.env)
    return env


class EpisodeRecorder(gym.Wrapper):
    """
    Records the start of an episode and its actions.

    Each episode gets a new world: Box2D's results depend on what the world contained before.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self._start: dict[str, Any] = {}
        self._actions: list[Any] = []
        self._last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        env: Any = self.env
        self._start = {"generator": env.np_random.bit_generator.state, "seed": seed, "options": options}
        self._actions = []
        env._destroy()
        env.world = type(env.world)(gravity=env.world.gravity)
        self._last, info = env.reset(seed=seed, options=options)
        return self._last, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._actions.append(np.array(action))
        result = self.env.step(action)
        self._last = result[0]
        return result

    def get_state(self) -> dict[str, Any]:
        """The start of the episode, its actions and its last observation."""
        return {"start": self._start, "actions": self._actions, "last": self._last}

    def set_state(self, state: dict[str, Any]) -> None:
        """Replay the episode."""
        start = state["start"]
        self._start, self._actions, self._last = start, [], None
        if not start:  # not reset yet, such as the environment of evaluations before the first one
            return
        self.env.np_random.bit_generator.state = start["generator"]
        self.reset(seed=start["seed"], options=start["options"])
        for action in state["actions"]:
            self.step(action if action.ndim else action.item())
        if not np.array_equal(self._last, state["last"]):
            raise ResumeError(
                f"{self.env.unwrapped}: the replayed episode differs from the recorded one. Was the checkpoint saved on a "
                "different processor?"
            )
