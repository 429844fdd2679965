"""Small environments with known answers, and a model small enough for tests."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_softac import SoftAC_v1
from sb3_softac.replay.batch import Batch, make_batch

SMALL = dict(policy_kwargs=dict(net_arch=[16]), batch_size=16, learning_starts=10, buffer_size=500, seed=0, device="cpu")


def make_model(env="Pendulum-v1", policy="MlpPolicy", **kwargs) -> SoftAC_v1:
    return SoftAC_v1(policy, env, **{**SMALL, **kwargs})


def draw_batch(model, size=16) -> Batch:
    """What the gradient steps are given."""
    return make_batch(model.replay_buffer.sample(size), model.gamma)


class QuadraticBandit(gym.Env):
    """One step, reward -curvature / 2 * (a - peak)^2 summed over the action dimensions, then a terminal state."""

    def __init__(self, curvature: float = 10.0, peak: float = 0.3, action_dim: int = 1):
        self.curvature, self.peak = curvature, peak
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (action_dim,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward = -0.5 * self.curvature * float(((action - self.peak) ** 2).sum())
        return np.zeros(1, np.float32), reward, True, False, {}


class ConstantReward(gym.Env):
    """Reward 1 for ever; the time limit, if any, is put around it."""

    def __init__(self):
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(2, 0.5, np.float32), {}

    def step(self, action):
        return np.full(2, 0.5, np.float32), 1.0, False, False, {}
