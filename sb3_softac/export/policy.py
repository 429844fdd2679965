"""A policy from observations of the environment to actions of the environment."""

import copy
import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize
from torch import nn

from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.algorithm.policies import acting_network
from sb3_softac.checks import Refused

# Single precision has 7 digits: beyond this ratio of mean to standard deviation, fewer than 4 of them would be left of the
# deviation from the mean
LARGEST_RATIO = 1_000.0


class Normalization(nn.Module):
    """
    The normalization of observations by ``VecNormalize``, with fixed statistics, in single precision.

    Only where observations of double precision, or integers of more than 16 bits, have a mean of more than 1000 standard
    deviations (time stamps, constants), is the mean subtracted in double precision. ``statistics`` has mean and variance, for
    dictionary observations by key, otherwise under ``""``.
    """

    def __init__(self, statistics: dict[str, tuple[np.ndarray, np.ndarray]], epsilon: float, clip: float):
        super().__init__()
        self.statistics, self.epsilon, self.clip = statistics, epsilon, clip
        self.keys = list(statistics)
        self.far = []
        # Numbered: a key may be anything, the name of a buffer may not
        for number, (mean, var) in enumerate(statistics.values()):
            std = np.sqrt(var + epsilon)
            near = mean.astype(np.float32)
            constants = {"near": near, "rest": (mean - near).astype(np.float32), "std": std.astype(np.float32)}
            self.far.append(bool((np.abs(mean) > LARGEST_RATIO * std).any()))
            if self.far[-1]:
                constants["mean"] = mean
            for name, constant in constants.items():
                self.register_buffer(f"{name}_{number}", th.as_tensor(constant), persistent=False)

    def forward(self, obs: PyTorchObs) -> PyTorchObs:
        """:return: Observations ``[batch, ...]``, or a dictionary of them, normalized where there are statistics."""
        if isinstance(obs, dict):
            return {key: self._normalize(part, key) if key in self.keys else part for key, part in obs.items()}
        return self._normalize(obs, "") if self.keys else obs

    def _normalize(self, obs: th.Tensor, key: str) -> th.Tensor:
        number = self.keys.index(key)
        near, rest, std = (self.get_buffer(f"{name}_{number}") for name in ("near", "rest", "std"))
        if self.far[number] and obs.dtype in (th.float64, th.int32, th.int64):
            deviation = (obs.double() - self.get_buffer(f"mean_{number}")).float()
        else:  # of two single-precision numbers that are close to each other the difference is exact
            deviation = (obs.float() - near) - rest
        return (deviation / std).clamp(-self.clip, self.clip)

    def exactly(self, obs: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        """:return: What ``VecNormalize`` makes of observations, to the last bit."""
        if isinstance(obs, dict):
            return {key: self._exactly(part, key) if key in self.keys else part for key, part in obs.items()}
        return self._exactly(obs, "") if self.keys else obs

    def _exactly(self, obs: np.ndarray, key: str) -> np.ndarray:
        mean, var = self.statistics[key]
        return np.clip((obs - mean) / np.sqrt(var + self.epsilon), -self.clip, self.clip).astype(np.float32)


class ExportedPolicy(nn.Module):
    """
    A policy from observations of the environment to actions of the environment.

    Calling it maps tensors to tensors, for a batch of any size; :meth:`predict` works as in SB3.

    :param policy: Policy.
    :param normalization: Normalization of the observations.
    :param masked: Whether the policy was trained with action masks.
    :raises ValueError: if the statistics of the normalization do not have the shapes of the policy's observations.
    """

    def __init__(self, policy: BasePolicy, normalization: Normalization, masked: bool):
        super().__init__()
        space: Any = policy.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        for key, moments in normalization.statistics.items():
            what, shape = f"key {key!r}" if key else "observations", parts[key].shape if key in parts else None
            if any(moment.shape != shape for moment in moments):
                raise Refused(
                    f"VecNormalize has statistics of shape {moments[0].shape} for {what}, and the policy observes "
                    f"{'no such key' if shape is None else shape}: they are those of another environment"
                )
        self.policy, self.normalization, self.masked = policy, normalization, masked
        space = policy.action_space
        if isinstance(space, spaces.Box):
            # Bounds of double precision are rounded inwards
            low, high = space.low.astype(np.float32), space.high.astype(np.float32)
            self.register_buffer(
                "low", th.as_tensor(np.where(low < space.low, np.nextafter(low, high), low)), persistent=False
            )
            self.register_buffer(
                "high", th.as_tensor(np.where(high > space.high, np.nextafter(high, low), high)), persistent=False
            )

    def forward(self, observations: PyTorchObs, action_masks: th.Tensor | None = None) -> th.Tensor:
        """
        Choose the deterministic actions.

        Where :meth:`predict` raises an error, a program cannot. It gives NaN instead (Box), or the number before the first
        action, which is -1 if actions count from 0: for observations that are not finite, and in those branches in which a
        mask forbids every option.

        :param observations: Observations of the environment ``[batch, ...]``, or a dictionary of them; images with their
            channels first.
        :param action_masks: True where an action is allowed ``[batch, n]``; None if all are.
        :return: Actions of the action space ``[batch, ...]``, those of a Box in single precision.
        """
        policy: Any = self.policy
        shape = policy.action_space.shape
        obs = self.normalization(observations)
        finite = self._are_finite(obs)
        if isinstance(policy.action_space, spaces.Box):
            low, high = self.get_buffer("low"), self.get_buffer("high")
            scaled = policy._predict(obs, deterministic=True).reshape(-1, *shape)
            actions = (low + 0.5 * (scaled + 1.0) * (high - low)).maximum(low).minimum(high)
            return actions if finite is None else th.where(finite.reshape(-1, *[1] * len(shape)), actions, th.nan)
        branches, valid = policy.branches, None
        actions = branches.choose(policy.log_pi(obs, action_masks), deterministic=True)
        if action_masks is not None:
            options = [part.sum(dim=1) for part in action_masks.split(branches.sizes, dim=1)]
            valid = th.stack(options, dim=1).reshape(-1, *shape) > 0
        if finite is not None:
            finite = finite.reshape(-1, *[1] * len(shape))
            valid = finite if valid is None else valid & finite
        return actions if valid is None else th.where(valid, actions, th.as_tensor(branches.start - 1))

    def _are_finite(self, obs: PyTorchObs) -> th.Tensor | None:
        """:return: Whether ``predict`` would accept the observations ``[batch]``; None if they are integers."""
        parts = [part for part in (obs.values() if isinstance(obs, dict) else [obs]) if part.is_floating_point()]
        if not parts:
            return None
        network = acting_network(self.policy)
        extractor = network.features_extractor
        finite = _finite_rows(parts)
        if type(extractor) not in (FlattenExtractor, CombinedExtractor, NatureCNN):  # others may replace what is not finite
            finite = finite | _finite_rows([network.extract_features(obs, extractor)])
        return finite

    def predict(
        self, observation: np.ndarray | dict[str, np.ndarray], *args: Any, **kwargs: Any
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions; the policy's ``predict`` for observations before normalization.

        :param observation: Observation of the environment, or a batch of them.
        :param args: Further arguments of the policy's ``predict``.
        :param kwargs: Further keyword arguments, among them ``deterministic``, and ``action_masks`` for discrete actions.
        :return: Actions of the action space, and the state.
        :raises ValueError: if an action is not finite.
        """
        policy: Any = self.policy
        if not isinstance(observation, tuple):  # the policy says what is wrong with that
            observation = self.normalization.exactly(observation)
        return policy.predict(observation, *args, **kwargs)


def exported_policy(model: SoftOffPolicyAlgorithm, vec_normalize: VecEnv | None = None) -> ExportedPolicy:
    """
    :param model: Trained model.
    :param vec_normalize: Its VecNormalize, or environments that contain it; by default those of the model. A model that was
        loaded without its environment has none.
    :return: A copy of its policy on the CPU, in evaluation mode.
    :raises ValueError: if ``vec_normalize`` contains no VecNormalize, or that of another environment.
    """
    # The noise of gSDE is shared: it holds results of the network, which cannot be copied, and deterministic actions need none
    noise = [getattr(module, "action_dist", None) for module in model.policy.modules()]
    policy = copy.deepcopy(model.policy, {id(each): each for each in noise}).cpu()
    policy.set_training_mode(False)
    normalization = _normalization_of(model.get_vec_normalize_env() if vec_normalize is None else _inside(vec_normalize))
    masked = getattr(model, "masked", False)
    return ExportedPolicy(policy.requires_grad_(False), normalization, masked).eval()


def _inside(env: Any) -> VecNormalize:
    normalizer = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    if normalizer is None:
        raise Refused(
            f"vec_normalize must be a VecNormalize, or vectorized environments that contain one, got {type(env).__name__}: "
            "read its file with VecNormalize.load(path, env), or leave it out if the observations were not normalized"
        )
    return normalizer


def _normalization_of(normalizer: VecNormalize | None) -> Normalization:
    if normalizer is None or not normalizer.norm_obs:
        return Normalization({}, 0.0, 0.0)
    moments = normalizer.obs_rms
    each = {key: moments[key] for key in normalizer.norm_obs_keys or []} if isinstance(moments, dict) else {"": moments}
    statistics = {key: (np.asarray(part.mean, np.float64), np.asarray(part.var, np.float64)) for key, part in each.items()}
    return Normalization(statistics, normalizer.epsilon, normalizer.clip_obs)


def _finite_rows(parts: list[th.Tensor]) -> th.Tensor:
    """:return: Whether all numbers in a row of all parts are finite ``[batch]``."""
    numbers = th.cat([part.float().reshape(part.shape[0], math.prod(part.shape[1:])) for part in parts], dim=1)
    # Sums: exporters write all() and any() with operators that older runtimes lack
    return numbers.isfinite().logical_not().sum(dim=1) == 0
