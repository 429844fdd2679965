"""Networks for discrete actions: the categorical actor and the critics."""

from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.discrete.branches import Branches
from sb3_softac.nets.base import BaseActor, BaseCritic
from sb3_softac.nets.stacked import StackedMLP


class CategoricalActor(BaseActor):
    """
    Policy over discrete actions: one softmax per branch.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseActor`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.branches = Branches(self.action_space)
        self.logits = nn.Sequential(*create_mlp(self.features_dim, self.branches.n, self.net_arch, self.activation_fn))

    def log_probs(self, features: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """Log-probabilities of the options of all branches ``[batch, n]`` in nats, from features."""
        return self.branches.log_softmax(self.logits(features), masks)

    def forward(self, obs: PyTorchObs, deterministic: bool = False, action_masks: th.Tensor | None = None) -> th.Tensor:
        """Actions of the action space ``[batch, *action_space.shape]``."""
        return self.branches.choose(self.log_probs(self.features(obs), action_masks), deterministic)


class StackedDiscreteCritic(BaseCritic):
    """
    ``n_critics`` soft Q-functions of discrete actions: one output per action, or per option of each branch.

    The Q-value of an action with several branches is the mean of the outputs of its options (the value decomposition of DecQN,
    arXiv:2210.12566). The outputs are divided by the number of branches here, so that all other code can sum them.

    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseCritic`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"n_critics": 2, **kwargs})
        branches = Branches(self.action_space)
        self.n_branches = len(branches.sizes)
        self.q_networks = StackedMLP(self.n_critics, self.features_dim, branches.n, self.net_arch, self.activation_fn)

    def q_values(self, features: th.Tensor) -> th.Tensor:
        """Utilities of all options ``[n_critics, batch, n]``, from features; Q-values where there is one branch."""
        return self.q_networks(features) / self.n_branches

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """Utilities of all options in units of reward ``[n_critics, batch, n]``."""
        return self.q_values(self.features(obs))


def smallest_by_state(q: th.Tensor, values: th.Tensor) -> th.Tensor:
    """
    Utilities ``[batch, n]`` of the critic ``[n_critics, batch, n]`` with the smallest state value ``[n_critics, batch]``.

    Critics that agree on the Q-values may differ in their utilities, by constants that cancel between the branches, so the
    utilities of one critic belong together.
    """
    return q[values.argmin(dim=0), th.arange(q.shape[1], device=q.device)]
