"""An environment of random observations of all kinds."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
from gymnasium import spaces

OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,), np.float64),
    "matrix": spaces.Box(-1, 1, (3, 2), np.float32),
    "discrete": spaces.Discrete(5),
    "dict": spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.MultiBinary(2)}),
    "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
}
POLICIES = {"dict": "MultiInputPolicy", "image": "CnnPolicy"}


class RandomObservations(gym.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = deepcopy(observation_space), deepcopy(action_space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(1 << 31)))
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), self.np_random.random(), False, self.np_random.random() < 0.2, {}
