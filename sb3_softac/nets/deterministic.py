"""The actor of the deterministic variant."""

from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.nets.base import Draw
from sb3_softac.nets.squashed import SquashedActor


class SquashedDeterministicActor(SquashedActor):
    """
    One action per state, the squashed mean of the Gaussian; it explores by the noise that is added to its actions.

    Its log-densities are 0, which stands for no entropy term; a temperature other than 0 has no meaning with it.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.FeatureNetwork`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.mu = nn.Linear(self.latent_dim, self.action_dim)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return th.tanh(self.mu(self.latent(obs)))

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        actions = self(obs)
        return actions, th.zeros_like(actions[:, 0])

    def draw(self, obs: PyTorchObs, reparameterize: bool = True) -> Draw:
        return Draw(*self.action_log_prob(obs))
