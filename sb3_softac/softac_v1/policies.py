"""Policies of SoftAC_v1: SB3's SAC policy with stacked critics and a state-value network."""

from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_softac.algorithm.arguments import POLICY_ARGUMENTS, net_arch
from sb3_softac.algorithm.policies import (
    copy_as_target,
    finite_obs_to_tensor,
    make_initialized_extractor,
    make_joint_optimizer,
    scale_within_bounds,
    unscale_within_bounds,
)
from sb3_softac.checks import BOOLEAN, KEYWORD_ARGUMENTS, Argument, Refused, did_you_mean, number, one_of, optional, read
from sb3_softac.nets.base import BaseActor
from sb3_softac.nets.critics import StackedContinuousCritic, ValueNet
from sb3_softac.nets.deterministic import SquashedDeterministicActor
from sb3_softac.nets.flow import SquashedFlowActor
from sb3_softac.nets.gaussian import SquashedGaussianActor
from sb3_softac.nets.mixture import SquashedMixtureActor

# The Gaussian is SB3's actor, with other arguments than these
ACTORS: dict[str, type[Any]] = {
    "mixture": SquashedMixtureActor,
    "flow": SquashedFlowActor,
    "deterministic": SquashedDeterministicActor,
}
DISTRIBUTION = one_of("gaussian", *ACTORS)


def check_distribution_kwargs(kwargs: dict[str, Any], use_sde: bool) -> dict[str, Any]:
    """:return: The keyword arguments of the distribution that those of a policy contain, read and checked."""
    distribution = read("policy_kwargs: distribution", kwargs.get("distribution", "gaussian"), DISTRIBUTION)
    given = kwargs.get("distribution_kwargs") or {}
    known: dict[str, Argument] = {} if distribution == "gaussian" else ACTORS[distribution].arguments
    if distribution != "gaussian" and use_sde:
        raise Refused(f"use_sde=True needs a Gaussian policy, got distribution={distribution!r}: leave out one of them")
    if unknown := sorted(given.keys() - known.keys()):
        raise Refused(
            f"distribution={distribution!r} has no distribution_kwargs {unknown}{did_you_mean(unknown[0], known)}: it accepts "
            f"{sorted(known) or 'none'}"
        )
    return {name: read(f"distribution_kwargs: {name}", value, known[name]) for name, value in given.items()}


