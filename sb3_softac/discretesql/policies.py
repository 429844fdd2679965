"""Policies of DiscreteSQL: stacked soft Q-functions, their target, and the softmax of the Q-values."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_softac.algorithm.arguments import POLICY_ARGUMENTS, net_arch
from sb3_softac.algorithm.policies import (
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
from sb3_softac.discrete.networks import StackedDiscreteCritic, smallest_by_state
from sb3_softac.equations.discrete_sac import soft_state_value


class DiscreteSQLPolicy(BasePolicy):
    """
    Soft Q-functions and their target. There is no actor: actions are drawn from the softmax of Q-values over temperature.

    :param observation_space: Observation space.
    :param action_space: Action space: Discrete, MultiDiscrete or MultiBinary.
    :param lr_schedule: Learning rate schedule.
    :param net_arch: Sizes of the hidden layers, ``[256, 256]`` by default (none for images, whose extractor has its own).
    :param activation_fn: Activation function.
    :param features_extractor_class: Features extractor; by default the one that fits the policy's name.
    :param features_extractor_kwargs: Its keyword arguments.
    :param normalize_images: Whether to divide images by 255.
    :param optimizer_class: Optimizer, ``th.optim.Adam`` by default.
    :param optimizer_kwargs: Its keyword arguments, without the learning rate.
    :param n_critics: Number of soft Q-functions, at least 1; the smallest Q-value counts. The paper has 1.
    """

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    trained_networks: ClassVar[tuple[str, ...]] = ("critic",)
    arguments: ClassVar[dict[str, Argument]] = {**POLICY_ARGUMENTS, "net_arch": net_arch()}
    """What the keyword arguments must be, by name. A subclass may add its own."""
    make_optimizer = make_joint_optimizer
    make_features_extractor = make_initialized_extractor
    obs_to_tensor = finite_obs_to_tensor
    forward, _predict, predict = masked_forward, masked_choice, masked_predict
    log_probs, get_distribution = masked_log_probs, masked_distribution
    alpha: th.Tensor
    """The temperature, a buffer that the algorithm keeps up to date; saved and exported with the networks."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
    ):
        extractor_class = features_extractor_class or self.default_features_extractor_class
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class=extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.branches = Branches(action_space)
        self.net_arch = default_net_arch(net_arch, extractor_class)
        self.activation_fn, self.n_critics = activation_fn, n_critics
        self.register_buffer("alpha", th.ones(()))
        self.critic, self.critic_target = self.make_critic(), self.make_critic()
        copy_as_target(self.critic, self.critic_target)
        self.optimizer = self.make_optimizer(lr_schedule)

    def make_critic(self) -> StackedDiscreteCritic:
        """Create the soft Q-functions, or their target."""
        sizes = {"net_arch": self.net_arch, "activation_fn": self.activation_fn, "n_critics": self.n_critics}
        spaces_and_images = super()._get_constructor_parameters()
        return StackedDiscreteCritic(**self._update_features_extractor({**spaces_and_images, **sizes})).to(self.device)

    def set_training_mode(self, mode: bool) -> None:
        """Set the Q-functions to training mode or to evaluation mode; the target stays in evaluation mode."""
        self.critic.set_training_mode(mode)
        self.training = mode

    def smallest_q(self, q: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """The smallest Q-values ``[batch, n]``; with several branches, those of the critic with the smallest soft value."""
        if len(self.branches.sizes) == 1:
            return q.amin(dim=0)
        return smallest_by_state(q, soft_state_value(q, self.log_softmax(q, masks), self.alpha))

    def log_softmax(self, q: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """Eq. 6, arXiv:1702.08165v2: softmax(Q / alpha) over the allowed actions, as log-probabilities ``[..., n]``."""
        logits = q / self.alpha
        if masks is not None:
            # Normalized first: with a small temperature the logit of an allowed action may be below that of a forbidden one
            logits = self.branches.log_softmax(logits.where(masks, logits.amin(dim=-1, keepdim=True)))
        return self.branches.log_softmax(logits, masks)

    def log_pi(self, obs: PyTorchObs, masks: th.Tensor | None = None) -> th.Tensor:
        """:return: Log-probabilities of the options of all branches ``[batch, n]``, in nats."""
        return self.log_softmax(self.smallest_q(self.critic(obs), masks), masks)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("net_arch", "activation_fn", "features_extractor_class", "features_extractor_kwargs", "n_critics")
        own = {name: getattr(self, name) for name in (*names, "optimizer_class", "optimizer_kwargs")}
        return {**super()._get_constructor_parameters(), "lr_schedule": self._dummy_schedule, **own}


MlpPolicy = DiscreteSQLPolicy


class CnnPolicy(DiscreteSQLPolicy):
    """Policy for images; SB3's ``NatureCNN`` in front of the critics."""

    default_features_extractor_class = NatureCNN


class MultiInputPolicy(DiscreteSQLPolicy):
    """Policy for dictionary observations; SB3's ``CombinedExtractor`` in front of the critics."""

    default_features_extractor_class = CombinedExtractor
