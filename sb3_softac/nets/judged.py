"""Actors whose deterministic action is the best of several candidates by a soft Q-function."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.nets.base import FeatureActor
from sb3_softac.nets.critics import StackedContinuousCritic

Judge = Callable[[PyTorchObs, th.Tensor], th.Tensor]
"""Maps observations and K actions of each ``[batch, K, action_dim]`` to Q-values ``[batch, K]``."""
Network = TypeVar("Network", bound=nn.Module)


def without_gradient(network: Network) -> Network:
    """
    Copy a network for a trace that starts at a different one: a trace keeps outside tensors as constants, and rejects those
    that need gradients.

    :param network: The network.
    :return: A network of the same tensors, not copied, none of which needs a gradient.
    """
    same: dict[int, Any] = {id(x): nn.Parameter(x.data, requires_grad=False) for x in network.parameters()}
    return copy.deepcopy(network, same | {id(x): x for x in network.buffers()})


def smallest_q(critic: StackedContinuousCritic, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """
    :param critic: Soft Q-functions.
    :param obs: Observations.
    :param actions: K actions per observation, scaled to [-1, 1] ``[batch, K, action_dim]``.
    :return: The smallest of their Q-values in units of reward ``[batch, K]``.
    """
    if th.jit.is_tracing():
        critic = without_gradient(critic)
    return critic.q_particles(critic.features(obs), actions).amin(dim=0)


class JudgedActor(FeatureActor):
    """
    An actor that knows soft Q-functions: those of the policy that it is a part of, or its own.

    They are neither among its parameters nor in its ``state_dict``, but a file of the actor contains them too, so that a
    loaded actor gives the same actions.

    :param critic: Soft Q-functions of an actor without a policy; they are no longer trained.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.FeatureNetwork`.
    """

    critic_of_policy: Callable[[], StackedContinuousCritic] | None = None
    """Finds the soft Q-functions of the policy that the actor is a part of; None for an actor without one."""

    def __init__(self, *, critic: StackedContinuousCritic | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._own_critic = [] if critic is None else [critic.eval()]  # a list, or it would be a module of the actor

    def find_critic(self) -> StackedContinuousCritic | None:
        """:return: The soft Q-functions that judge the candidates: those of the policy, or its own; None if there are none."""
        if self.critic_of_policy is not None:
            return self.critic_of_policy()
        return self._own_critic[0] if self._own_critic else None

    def _apply(self, fn: Callable[[th.Tensor], th.Tensor], recurse: bool = True) -> "JudgedActor":
        for critic in self._own_critic:  # follows to another device or type
            critic._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "critic": self.find_critic()}
