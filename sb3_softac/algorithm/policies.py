"""
Code that the policies of all three algorithms share: errors for NaN, and, except for SB3's SAC policy, their construction.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn
from torch.nn.parameter import is_lazy

from sb3_softac.algorithm.arguments import POLICY_ARGUMENTS
from sb3_softac.checks import Argument
from sb3_softac.nets.base import FeatureNetwork

Network = TypeVar("Network", bound=FeatureNetwork)


NOT_FINITE = (
    "{what} not finite: look for NaN or infinite values in the observation (SB3's VecCheckNan finds them) and in the "
    "parameters of the policy"
)


def require_finite_actions(actions: np.ndarray | th.Tensor) -> None:
    """
    :param actions: Actions, or the log-probabilities from which they are drawn.
    :raises ValueError: if one is not finite.
    """
    if not (actions.isfinite() if isinstance(actions, th.Tensor) else np.isfinite(actions)).all():
        raise ValueError(NOT_FINITE.format(what="The policy gave an action that is"))


def trained_parameters(networks: Iterable[nn.Module]) -> list[nn.Parameter]:
    """
    :param networks: The networks that are trained.
    :return: Their parameters, each once even if networks share a features extractor.
    """
    return list(dict.fromkeys(parameter for network in networks for parameter in network.parameters()))


def _make_optimizer(
    optimizer_class: type[th.optim.Optimizer], networks: Iterable[nn.Module], lr: float, kwargs: dict[str, Any]
) -> th.optim.Optimizer:
    """
    PyTorch's fused kernel is the default, because it can skip a step by a flag on the device, see
    :func:`~sb3_softac.algorithm.finite.step_if`.
    """
    unasked = not {"fused", "foreach", "capturable", "differentiable"} & kwargs.keys()
    if optimizer_class in (th.optim.Adam, th.optim.AdamW) and unasked:
        kwargs = {"fused": True, **kwargs}
    return optimizer_class(trained_parameters(networks), lr=lr, **kwargs)  # type: ignore[call-arg]


class NetworkOfPolicy:
    """An attribute of the model that is stored in its policy, so that replacing it in one place replaces it in both."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        return self if model is None else getattr(model.policy, self.name)

    def __set__(self, model: Any, network: th.nn.Module) -> None:
        setattr(model.policy, self.name, network)


def _zeros(space: spaces.Space) -> PyTorchObs:
    """:return: A batch of one observation, all zeros."""
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}  # type: ignore[misc]
    return th.zeros(1, *space.shape, dtype=th.float32 if isinstance(space, spaces.Box) else th.int64)  # type: ignore[misc]


