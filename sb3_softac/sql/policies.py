"""Policies of SQL: stacked soft Q-functions, their target, and the sampler."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_softac.algorithm.arguments import POLICY_ARGUMENTS
from sb3_softac.algorithm.policies import (
    constructor_parameters,
    copy_as_target,
    finite_obs_to_tensor,
    make_initialized_extractor,
    make_joint_optimizer,
    scale_within_bounds,
    unscale_within_bounds,
)
from sb3_softac.checks import Argument, integer
from sb3_softac.nets.candidates import best_by_q
from sb3_softac.nets.critics import StackedContinuousCritic
from sb3_softac.sql.sampler import ActionSampler


class SQLPolicy(SACPolicy):
    """
    Soft Q-functions, their target and the sampler.

    One optimizer, ``policy.optimizer``, holds the parameters of Q-functions and sampler; their losses share no parameter. The
    deterministic action is the best of ``n_candidates`` actions of fixed noise, by the smallest of the Q-values: the same
    action for the same observation. (The sampler has no mean; more candidates get closer to the mode.)

    :param observation_space: Observation space.
    :param action_space: Action space, a bounded Box.
    :param lr_schedule: Learning rate schedule.
    :param net_arch: Sizes of the hidden layers, ``[256, 256]`` by default, or a dictionary with the keys ``pi`` and ``qf``.
        Without any, the Q-functions would prefer the same actions in all states.
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

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    trained_networks: ClassVar[tuple[str, ...]] = ("actor", "critic")
    arguments: ClassVar[dict[str, Argument]] = {**POLICY_ARGUMENTS, "n_candidates": integer(1, " action")}
    """What the keyword arguments must be, by name. A subclass may add its own."""
    make_optimizer = make_joint_optimizer
    make_features_extractor = make_initialized_extractor
    obs_to_tensor = finite_obs_to_tensor
    scale_action, unscale_action = scale_within_bounds, unscale_within_bounds
    actor: ActionSampler  # type: ignore[assignment]
    critic: StackedContinuousCritic  # type: ignore[assignment]
    critic_target: StackedContinuousCritic  # type: ignore[assignment]

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
        extractor_class = features_extractor_class or self.default_features_extractor_class
        self._first_n_candidates = n_candidates
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            activation_fn=activation_fn,
            features_extractor_class=extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            n_critics=n_critics,
            share_features_extractor=share_features_extractor,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self.actor = self.make_actor()
        self.critic = self.make_critic(self.actor.features_extractor if self.share_features_extractor else None)
        self.critic_target = self.make_critic()
        copy_as_target(self.critic, self.critic_target)
        self.optimizer = self.make_optimizer(lr_schedule)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> ActionSampler:  # type: ignore[override]
        kwargs = self._update_features_extractor(self.net_args, features_extractor)
        return ActionSampler(**kwargs, n_candidates=self._first_n_candidates, critic=self._find_critic).to(self.device)

    def make_critic(  # type: ignore[override]
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> StackedContinuousCritic:
        return StackedContinuousCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(
            self.device
        )

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        if deterministic:  # by these critics, even if the actor was loaded with its own
            return best_by_q(self._find_critic(), observation, self.actor.candidates(observation))
        return self.actor(observation)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return constructor_parameters(self, n_candidates=self.n_candidates)

    def _find_critic(self) -> StackedContinuousCritic:
        """:return: The soft Q-functions by which the actor ranks its candidates; they may be replaced."""
        return self.critic

    @property
    def n_candidates(self) -> int:
        """Number of actions among which the deterministic policy takes the best; can be set."""
        return self.actor.n_candidates

    @n_candidates.setter
    def n_candidates(self, number: int) -> None:
        self.actor.n_candidates = number


MlpPolicy = SQLPolicy


class CnnPolicy(SQLPolicy):
    """Policy for images; each network has SB3's ``NatureCNN`` in front."""

    default_features_extractor_class = NatureCNN


class MultiInputPolicy(SQLPolicy):
    """Policy for dictionary observations; each network has SB3's ``CombinedExtractor`` in front."""

    default_features_extractor_class = CombinedExtractor