class SoftACPolicy(SACPolicy):
    """
    Actor, soft Q-functions, soft state-value function and its target.

    One optimizer, ``policy.optimizer``, holds the parameters of all trained networks: the paper updates them simultaneously,
    and their losses share no parameter. Only the target network is left out.

    :param observation_space: Observation space.
    :param action_space: Action space, a bounded Box.
    :param lr_schedule: Learning rate schedule.
    :param net_arch: Sizes of the hidden layers, ``[256, 256]`` by default, or a dictionary with the keys ``pi``, ``qf`` and,
        if the value network should differ from the critics, ``vf``.
    :param activation_fn: Activation function.
    :param use_sde: Whether to use state-dependent exploration (gSDE).
    :param log_std_init: Initial log standard deviation of gSDE.
    :param use_expln: Whether gSDE uses ``expln`` instead of ``exp`` for its standard deviation.
    :param clip_mean: Bound of the mean action under gSDE.
    :param features_extractor_class: Features extractor; by default the one that fits the policy's name.
    :param features_extractor_kwargs: Its keyword arguments.
    :param normalize_images: Whether to divide images by 255.
    :param optimizer_class: Optimizer, ``th.optim.Adam`` by default.
    :param optimizer_kwargs: Its keyword arguments, without the learning rate.
    :param n_critics: Number of soft Q-functions, at least 1.
    :param distribution: Distribution of the actions in a state, before they are squashed by tanh: ``"gaussian"``,
        ``"mixture"`` (of several Gaussians), ``"flow"`` (real NVP over the Gaussian) or ``"deterministic"`` (a single action).
    :param distribution_kwargs: Its keyword arguments: ``n_components``, ``separation`` and ``deterministic_by`` of a mixture;
        ``n_couplings`` and ``coupling_width`` of a flow.
    :param share_features_extractor: Whether all networks use the actor's features extractor, trained by the policy loss alone
        (SB3's rule). By default each has its own.
    :raises ValueError: if the distribution is unknown, has no such keyword arguments, or does not support gSDE.
    """

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    trained_networks: ClassVar[tuple[str, ...]] = ("actor", "critic", "value_net")
    arguments: ClassVar[dict[str, Argument]] = {
        **POLICY_ARGUMENTS,
        "net_arch": net_arch("pi", "qf", "vf"),
        "use_sde": BOOLEAN,
        "log_std_init": number("a finite number"),
        "use_expln": BOOLEAN,
        "clip_mean": number("a number, at least 0 (0 for no bound)", lambda value: value >= 0.0),
        "distribution": DISTRIBUTION,
        "distribution_kwargs": optional(KEYWORD_ARGUMENTS),
    }
    """What the keyword arguments must be, by name. A subclass may add its own."""
    make_optimizer = make_joint_optimizer
    make_features_extractor = make_initialized_extractor
    obs_to_tensor = finite_obs_to_tensor
    scale_action, unscale_action = scale_within_bounds, unscale_within_bounds
    actor: SquashedGaussianActor | BaseActor  # type: ignore[assignment]
    critic: StackedContinuousCritic  # type: ignore[assignment]
    value_net: ValueNet
    value_net_target: ValueNet

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        use_sde: bool = False,
        log_std_init: float = -3,
        use_expln: bool = False,
        clip_mean: float = 2.0,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        distribution: str = "gaussian",
        distribution_kwargs: dict[str, Any] | None = None,
    ):
        given = {"distribution": distribution, "distribution_kwargs": distribution_kwargs}
        self.distribution, self.distribution_kwargs = distribution, check_distribution_kwargs(given, use_sde)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            activation_fn=activation_fn,
            use_sde=use_sde,
            log_std_init=log_std_init,
            use_expln=use_expln,
            clip_mean=clip_mean,
            features_extractor_class=features_extractor_class or self.default_features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            n_critics=n_critics,
            share_features_extractor=share_features_extractor,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self.actor = self.make_actor()
        shared = self.actor.features_extractor if self.share_features_extractor else None
        self.critic = self.make_critic(shared)
        self.value_net = self.make_value_net(shared)
        # The target follows the value network and must not share anything with it. SB3 starts targets as exact copies;
        # the authors' code starts from an independent network, which only adds noise to the first 1 / tau updates.
        self.value_net_target = self.make_value_net(None)
        copy_as_target(self.value_net, self.value_net_target)
        self.optimizer = self.make_optimizer(lr_schedule)

    def make_actor(  # type: ignore[override]
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> SquashedGaussianActor | BaseActor:
        if self.distribution == "gaussian":
            actor_kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
            return SquashedGaussianActor(**actor_kwargs).to(self.device)
        kwargs = self._update_features_extractor(self.net_args, features_extractor) | self.distribution_kwargs
        if self.distribution_kwargs.get("deterministic_by") == "q":
            kwargs["critic"] = self._find_critic
        return ACTORS[self.distribution](**kwargs).to(self.device)

    def make_critic(  # type: ignore[override]
        self, features_extractor: BaseFeaturesExtractor | None = None
    ) -> StackedContinuousCritic:
        critic_kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return StackedContinuousCritic(**critic_kwargs).to(self.device)

    def make_value_net(self, features_extractor: BaseFeaturesExtractor | None = None) -> ValueNet:
        """A soft state-value network, with the actor's features extractor if it is shared."""
        kwargs = self._update_features_extractor(self.net_args, features_extractor)
        critic_arch = self.critic_kwargs["net_arch"]
        kwargs["net_arch"] = self.net_arch.get("vf", critic_arch) if isinstance(self.net_arch, dict) else critic_arch
        return ValueNet(**kwargs, share_features_extractor=features_extractor is not None).to(self.device)

    def _find_critic(self) -> StackedContinuousCritic:
        """:return: The soft Q-functions by which a mixture may choose its deterministic action; they may be replaced."""
        return self.critic

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data["share_features_extractor"] = self.share_features_extractor  # SB3 leaves it out
        data.update(distribution=self.distribution, distribution_kwargs=self.distribution_kwargs)
        return data

    def set_training_mode(self, mode: bool) -> None:
        """Switch dropout and batch normalisation of the trained networks; the target stays in evaluation mode."""
        super().set_training_mode(mode)
        self.value_net.set_training_mode(mode)


MlpPolicy = SoftACPolicy


class CnnPolicy(SoftACPolicy):
    """Policy for images; each network has SB3's ``NatureCNN`` in front."""

    default_features_extractor_class = NatureCNN


class MultiInputPolicy(SoftACPolicy):
    """Policy for dictionary observations; each network has SB3's ``CombinedExtractor`` in front."""

    default_features_extractor_class = CombinedExtractor
