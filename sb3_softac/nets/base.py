"""The bases of actors and critics, and what an actor returns for a gradient step."""

from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.equations.softac_v1 import likelihood_ratio_loss, policy_loss


class PolicySample(NamedTuple):
    """One action for each state of a batch, through which the policy loss is differentiated."""

    actions: th.Tensor
    """Scaled to [-1, 1] ``[batch, action_dim]``."""
    log_pi: th.Tensor
    """Their log-densities in nats ``[batch]``."""

    def mean(self, values: th.Tensor) -> th.Tensor:
        """Means under the policy ``[batch]``, estimated without bias from one value for each action."""
        return values

    def policy_loss(self, q: th.Tensor, v: th.Tensor, alpha: th.Tensor) -> th.Tensor:
        """The loss of the policy, from the Q-values of the actions, and from state values if it has a baseline."""
        return policy_loss(self.log_pi, q, alpha)  # Eq. 12, arXiv:1801.01290v2


class LikelihoodRatioSample(PolicySample):
    """As :class:`PolicySample`, but gradients flow through the log-densities only, not through the actions."""

    def policy_loss(self, q: th.Tensor, v: th.Tensor, alpha: th.Tensor) -> th.Tensor:
        return likelihood_ratio_loss(self.log_pi, q, v, alpha)  # Algorithm 1, arXiv:1801.01290v1


def _refuse_optimizer(network: nn.Module, optimizer: Any) -> None:
    raise AttributeError(
        "One optimizer trains all networks: set policy.optimizer instead of the optimizer of a single network"
    )


no_optimizer = property(fset=_refuse_optimizer)
"""For the attribute ``optimizer`` of a network: SB3's SAC has one for each network, but here it would never be stepped."""


def switch_mode(network: nn.Module, mode: bool) -> None:
    """SB3's ``set_training_mode``, which it calls at every step although all parts are nearly always in that mode already."""
    if not _is_in_mode(network, mode):
        network.train(mode)


def _is_in_mode(network: nn.Module, mode: bool) -> bool:
    """:return: Whether ``train(mode)`` would change nothing; False if a part overrides ``train``."""
    parts: list[nn.Module | None] = [network]
    for part in parts:  # which grows
        if part is not None:
            if part.training is not mode or getattr(part.train, "__func__", None) is not nn.Module.train:
                return False
            parts += part._modules.values()
    return True


class BaseCritic(BaseModel):
    """
    Base of the critics: SB3's ``BaseModel`` with one features extractor.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    :param share_features_extractor: Whether the extractor belongs to another network, whose loss trains it alone.
    :param n_critics: Number of critics.
    """

    optimizer = no_optimizer  # type: ignore[assignment]
    set_training_mode = switch_mode
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
        n_critics: int = 1,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.net_arch, self.features_dim, self.activation_fn = net_arch, features_dim, activation_fn
        self.share_features_extractor, self.n_critics = share_features_extractor, n_critics

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """Features ``[batch, features_dim]``, without gradient if the extractor belongs to another network."""
        features = self.extract_features(obs, self.features_extractor)
        return features.detach() if self.share_features_extractor else features

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("net_arch", "features_extractor", "features_dim", "activation_fn", "share_features_extractor", "n_critics")
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in names}}


class BaseActor(BasePolicy):
    """
    Base of the actors that are not SB3's; like SB3's, they can ``predict`` on their own. Box actions are squashed by tanh.

    The parameters are those of :class:`BaseCritic`, without the last two.
    """

    optimizer = no_optimizer  # type: ignore[assignment]
    set_training_mode = switch_mode
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
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
            squash_output=isinstance(action_space, spaces.Box),
        )
        self.net_arch, self.features_dim, self.activation_fn = net_arch, features_dim, activation_fn
        self.action_dim = get_action_dim(action_space)  # type: ignore[arg-type]

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """Features ``[batch, features_dim]``."""
        return self.extract_features(obs, self.features_extractor)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("net_arch", "features_extractor", "features_dim", "activation_fn")
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in names}}


def hidden_layers(actor: BaseActor) -> tuple[nn.Sequential, int]:
    """:return: The hidden layers of an actor, named ``latent_pi`` in SB3's, and the size of their output."""
    layers = nn.Sequential(*create_mlp(actor.features_dim, -1, actor.net_arch, actor.activation_fn))
    return layers, actor.net_arch[-1] if actor.net_arch else actor.features_dim
