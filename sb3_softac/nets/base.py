"""What all networks have in common: a features extractor of SB3's, and layers on top of it."""

from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.equations.mixture import mean_over_components


class Draw(NamedTuple):
    """Actions that a policy has drawn for the states of a batch: one for each state, or one of each component of a mixture."""

    actions: th.Tensor
    """Scaled to [-1, 1] ``[batch, action_dim]`` or ``[n_components, batch, action_dim]``."""
    log_pi: th.Tensor
    """Their log-densities in nats ``[batch]`` or ``[n_components, batch]``."""
    log_weights: th.Tensor | None = None
    """Logarithms of the weights of the components ``[n_components, batch]``; None if there is one action for each state."""

    separated_log_pi: th.Tensor | None = None
    """What the policy loss takes for the log-densities, if not these: see ``separation`` of a mixture."""

    def mean(self, values: th.Tensor) -> th.Tensor:
        """
        :param values: One value for each action ``[batch]`` or ``[n_components, batch]``.
        :return: Unbiased estimates of their means under the policy ``[batch]``.
        """
        return values if self.log_weights is None else mean_over_components(values, self.log_weights)


class WithoutOptimizer(nn.Module):
    """A network that rejects an optimizer of its own: SB3's SAC has one per network, but here it would never be stepped."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "optimizer":
            raise AttributeError(
                "One optimizer trains all networks: set policy.optimizer instead of the optimizer of a single network"
            )
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
