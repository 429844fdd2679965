"""The games of MinAtar, and the network and optimizer of its paper, for ``minatar.yml``."""

import gymnasium as gym
import minatar.gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

minatar.gym.register_envs()


class MinAtarNetwork(BaseFeaturesExtractor):
    """A convolution with 16 filters and a layer of 128 units, over planes ``[10, 10, channels]``."""

    def __init__(self, observation_space: gym.spaces.Box):
        super().__init__(observation_space, features_dim=128)
        height, width, channels = observation_space.shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (height - 2) * (width - 2), 128),
            nn.ReLU(),
        )

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        return self.layers(planes.movedim(-1, 1))


# For RL Zoo: what the study's file cannot say, because it names classes
hyperparams = {
    "default": {
        "policy": "MlpPolicy",
        "policy_kwargs": {
            "features_extractor_class": MinAtarNetwork,
            "net_arch": [],
            "optimizer_class": torch.optim.RMSprop,
            "optimizer_kwargs": {"alpha": 0.95, "centered": True, "eps": 0.01, "momentum": 0.95},
        },
    },
}
