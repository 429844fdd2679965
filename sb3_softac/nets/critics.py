"""Soft Q-functions of continuous actions and the soft state-value function."""

from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.nets.base import BaseCritic
from sb3_softac.nets.stacked import StackedMLP

# At most this many actions go through the Q-functions at once. With more, the activations of two layers of 256 units leave the
# CPU's cache before they are read again, and from about 16000 on they are memory that the system has to clear at each step.
ROWS_IN_CACHE = 2048


class StackedContinuousCritic(BaseCritic):
    """
    ``n_critics`` soft Q-functions of continuous actions; SB3's ``ContinuousCritic`` in one stacked module.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseCritic`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"n_critics": 2, **kwargs})
        input_dim = self.features_dim + get_action_dim(self.action_space)  # type: ignore[arg-type]
        self.q_networks = StackedMLP(self.n_critics, input_dim, 1, self.net_arch, self.activation_fn)

    def q_values(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        Soft Q-values ``[n_critics, batch]`` of scaled actions ``[batch, action_dim]``, from features; of several per row,
        ``[K, batch, action_dim]``, they are ``[n_critics, K, batch]``.
        """
        if actions.dim() == 3:
            repeated = features.expand(actions.shape[0], -1, -1)
            return self.q_values(repeated.flatten(0, 1), actions.flatten(0, 1)).unflatten(1, actions.shape[:2])
        return self.q_networks(th.cat([features, actions], dim=1)).squeeze(-1)

    def q_particles(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """:return: Soft Q-values of K actions for each row ``[batch, K, action_dim]``, ``[n_critics, batch, K]``."""
        traced = th.jit.is_tracing() or th.compiler.is_compiling()  # for batches of any size, which Python must not divide
        if not th.is_grad_enabled() and actions.device.type == "cpu" and not traced:
            rows = max(ROWS_IN_CACHE // actions.shape[1], 1)
            blocks = zip(features.split(rows), actions.split(rows), strict=True)
            return th.cat([self._q_of_particles(*block) for block in blocks], dim=1)
        return self._q_of_particles(features, actions)

    def _q_of_particles(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        repeated = features.unsqueeze(1).expand(-1, actions.shape[1], -1)
        return self.q_values(repeated.flatten(0, 1), actions.flatten(0, 1)).unflatten(1, (-1, actions.shape[1]))

    def forward(self, obs: PyTorchObs, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """:return: One tensor ``[batch, 1]`` per critic, as SB3's ``ContinuousCritic`` returns them."""
        return self.q_values(self.features(obs), actions).unsqueeze(-1).unbind(0)

    def q1_forward(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """:return: Soft Q-values of the first critic ``[batch, 1]``."""
        return self(obs, actions)[0]


class ValueNet(BaseCritic):
    """
    Soft state-value function V(s).

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseCritic`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.v_network = nn.Sequential(*create_mlp(self.features_dim, 1, self.net_arch, self.activation_fn))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """:return: Soft state values in units of reward ``[batch, 1]``."""
        return self.v_network(self.features(obs))
