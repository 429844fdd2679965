"""
What the policies of all algorithms have in common, as functions in place of methods of SB3's ``SACPolicy``: errors for NaN,
one optimizer, lazy layers, and a scaling of actions that does not round them out of their bounds.
"""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import SACPolicy
from torch.nn.parameter import is_lazy

NOT_FINITE = (
    "{what} not finite: look for NaN or infinite values in the observation (SB3's VecCheckNan finds them) and in the "
    "parameters of the policy"
)


class NetworkOfPolicy:
    """An attribute of the model that is stored in its policy, so that replacing it in one place replaces it in both."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: Any, owner: type | None = None) -> Any:
        return self if model is None else getattr(model.policy, self.name)

    def __set__(self, model: Any, network: th.nn.Module) -> None:
        setattr(model.policy, self.name, network)


def is_finite(numbers: np.ndarray | th.Tensor) -> bool:
    """:return: Whether all of them are finite; in PyTorch a finite sum proves it faster, unless it overflows."""
    if isinstance(numbers, th.Tensor):
        return math.isfinite(numbers.sum()) or bool(numbers.isfinite().all())
    return bool(np.isfinite(numbers).all())


def require_finite_actions(actions: np.ndarray | th.Tensor) -> None:
    """:raises ValueError: if an action, or a log-probability from which actions are drawn, is not finite."""
    if not is_finite(actions):
        raise ValueError(NOT_FINITE.format(what="The policy gave an action that is"))


def acting_network(policy: Any) -> Any:
    """:return: The network that observations go through when the policy acts: its actor, or the critics if it has none."""
    return getattr(policy, "actor", None) or policy.critic


def finite_obs_to_tensor(policy: Any, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[PyTorchObs, bool]:
    """SB3's ``obs_to_tensor``, with an error for what is not finite, unless the features extractor corrects it."""
    obs, vectorized = BasePolicy.obs_to_tensor(policy, observation)
    if not all(map(is_finite, obs.values() if isinstance(obs, dict) else [obs])):
        with th.no_grad():
            network = acting_network(policy)
            features = network.extract_features(obs, network.features_extractor)
        if not is_finite(features):
            raise ValueError(NOT_FINITE.format(what="The observation is"))
    return obs, vectorized


def scale_within_bounds(policy: Any, action: np.ndarray) -> np.ndarray:
    """SB3's ``scale_action``: rounding never takes an action out of [-1, 1]; an action outside its bounds stays outside."""
    scaled = BasePolicy.scale_action(policy, action)
    if (np.abs(scaled) <= 1.0).all():
        return scaled
    inside = (action >= policy.action_space.low) & (action <= policy.action_space.high)
    return np.where(inside, scaled.clip(-1.0, 1.0), scaled)


def unscale_within_bounds(policy: Any, scaled_action: np.ndarray) -> np.ndarray:
    """SB3's ``unscale_action``, which ``predict`` calls: rounding never takes an action out of its bounds; NaN is an error."""
    action, low, high = BasePolicy.unscale_action(policy, scaled_action), policy.action_space.low, policy.action_space.high
    if ((low <= action) & (action <= high)).all():
        return action
    require_finite_actions(scaled_action)
    return np.where(np.abs(scaled_action) <= 1.0, action.clip(low, high), action)


def make_joint_optimizer(policy: Any, lr_schedule: Schedule) -> th.optim.Optimizer:
    """
    Create the optimizer of all trained networks; needed again after a network or a layer was replaced::

        model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    """
    networks = {name: getattr(policy, name) for name in policy.trained_networks}
    if lazy := [name for name, network in networks.items() if any(map(is_lazy, network.parameters()))]:
        raise ValueError(
            f"{lazy} have lazy layers outside of the features extractor: give them their sizes, e.g. nn.Linear for "
            "nn.LazyLinear"
        )
    kwargs = policy.optimizer_kwargs
    if policy.optimizer_class in (th.optim.Adam, th.optim.AdamW) and not (
        {"fused", "foreach", "capturable", "differentiable"} & kwargs.keys()
    ):
        kwargs = {"fused": True, **kwargs}  # PyTorch's fused kernel can skip a step by a flag on the device, see step_if()
    # Each once, even if networks share a features extractor
    parameters = dict.fromkeys(parameter for network in networks.values() for parameter in network.parameters())
    return policy.optimizer_class(list(parameters), lr=lr_schedule(1), **kwargs)


def make_initialized_extractor(policy: Any) -> BaseFeaturesExtractor:
    """SB3's ``make_features_extractor``; lazy layers get their sizes at once, so that targets and optimizer can be made."""
    extractor = BasePolicy.make_features_extractor(policy)
    if any(map(is_lazy, [*extractor.parameters(), *extractor.buffers()])):
        mode = extractor.training
        with th.no_grad():
            policy.extract_features(_zeros(policy.observation_space), extractor.eval())
        extractor.train(mode)
    return extractor


def _zeros(space: spaces.Space) -> PyTorchObs:
    """:return: A batch of one observation, all zeros."""
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}  # type: ignore[misc]
    return th.zeros(1, *space.shape, dtype=th.float32 if isinstance(space, spaces.Box) else th.int64)  # type: ignore[misc]


def default_net_arch(
    net_arch: list[int] | dict[str, list[int]] | None, extractor_class: type[BaseFeaturesExtractor]
) -> list[int] | dict[str, list[int]]:
    """:return: The hidden layers as given, or by default two layers for vectors, and none for images."""
    if net_arch is not None:
        return net_arch
    return [] if extractor_class is NatureCNN else [256, 256]


def copy_as_target(critic: BaseModel, target: BaseModel) -> None:
    """Start a target as a copy. It is not frozen, because it may share a features extractor with the critics."""
    target.load_state_dict(critic.state_dict())
    target.set_training_mode(False)


def constructor_parameters(policy: SACPolicy, **own: Any) -> dict[str, Any]:
    """:return: The constructor's arguments of a policy without gSDE, which is one of SB3's ``SACPolicy``, and its own."""
    inherited = SACPolicy._get_constructor_parameters(policy)
    for name in ("use_sde", "log_std_init", "use_expln", "clip_mean"):
        del inherited[name]
    return {**inherited, "share_features_extractor": policy.share_features_extractor, **own}
