"""Models small enough for tests, and bandits that are solved without acting in them."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from sb3_softac.sql import SQL

SMALL = dict(
    policy_kwargs=dict(net_arch=[16]),
    batch_size=16,
    learning_starts=10,
    buffer_size=500,
    kernel_particles=8,
    value_particles=8,
)


def make_model(env="Pendulum-v1", policy="MlpPolicy", **kwargs) -> SQL:
    return SQL(policy, env, **{**SMALL, "seed": 0, "device": "cpu", **kwargs})


class Bandit(gym.Env):
    """One state; only its spaces are used."""

    def __init__(self, dim):
        self.observation_space, self.action_space = spaces.Discrete(1), spaces.Box(-1, 1, (dim,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 0.0, True, False, {}


def train(model, steps):
    model.set_logger(Logger(None, []))
    for learning_rate, part in ((3e-3, 0.6), (5e-4, 0.4)):
        model.lr_schedule = lambda _, value=learning_rate: value
        model.train(int(part * steps), batch_size=128)
    return model


def solve_bandit(reward, dim, steps=1_000, **kwargs):
    env = Bandit(dim)
    arch = dict(net_arch=[64, 64], n_critics=1)
    few = dict(value_particles=2)  # all next states are terminal: their values do not count
    model = SQL(
        "MlpPolicy", env, policy_kwargs=arch, buffer_size=2_000, tau=0.05, ent_coef=1.0, seed=0, device="cpu", **few, **kwargs
    )
    actions = np.random.default_rng(0).uniform(-1, 1, (2_000, 1, dim))
    for action in actions:
        model.replay_buffer.add(np.zeros(1), np.zeros(1), action, reward(action), np.ones(1), [{}])
    return train(model, steps)


def sample(model, n):
    return model.predict(np.zeros(n, dtype=np.int64))[0]
