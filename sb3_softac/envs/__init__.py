"""Environments of the papers, registered with Gymnasium when the package is imported."""

import gymnasium as gym

from sb3_softac.envs.multigoal import MultiGoal

if "MultiGoal-v0" not in gym.registry:
    gym.register("MultiGoal-v0", entry_point="sb3_softac.envs:MultiGoal", max_episode_steps=30)

__all__ = ["MultiGoal"]
