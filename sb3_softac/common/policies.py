"""What the policies of DiscreteSAC and SQL share: an actor, stacked critics, their target and one optimizer."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_softac.common.optimizers import make_optimizer


class SoftPolicy(BasePolicy):
    """
    Base of policies with an actor, critics and a target of the critics. A subclass makes the three and then the optimizer.

    One optimizer, ``policy.optimizer``, holds the parameters of all trained networks, that is, all but the target.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers, ``[256, 256]`` by default (none for images, whose extractor has its own), or a
        dictionary with the keys ``pi`` and ``qf``.
    :param activation_fn: Activation function.
    :param features_extractor_class: Features extractor; by default the one that fits the policy's name.
    :param features_extractor_kwargs: Its keyword arguments.
    :param normalize_images: Whether to divide images by 255.
    :param optimizer_class: Optimizer, ``th.optim.Adam`` by default.
    :param optimizer_kwargs: Its keyword arguments, without the learning rate.
    :param n_critics: Number of soft Q-functions, at least 1.
    :param squash_output: Whether actions come scaled to [-1, 1].
    """

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    actor: BaseModel
    critic: BaseModel
    critic_target: BaseModel

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        net_arch: list[int] | dict[str, list[int]] | None,
        activation_fn: type[nn.Module],
        features_extractor_class: type[BaseFeaturesExtractor] | None,
        features_extractor_kwargs: dict[str, Any] | None,
        normalize_images: bool,
        optimizer_class: type[th.optim.Optimizer],
        optimizer_kwargs: dict[str, Any] | None,
        n_critics: int,
        squash_output: bool,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class or self.default_features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=squash_output,
        )
        if net_arch is None:
            net_arch = [] if self.features_extractor_class is NatureCNN else [256, 256]
        self.net_arch, self.activation_fn, self.n_critics = net_arch, activation_fn, n_critics

    def _start_target(self) -> None:
        """Make the target a copy of the critics that is never trained."""
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.requires_grad_(False)
        self.critic_target.set_training_mode(False)

    def _make_optimizer(self, lr_schedule: Schedule) -> th.optim.Optimizer:
        """:return: The optimizer of everything that is trained."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return make_optimizer(self.optimizer_class, trained, lr_schedule(1), self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            n_critics=self.n_critics,
            lr_schedule=self._dummy_schedule,  # not needed to act
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
            features_extractor_class=self.features_extractor_class,
            features_extractor_kwargs=self.features_extractor_kwargs,
        )
        return data

    def set_training_mode(self, mode: bool) -> None:
        """
        Switch dropout and batch normalisation of the trained networks; the target stays in evaluation mode.

        :param mode: True to train, False to evaluate.
        """
        self.actor.set_training_mode(mode)
        self.critic.set_training_mode(mode)
        self.training = mode
