"""Actors without SB3's distribution: the layers and the interface that they have in common."""

from abc import abstractmethod
from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.nets.base import Draw, FeatureActor


class SquashedActor(FeatureActor):
    """
    Base of the actors whose actions are squashed by tanh: hidden layers, named as in SB3's actor, and what can be asked for.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.FeatureNetwork`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._squash_output = True
        self.action_dim = get_action_dim(self.action_space)  # type: ignore[arg-type]
        self.latent_pi = nn.Sequential(*create_mlp(self.features_dim, -1, self.net_arch, self.activation_fn))
        self.latent_dim = self.net_arch[-1] if self.net_arch else self.features_dim

    def latent(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations.
        :return: Output of the hidden layers ``[batch, latent_dim]``.
        """
        return self.latent_pi(self.features(obs))

    @abstractmethod
    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Whether to return the one action that the class names instead of a sample.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        """

    @abstractmethod
    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        Sample an action for each observation; SB3's ``action_log_prob``.

        :param obs: Observations.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]`` and their log-densities in nats ``[batch]``.
        """

    @abstractmethod
    def draw(self, obs: PyTorchObs, reparameterize: bool = True) -> Draw:
        """
        Sample actions for a gradient step.

        :param obs: Observations.
        :param reparameterize: Whether gradients flow through the actions; if not, through the log-densities at them only.
        :return: Actions, their log-densities, and the weights of those that come from different components.
        """
