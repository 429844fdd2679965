"""What all networks have in common: a features extractor of SB3's, and layers on top of it."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn


class WithoutOptimizer(nn.Module):
    """A network that refuses an optimizer of its own, which SB3's SAC has and nobody would step here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "optimizer":
            raise AttributeError("One optimizer steps all networks: set policy.optimizer in place of one of a single network")
        super().__setattr__(name, value)


class FeatureNetwork(WithoutOptimizer, BaseModel):
    """
    Base of the networks: SB3's ``BaseModel`` with one features extractor.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    :param share_features_extractor: Whether the extractor belongs to another network, whose loss trains it alone.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        share_features_extractor: bool = False,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.net_arch, self.features_dim, self.activation_fn = net_arch, features_dim, activation_fn
        self.share_features_extractor = share_features_extractor

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations, a tensor or a dictionary of tensors with a batch dimension.
        :return: Features ``[batch, features_dim]``, without gradient if the extractor belongs to another network.
        """
        features = self.extract_features(obs, self.features_extractor)
        return features.detach() if self.share_features_extractor else features

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("net_arch", "features_extractor", "features_dim", "activation_fn", "share_features_extractor")
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in names}}


class FeatureActor(FeatureNetwork, BasePolicy):
    """
    Base of the actors, which can ``predict`` by themselves as SB3's can.

    :param kwargs: Keyword arguments of :class:`FeatureNetwork`.
    """

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)
