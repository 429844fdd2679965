"""
An environment with action masks as a user's module would register it: it refuses forbidden actions.

Run as a script, it is RL Zoo's ``record_video``, which has no option for modules to import.
"""

import runpy

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class MaskedGame(gym.Env):
    """Count down from eight to nothing: one of three steps is forbidden in each state; asking after the end is an error."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}
    observation_space = spaces.Box(0, 1, (9,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode=None):
        self.render_mode, self.left = render_mode, 8

    def observe(self):
        return np.eye(9, dtype=np.float32)[self.left]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 8
        return self.observe(), {}

    def action_masks(self):
        if self.left == 0:
            raise RuntimeError("the game is over")
        return np.arange(3) != self.left % 3

    def step(self, action):
        if not self.action_masks()[action]:
            raise RuntimeError(f"action {action} is forbidden with {self.left} left")
        self.left = max(self.left - int(action), 0)
        return self.observe(), float(action == 1), self.left == 0, False, {}

    def render(self):
        return np.full((64, 64, 3), 30 * self.left, np.uint8)


gym.register("MaskedGame-v0", entry_point=MaskedGame, max_episode_steps=7)

if __name__ == "__main__":
    runpy.run_module("rl_zoo3.record_video", run_name="__main__", alter_sys=True)
