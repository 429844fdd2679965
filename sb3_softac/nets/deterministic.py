"""The actor of the deterministic variant."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.checks import Argument
from sb3_softac.nets.base import BaseActor, PolicySample, hidden_layers


class SquashedDeterministicActor(BaseActor):
    """
    One action per state, the squashed mean of the Gaussian; it explores by the noise that is added to its actions.

    Its log-densities are 0, so there is no entropy term; a temperature other than 0 has no meaning with it.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseActor`.
    """

    arguments: ClassVar[dict[str, Argument]] = {}

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.latent_pi, latent_dim = hidden_layers(self)
        self.mu = nn.Linear(latent_dim, self.action_dim)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """:return: Actions scaled to [-1, 1] ``[batch, action_dim]``."""
        return th.tanh(self.mu(self.latent_pi(self.features(obs))))

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        actions = self(obs)
        return actions, th.zeros_like(actions[:, 0])

    def sample(self, obs: PyTorchObs, reparameterize: bool = True) -> PolicySample:
        return PolicySample(*self.action_log_prob(obs))
