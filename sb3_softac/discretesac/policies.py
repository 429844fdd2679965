"""Policies of DiscreteSAC: a categorical actor, stacked critics and their target."""

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
    default_net_arch,
    finite_obs_to_tensor,
    make_initialized_extractor,
    make_joint_optimizer,
)
from sb3_softac.checks import Argument
from sb3_softac.discrete.branches import Branches
from sb3_softac.discrete.masked_policy import (
    masked_choice,
    masked_distribution,
    masked_forward,
    masked_log_probs,
    masked_predict,
)
from sb3_softac.discrete.networks import CategoricalActor, StackedDiscreteCritic


class DiscreteSACPolicy(SACPolicy):
    """
    Categorical actor, soft Q-functions and their target.

    One optimizer, ``policy.optimizer``, holds the parameters of all trained networks, that is, of all but the target.

    :param observation_space: Observation space.
    :param action_space: Action space: Discrete, MultiDiscrete or MultiBinary.
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
    :param share_features_extractor: Whether the actor uses the critics' features extractor, which only the critic loss trains;
        False gives the actor its own. (In SB3's SAC the actor loss trains the shared extractor.)
    """

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    trained_networks: ClassVar[tuple[str, ...]] = ("critic", "actor")
    arguments: ClassVar[dict[str, Argument]] = POLICY_ARGUMENTS
    """What the keyword arguments must be, by name. A subclass may add its own."""
    make_optimizer = make_joint_optimizer
    make_features_extractor = make_initialized_extractor
    obs_to_tensor = finite_obs_to_tensor
    forward, _predict, predict = masked_forward, masked_choice, masked_predict
    log_probs, get_distribution = masked_log_probs, masked_distribution
    actor: CategoricalActor  # type: ignore[assignment]
    critic: StackedDiscreteCritic  # type: ignore[assignment]
    critic_target: StackedDiscreteCritic  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        share_features_extractor: bool = True,
    ):
        extractor_class = features_extractor_class or self.default_features_extractor_class
        self.branches = Branches(action_space)
        super().__init__(
            observation_space,
            action_space,  # type: ignore[arg-type]
            lr_schedule,
            net_arch=default_net_arch(net_arch, extractor_class),
            activation_fn=activation_fn,
            features_extractor_class=extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            n_critics=n_critics,
            share_features_extractor=share_features_extractor,
        )
        self._squash_output = False

    def _build(self, lr_schedule: Schedule) -> None:
        self.critic = self.make_critic()
        shared = self.critic.features_extractor if self.share_features_extractor else None
        self.actor = self.make_actor(shared)
        self.critic_target = self.make_critic()
        copy_as_target(self.critic, self.critic_target)
        self.optimizer = self.make_optimizer(lr_schedule)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> CategoricalActor:  # type: ignore[override]
        kwargs = self._update_features_extractor(self.net_args, features_extractor)
        return CategoricalActor(**kwargs).to(self.device)

    def make_critic(  # type: ignore[override]
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> StackedDiscreteCritic:
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        # Unlike in SB3's SAC, the critics own a shared extractor: the policy loss does not train it, see DiscreteSAC._update
        return StackedDiscreteCritic(**{**kwargs, "share_features_extractor": False}).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return constructor_parameters(self)

    def log_pi(self, obs: PyTorchObs, masks: th.Tensor | None = None) -> th.Tensor:
        """:return: Log-probabilities of the options of all branches ``[batch, n]``, in nats."""
        return self.actor.log_probs(self.actor.features(obs), masks)


MlpPolicy = DiscreteSACPolicy


class CnnPolicy(DiscreteSACPolicy):
    """Policy for images; SB3's ``NatureCNN`` in front, one for actor and critics, trained by the critic loss."""

    default_features_extractor_class = NatureCNN


class MultiInputPolicy(DiscreteSACPolicy):
    """Policy for dictionary observations; SB3's ``CombinedExtractor`` in front, one for actor and critics."""

    default_features_extractor_class = CombinedExtractor
