"""A policy from observations of the environment to actions of the environment."""

import copy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm


class Normalization(nn.Module):
    """
    The normalization of observations by ``VecNormalize``, with fixed statistics.

    :param statistics: Mean and variance; for dictionary observations, one pair per key; empty for no normalization.
    :param epsilon: Added to variances.
    :param clip: Largest absolute value of the result.
    """

    def __init__(self, statistics: dict[str, RunningMeanStd], epsilon: float, clip: float):
        super().__init__()
        self.keys, self.epsilon, self.clip = list(statistics), epsilon, clip
        for key, moments in statistics.items():
            self.register_buffer(f"mean_{key}", th.as_tensor(np.asarray(moments.mean, np.float64)))
            self.register_buffer(f"var_{key}", th.as_tensor(np.asarray(moments.var, np.float64)))

    def forward(self, obs: PyTorchObs) -> PyTorchObs:
        """
        :param obs: Observations ``[batch, ...]``, or a dictionary of them.
        :return: The same, normalized and in single precision where there are statistics.
        """
        if isinstance(obs, dict):
            return {key: self._normalize(part, key) if key in self.keys else part for key, part in obs.items()}
        return self._normalize(obs, "") if self.keys else obs

    def _normalize(self, obs: th.Tensor, key: str) -> th.Tensor:
        mean, var = self.get_buffer(f"mean_{key}"), self.get_buffer(f"var_{key}")
        return ((obs.double() - mean) / (var + self.epsilon).sqrt()).clamp(-self.clip, self.clip).float()


class ExportedPolicy(nn.Module):
    """
    A policy from observations of the environment to actions of the environment.

    Calling it maps tensors to tensors, for a batch of any size; :meth:`predict` works as in SB3.

    :param policy: Policy.
    :param normalization: Normalization of the observations.
    :param masked: Whether the policy was trained with action masks.
    """

    def __init__(self, policy: BasePolicy, normalization: Normalization, masked: bool):
        super().__init__()
        self.policy, self.normalization, self.masked = policy, normalization, masked
        space = policy.action_space
        if isinstance(space, spaces.Box):
            self.register_buffer("low", th.as_tensor(space.low))
            self.register_buffer("high", th.as_tensor(space.high))

    def forward(self, observations: PyTorchObs, action_masks: th.Tensor | None = None) -> th.Tensor:
        """
        Choose the deterministic actions.

        :param observations: Observations of the environment ``[batch, ...]``, or a dictionary of them; images with their
            channels first.
        :param action_masks: True where an action is allowed ``[batch, n]``; None if all are.
        :return: Actions of the action space ``[batch, ...]``.
        """
        policy: Any = self.policy
        obs = self.normalization(observations)
        if action_masks is not None:
            actor = policy.actor
            return actor.choose(actor.log_probs(actor.features(obs), action_masks), True)
        actions = policy._predict(obs, deterministic=True)
        if isinstance(policy.action_space, spaces.Box):
            low, high = self.get_buffer("low"), self.get_buffer("high")
            return low + 0.5 * (actions.unflatten(1, low.shape) + 1.0) * (high - low)
        return actions

    def predict(
        self, observation: np.ndarray | dict[str, np.ndarray], *args: Any, **kwargs: Any
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions; the policy's ``predict`` for observations before normalization.

        :param observation: Observation of the environment, or a batch of them.
        :param args: Further arguments of the policy's ``predict``.
        :param kwargs: Further keyword arguments, among them ``deterministic``, and ``action_masks`` for DiscreteSAC.
        :return: Actions of the action space, and the state.
        :raises ValueError: if an action is not finite.
        """
        policy: Any = self.policy
        if self.normalization.keys:
            many = isinstance(observation, dict)
            parts = observation if isinstance(observation, dict) else {"": observation}
            normalized: Any = self.normalization({key: th.as_tensor(part) for key, part in parts.items()})
            normalized = {key: part.numpy() for key, part in normalized.items()}
            observation = normalized if many else normalized[""]
        return policy.predict(observation, *args, **kwargs)


def exported_policy(model: SoftOffPolicyAlgorithm, vec_normalize: VecNormalize | None = None) -> ExportedPolicy:
    """
    :param model: Trained model.
    :param vec_normalize: Normalization of its environment; by default that of the model's environment. A model that was loaded
        without its environment has none.
    :return: A copy of its policy on the CPU, in evaluation mode.
    """
    # The noise of gSDE is shared: it holds results of the network, which cannot be copied, and deterministic actions need none
    noise = [getattr(module, "action_dist", None) for module in model.policy.modules()]
    policy = copy.deepcopy(model.policy, {id(each): each for each in noise}).cpu()
    policy.set_training_mode(False)
    normalization = _normalization_of(vec_normalize or model.get_vec_normalize_env())
    masked = getattr(model, "_has_masks", False)
    return ExportedPolicy(policy.requires_grad_(False), normalization, masked).eval()


def _normalization_of(normalizer: VecNormalize | None) -> Normalization:
    if normalizer is None or not normalizer.norm_obs:
        return Normalization({}, 0.0, 0.0)
    moments = normalizer.obs_rms
    statistics = {key: moments[key] for key in normalizer.norm_obs_keys or []} if isinstance(moments, dict) else {"": moments}
    return Normalization(statistics, normalizer.epsilon, normalizer.clip_obs)
