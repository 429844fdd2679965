"""The choice of one among several candidates, for policies that have no mean to act by."""

import copy
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.nets.critics import StackedContinuousCritic


def fixed_noise(*shape: int) -> th.Tensor:
    """:return: Standard Gaussian noise, the same at every call; the program's random number generators are left alone."""
    return th.randn(*shape, generator=th.Generator().manual_seed(0))


def take(candidates: th.Tensor, index: th.Tensor) -> th.Tensor:
    """:return: Of K vectors per state ``[batch, K, dim]`` the one with this index ``[batch]``, ``[batch, dim]``."""
    return candidates.gather(1, index[:, None, None].expand(-1, 1, candidates.shape[2])).squeeze(1)


def without_gradient(network: StackedContinuousCritic) -> StackedContinuousCritic:
    """
    :return: A network of the same tensors, none of which needs a gradient. A trace that starts at another network keeps these
        tensors as constants, and rejects those that need gradients.
    """
    same: dict[int, Any] = {id(x): nn.Parameter(x.data, requires_grad=False) for x in network.parameters()}
    return copy.deepcopy(network, same | {id(x): x for x in network.buffers()})


def smallest_q(critic: StackedContinuousCritic, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """:return: Of K actions per observation ``[batch, K, action_dim]`` the smallest of their Q-values ``[batch, K]``."""
    if th.jit.is_tracing():
        critic = without_gradient(critic)
    return critic.q_particles(critic.features(obs), actions).amin(dim=0)


def best_by_q(critic: StackedContinuousCritic, obs: PyTorchObs, candidates: th.Tensor) -> th.Tensor:
    """:return: The best of K candidates ``[batch, K, action_dim]`` for each observation ``[batch, action_dim]``."""
    return take(candidates, smallest_q(critic, obs, candidates).argmax(dim=1))


class QRanking:
    """
    Ranks the candidates of an actor by their soft Q-values, the smallest over the critics.

    The critics are neither among the actor's parameters nor in its ``state_dict``, but a file of the actor contains them, so
    that an actor that is loaded without a policy gives the same actions.

    :param critic: A function that finds the critics of the actor's policy, which may be replaced there; or the critics of an
        actor without a policy; None for no ranking.
    """

    def __init__(self, critic: StackedContinuousCritic | Callable[[], StackedContinuousCritic] | None):
        self._critic = critic.eval() if isinstance(critic, nn.Module) else critic

    def find_critic(self) -> StackedContinuousCritic | None:
        """:return: The critics that are in use; None if there are none."""
        known: Any = self._critic
        return known() if callable(known) and not isinstance(known, nn.Module) else known

    def best(self, obs: PyTorchObs, candidates: th.Tensor) -> th.Tensor:
        """As :func:`best_by_q`."""
        critic = self.find_critic()
        if critic is None:
            raise ValueError(
                "This actor has no Q-functions to choose an action by: create its policy with "
                "distribution_kwargs=dict(deterministic_by='q'), or the actor with critic=..."
            )
        if critic is self._critic:  # no submodule, so that they follow the actor's device only here
            critic.to(candidates)
        return best_by_q(critic, obs, candidates)
