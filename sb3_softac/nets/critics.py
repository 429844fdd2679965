"""Soft Q-functions and the soft state-value function on top of SB3's features extractors."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.discretesac.branches import Branches
from sb3_softac.nets.features import Network
from sb3_softac.nets.mlp import quicken
from sb3_softac.nets.stacked import StackedMLP


class StackedContinuousCritic(Network):
    """
    ``n_critics`` soft Q-functions of continuous actions; SB3's ``ContinuousCritic`` in one stacked module.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    :param n_critics: Number of soft Q-functions.
    :param share_features_extractor: Whether the extractor belongs to the actor, which then trains it alone.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
        share_features_extractor: bool = False,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.share_features_extractor = share_features_extractor
        self.n_critics = n_critics
        self.q_networks = StackedMLP(n_critics, features_dim + get_action_dim(action_space), 1, net_arch, activation_fn)

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations, a tensor or a dictionary of tensors with a batch dimension.
        :return: Features ``[batch, features_dim]``, without gradient if the extractor is the actor's.
        """
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            return self.extract_features(obs, self.features_extractor)

    def q_values(self, features: th.Tensor, actions: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param actions: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        :param frozen: Let gradients pass to the inputs but not to the parameters, as the policy loss needs it.
        :return: Soft Q-values in units of reward ``[n_critics, batch, 1]``.
        """
        return self.q_networks(th.cat([features, actions], dim=1), frozen)

    def q_values_of_both(
        self, features: th.Tensor, actions: th.Tensor, frozen_actions: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        The Q-values of the critics' loss and, with frozen parameters, those of the policy's, at once.

        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param actions: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        :param frozen_actions: Actions whose Q-values let gradients pass to them, but not to parameters and features.
        :return: Soft Q-values of both in units of reward, each ``[n_critics, batch, 1]``.
        """
        frozen = th.cat([features.detach(), frozen_actions], dim=1)
        return self.q_networks.forward_both(th.cat([features, actions], dim=1), frozen)

    def q_particles(self, features: th.Tensor, actions: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param actions: K actions per row, scaled to [-1, 1] ``[batch, K, action_dim]``.
        :param frozen: Let gradients pass to the inputs but not to the parameters.
        :return: Soft Q-values in units of reward ``[n_critics, batch, K]``.
        """
        return self.q_networks.particles(features, actions, frozen).squeeze(-1)

    def forward(self, obs: PyTorchObs, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        :param obs: Observations.
        :param actions: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        :return: One tensor ``[batch, 1]`` per critic, as SB3's ``ContinuousCritic`` returns them.
        """
        return self.q_values(self.features(obs), actions).unbind(0)


class ValueNet(Network):
    """
    Soft state-value function V(s).

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    :param share_features_extractor: Whether the extractor belongs to the actor, which then trains it alone.
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
        self.share_features_extractor = share_features_extractor
        self.v_network = quicken(nn.Sequential(*create_mlp(features_dim, 1, net_arch, activation_fn)))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations.
        :return: Soft state values in units of reward ``[batch, 1]``.
        """
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            features = self.extract_features(obs, self.features_extractor)
        return self.v_network(features)


class StackedDiscreteCritic(Network):
    """
    ``n_critics`` soft Q-functions of discrete actions: one output per action, or per option of each branch.

    The Q-value of an action with several branches is the mean of the outputs of its options (the value decomposition of DecQN,
    arXiv:2210.12566). The outputs are divided by the number of branches here, so that everybody else adds them up.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param branches: Branches of the action space.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    :param n_critics: Number of soft Q-functions.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        branches: Branches,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.n_branches = len(branches.sizes)
        self.q_networks = StackedMLP(n_critics, features_dim, branches.n, net_arch, activation_fn)

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations, a tensor or a dictionary of tensors with a batch dimension.
        :return: Features ``[batch, features_dim]``.
        """
        return self.extract_features(obs, self.features_extractor)

    def q_values(self, features: th.Tensor) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :return: Utilities of all options in units of reward ``[n_critics, batch, n]``; Q-values where there is one branch.
        """
        q = self.q_networks(features)
        return q if self.n_branches == 1 else q / self.n_branches

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations.
        :return: Utilities of all options in units of reward ``[n_critics, batch, n]``.
        """
        return self.q_values(self.features(obs))
