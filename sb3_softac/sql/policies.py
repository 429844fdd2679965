"""Policies of SQL: stacked soft Q-functions, their target, and the sampler."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    NatureCNN,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_softac.algorithm.arguments import POLICY_ARGUMENTS
from sb3_softac.algorithm.policies import SoftPolicy
from sb3_softac.checks import Argument, integer
from sb3_softac.nets.critics import StackedContinuousCritic
from sb3_softac.nets.judged import smallest_q
from sb3_softac.sql.sampler import ActionSampler


class SQLPolicy(SoftPolicy):
    """
    Soft Q-functions, their target and the sampler.

    One optimizer, ``policy.optimizer``, holds the parameters of Q-functions and sampler; their losses share no parameter.

    :param observation_space: Observation space.
    :param action_space: Action space, a bounded Box.
    :param lr_schedule: Learning rate schedule.
    :param net_arch: Sizes of the hidden layers, ``[256, 256]`` by default (none for images, whose extractor has its own), or a
        dictionary with the keys ``pi`` and ``qf``.
    :param activation_fn: Activation function.
    :param features_extractor_class: Features extractor; by default the one that fits the policy's name.
    :param features_extractor_kwargs: Its keyword arguments.
    :param normalize_images: Whether to divide images by 255.
    :param optimizer_class: Optimizer, ``th.optim.Adam`` by default.
    :param optimizer_kwargs: Its keyword arguments, without the learning rate.
    :param n_critics: Number of soft Q-functions, at least 1.
    :param n_candidates: Number of actions among which the deterministic policy takes the one with the largest Q-value.
    :param share_features_extractor: Whether the critics use the sampler's features extractor, trained only by its loss (SB3's
        rule). By default each network has its own.
    """

    arguments: ClassVar[dict[str, Argument]] = {**POLICY_ARGUMENTS, "n_candidates": integer(1, " action")}
    actor: ActionSampler
    critic: StackedContinuousCritic
    critic_target: StackedContinuousCritic

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        n_candidates: int = 32,
        share_features_extractor: bool = False,
    ):
        super().__init__(
            observation_space,
            action_space,
            net_arch,
            activation_fn,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images,
            optimizer_class,
            optimizer_kwargs,
            n_critics,
            squash_output=True,
        )
        actor_arch, critic_arch = get_actor_critic_arch(self.net_arch)
        self.actor = self._make_network(ActionSampler, actor_arch, n_candidates=n_candidates)
        self.actor.critic_of_policy = self._critic_of_actor
        shared = self.actor.features_extractor if share_features_extractor else None
        self.share_features_extractor = share_features_extractor
        self.critic = self._make_network(StackedContinuousCritic, critic_arch, shared, n_critics=n_critics)
        self.critic_target = self._make_network(StackedContinuousCritic, critic_arch, n_critics=n_critics)
        self._start_target()
        self.optimizer = self.make_optimizer(lr_schedule)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"n_candidates": self.n_candidates, "share_features_extractor": self.share_features_extractor}
        return {**super()._get_constructor_parameters(), **own}

    @property
    def n_candidates(self) -> int:
        """Number of actions among which the deterministic policy takes the best; can be set."""
        return self.actor.n_candidates

    @n_candidates.setter
    def n_candidates(self, number: int) -> None:
        self._set_candidates(number)

    def _set_candidates(self, number: int) -> None:
        self.actor.n_candidates = number

    def _critic_of_actor(self) -> StackedContinuousCritic:
        """
        :return: The soft Q-functions with which the actor, without the policy, rates its candidates; those of the policy may
            be replaced.
        """
        return self.critic

    def smallest_q(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: Observations.
        :param actions: K actions per observation, scaled to [-1, 1] ``[batch, K, action_dim]``.
        :return: The smallest of their Q-values in units of reward ``[batch, K]``.
        """
        return smallest_q(self.critic, obs, actions)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Whether to take the best of ``n_candidates`` actions of fixed noise, by the smallest of the
            Q-values, instead of one sample: the same action for the same observation. (The sampler has no mean; more
            candidates get closer to the mode.)
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        """
        return self.actor.best(obs, self.smallest_q) if deterministic else self.actor(obs)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)


class MlpPolicy(SQLPolicy):
    """Policy for vector observations."""


class CnnPolicy(SQLPolicy):
    """Policy for images; each network has SB3's ``NatureCNN`` in front."""

    default_features_extractor_class = NatureCNN


class MultiInputPolicy(SQLPolicy):
    """Policy for dictionary observations; each network has SB3's ``CombinedExtractor`` in front."""

    default_features_extractor_class = CombinedExtractor
