"""The sampler of SQL: a network that maps a state and noise to an action."""

from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_softac.nets.base import FeatureNetwork
from sb3_softac.nets.stacked import StackedLinear, StackedMLP


class ActionSampler(FeatureNetwork):
    """
    A network that turns a state and Gaussian noise into an action: any density, but none that could be evaluated.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.FeatureNetwork`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.action_dim = get_action_dim(self.action_space)  # type: ignore[arg-type]
        input_dim = self.features_dim + self.action_dim
        self.network = StackedMLP(1, input_dim, self.action_dim, self.net_arch, self.activation_fn)
        # The noise has a fan-in of its own: among the weights of many features it would hardly be heard at first, and all
        # particles of a state would start in one place.
        bound = self.action_dim**-0.5
        first = self.network.layers[0]
        assert isinstance(first, StackedLinear)
        with th.no_grad():
            first.weight[:, self.features_dim :].uniform_(-bound, bound)

    def particles(self, features: th.Tensor, n_particles: int) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param n_particles: Number of actions per state.
        :return: Actions before the squash by tanh, drawn independently ``[batch, n_particles, action_dim]``.
        """
        noise = th.randn(len(features), n_particles, self.action_dim, device=features.device)
        repeated = features.unsqueeze(1).expand(-1, n_particles, -1)
        return self.network(th.cat([repeated, noise], dim=-1).flatten(0, 1)).squeeze(0).unflatten(0, noise.shape[:2])

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations.
        :return: One sampled action per observation, scaled to [-1, 1] ``[batch, action_dim]``.
        """
        return th.tanh(self.particles(self.features(obs), 1).squeeze(1))