class CommonPolicy(BasePolicy):
    """
    What the policies of all three algorithms have in common: one optimizer for all trained networks, features extractors with
    lazy layers, a scaling of actions that does not round them out of their bounds, and a :meth:`predict` that raises an error
    where SB3's would return NaN, or an action at a bound for an infinite observation.
    """

    trained_networks: ClassVar[tuple[str, ...]] = ("actor", "critic")
    """Names of the networks whose parameters the optimizer holds, in its order."""

    def make_optimizer(self, lr_schedule: Schedule) -> th.optim.Optimizer:
        """
        Create the optimizer of all trained networks; needed again after a network or a layer was replaced::

            model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)

        :param lr_schedule: Learning rate schedule.
        :return: The optimizer, of the policy's ``optimizer_class`` and with its ``optimizer_kwargs``.
        :raises ValueError: if a network has lazy layers outside of its features extractor.
        """
        networks = [getattr(self, name) for name in self.trained_networks]
        if lazy := [name for name in self.trained_networks if any(map(is_lazy, getattr(self, name).parameters()))]:
            raise ValueError(
                f"{lazy} have lazy layers outside of the features extractor: give them their sizes, e.g. nn.Linear for "
                "nn.LazyLinear"
            )
        return _make_optimizer(self.optimizer_class, networks, lr_schedule(1), self.optimizer_kwargs)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """SB3's method; lazy layers get their sizes at once, so that targets and optimizer can be made of them."""
        extractor = super().make_features_extractor()
        if any(map(is_lazy, [*extractor.parameters(), *extractor.buffers()])):
            mode = extractor.training
            with th.no_grad():
                self.extract_features(_zeros(self.observation_space), extractor.eval())
            extractor.train(mode)
        return extractor

    def scale_action(self, action: np.ndarray) -> np.ndarray:
        """
        SB3's ``scale_action``.

        :param action: Actions of the action space ``[..., *action_space.shape]``.
        :return: The same scaled to [-1, 1]; actions outside their bounds end up outside.
        """
        scaled = super().scale_action(action)
        assert isinstance(self.action_space, spaces.Box)
        inside = (action >= self.action_space.low) & (action <= self.action_space.high)
        return np.where(inside, scaled.clip(-1.0, 1.0), scaled)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """
        SB3's ``unscale_action``.

        :param scaled_action: Actions scaled to [-1, 1] ``[..., *action_space.shape]``.
        :return: Actions of the action space; those outside [-1, 1] end up outside its bounds.
        """
        action = super().unscale_action(scaled_action)
        assert isinstance(self.action_space, spaces.Box)
        inside = np.abs(scaled_action) <= 1.0
        return np.where(inside, action.clip(self.action_space.low, self.action_space.high), action)

    def obs_to_tensor(self, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[PyTorchObs, bool]:
        """
        SB3's ``obs_to_tensor``.

        :param observation: Observation or batch of observations.
        :return: The batch as a tensor or a dictionary of tensors, and whether the observation was a batch.
        :raises ValueError: if it is not finite and the features extractor does not correct this.
        """
        obs, vectorized = super().obs_to_tensor(observation)
        if not all(part.isfinite().all() for part in (obs.values() if isinstance(obs, dict) else [obs])):
            actor: Any = self.actor
            with th.no_grad():
                features = actor.extract_features(obs, actor.features_extractor)
            if not features.isfinite().all():
                raise ValueError(NOT_FINITE.format(what="The observation is"))
        return obs, vectorized

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions; SB3's ``predict``.

        :param observation: Observation or batch of observations.
        :param state: Not used; returned unchanged (recurrent policies have one).
        :param episode_start: Not used.
        :param deterministic: Whether to return the policy's deterministic action instead of a sample.
        :return: Actions of the action space, and the state.
        :raises ValueError: if an action is not finite.
        """
        actions, state = super().predict(observation, state, episode_start, deterministic)
        require_finite_actions(actions)
        return actions, state


class SoftPolicy(CommonPolicy):
    """
    Base of policies with an actor, critics and a target of the critics. A subclass creates the three and then the optimizer.

    One optimizer, ``policy.optimizer``, holds the parameters of all trained networks, that is, of all but the target.

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
    :param squash_output: Whether actions are scaled to [-1, 1].
    """

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    arguments: ClassVar[dict[str, Argument]] = POLICY_ARGUMENTS
    """What the keyword arguments must be, by name. A subclass may add its own."""
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
        self.net_args = {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "activation_fn": activation_fn,
            "normalize_images": normalize_images,
        }

    def _make_network(
        self, kind: type[Network], net_arch: list[int], features_extractor: BaseFeaturesExtractor | None = None, **own: Any
    ) -> Network:
        """
        :param kind: Class of the network.
        :param net_arch: Sizes of its hidden layers.
        :param features_extractor: The extractor of another network, which trains it; None for a new one.
        :param own: Further keyword arguments of its constructor.
        :return: The network.
        """
        kwargs = self._update_features_extractor(self.net_args, features_extractor)
        shared = {"share_features_extractor": features_extractor is not None}
        return kind(**{**kwargs, **shared, **own, "net_arch": net_arch}).to(self.device)

    def _start_target(self) -> None:
        """
        Create the target as a copy of the critics. It is not frozen, because it may share a features extractor with them.
        """
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)

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
