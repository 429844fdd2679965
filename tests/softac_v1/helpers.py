"""Small environments with known answers, and a model small enough for tests."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_softac import SoftAC_v1
from sb3_softac.replay.batch import Batch, make_batch
from sb3_softac.tabular import BoltzmannOracle

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


# Of the chain
ALPHA, GAMMA = 0.2, 0.8


class Chain(gym.Env):
    """
    Two states and a continuous action. Pushing to the right leads to state 1 more likely than not, from both states.

    State 0 likes actions around -0.5, state 1 around 0.4 and pays 1 more: a greedy player stays left in state 0.
    """

    peaks, curvatures, bonus = (-0.5, 0.4), (4.0, 8.0), (0.0, 1.0)

    def __init__(self):
        self.observation_space, self.action_space = spaces.Discrete(2), spaces.Box(-1, 1, (1,), np.float32)

    @classmethod
    def reward(cls, state, a):
        return cls.bonus[state] - 0.5 * cls.curvatures[state] * (a - cls.peaks[state]) ** 2

    @staticmethod
    def probability_of_1(a):
        return 1.0 / (1.0 + np.exp(-3.0 * a))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(2))
        return self.state, {}

    def step(self, action):
        a = float(action[0])
        reward = float(self.reward(self.state, a))
        self.state = int(self.np_random.random() < self.probability_of_1(a))
        return self.state, reward, False, False, {}

    @classmethod
    def solve(cls):
        """Soft value iteration with exact integrals over the action."""
        v = np.zeros(2)
        for _ in range(200):
            oracles = [BoltzmannOracle(cls.q(state, v), ALPHA) for state in (0, 1)]
            v = np.array([oracle.soft_value for oracle in oracles])
        return v, oracles

    @classmethod
    def q(cls, state, v):
        def q(actions):
            p = cls.probability_of_1(actions[:, 0])
            return cls.reward(state, actions[:, 0]) + GAMMA * ((1 - p) * v[0] + p * v[1])

        return q
