"""
Skills added up: the policy of a weighted sum of soft Q-functions, arXiv:1803.06773.

The sum is a soft Q-function in its own right, so the policy exp(Q / alpha) can be sampled at once, by importance resampling
around the actions of the skills' own samplers; and a sampler of its own can be distilled from their replay buffers, without a
step in any environment.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_softac.nets.critics import StackedContinuousCritic
from sb3_softac.sql.policies import SQLPolicy
from sb3_softac.sql.proposal import FITTED_PARTICLES, mixture_proposal
from sb3_softac.sql.sampler import ActionSampler


class ComposedCritic(nn.Module):
    r"""
    :math:`Q_C(s, a) = \sum_i w_i \min_j Q_{ij}(s, a)`, with the interface of one critic.

    :param critics: The critics of the skills.
    :param weights: Their weights.
    """

    def __init__(self, critics: Sequence[StackedContinuousCritic], weights: Sequence[float]):
        super().__init__()
        self.critics = nn.ModuleList(critics)
        self.weights = [float(weight) for weight in weights]

    def features(self, obs: PyTorchObs) -> list[th.Tensor]:
        """
        :param obs: Observations.
        :return: The features of every skill, ``[batch, features_dim]`` each.
        """
        return [critic.features(obs) for critic in self.critics]  # type: ignore[operator]

    def q_particles(self, features: list[th.Tensor], actions: th.Tensor) -> th.Tensor:
        """
        :param features: What :meth:`features` returned.
        :param actions: K actions per row, scaled to [-1, 1] ``[batch, K, action_dim]``.
        :return: Composed soft Q-values in units of reward ``[1, batch, K]``.
        """
        total = th.zeros(1, *actions.shape[:2], device=actions.device)
        for critic, weight, own in zip(self.critics, self.weights, features, strict=True):
            total = total + weight * critic.q_particles(own, actions).amin(dim=0, keepdim=True)  # type: ignore[operator]
        return total

    def set_training_mode(self, mode: bool) -> None:
        """
        :param mode: True to train, False to evaluate.
        """
        self.train(mode)


class ComposedPolicy(SQLPolicy):
    """
    Policy of a composed soft Q-function. The critics of the skills are frozen; the sampler may be distilled.

    :param observation_space: Observation space.
    :param action_space: Action space, a bounded Box.
    :param lr_schedule: Learning rate schedule.
    :param members: Keyword arguments of the policies of the skills.
    :param weights: Weights of their soft Q-functions.
    :param temperature: Temperature alpha of the composed policy, greater than 0.
    :param kwargs: Keyword arguments of :class:`SQLPolicy`, for the new sampler.
    """

    distilled: th.Tensor
    """Whether the sampler has been distilled, so that it acts."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        members: list[dict[str, Any]],
        weights: list[float],
        temperature: float,
        **kwargs: Any,
    ):
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.members, self.weights, self.temperature = members, weights, temperature
        skills = [SQLPolicy(observation_space, action_space, lr_schedule, **member) for member in members]
        self.skill_actors = nn.ModuleList(skill.actor for skill in skills).requires_grad_(False)
        critic = ComposedCritic([skill.critic for skill in skills], weights).requires_grad_(False)
        self.critic = self.critic_target = critic  # type: ignore[assignment]
        self.register_buffer("distilled", th.zeros((), dtype=th.bool))
        self.optimizer = self._make_optimizer(lr_schedule, self.actor)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Whether to take the best candidate instead of a sample.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        """
        if self.distilled:
            return super().forward(obs, deterministic)
        actors: list[ActionSampler] = list(self.skill_actors)  # type: ignore[arg-type]
        particles = [actor.particles(actor.features(obs), FITTED_PARTICLES) for actor in actors]
        actions, log_density = mixture_proposal(particles, 8 * self.n_candidates)
        q = self.critic.q_particles(self.critic.features(obs), actions).squeeze(0)
        log_weights = q / self.temperature - log_density
        chosen = q.argmax(dim=1) if deterministic else log_weights.softmax(dim=1).multinomial(1).squeeze(1)
        return actions[th.arange(len(chosen), device=chosen.device), chosen]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(members=self.members, weights=self.weights, temperature=self.temperature)
        return data


def read_weights(models: Sequence[BaseAlgorithm], weights: str | Sequence[float]) -> list[float]:
    """
    Read the ``weights`` argument of ``SQL.compose``.

    :param models: Models to compose.
    :param weights: ``"mean"``, ``"sum"``, or one number per model.
    :return: One weight per model.
    :raises ValueError: if there are no models, their spaces differ, or the weights do not fit.
    """
    if not models:
        raise ValueError("compose() needs at least one model")
    first = models[0]
    for number, model in enumerate(models):
        spaces_ = (model.observation_space, model.action_space)
        if spaces_ != (first.observation_space, first.action_space):
            raise ValueError(f"compose() needs models of equal spaces, model {number} has {spaces_}, model 0 has others")
    if isinstance(weights, str):
        if weights not in ("mean", "sum"):
            raise ValueError(f"weights must be 'mean', 'sum' or one number per model, got {weights!r}")
        return [1.0 / len(models) if weights == "mean" else 1.0] * len(models)
    if len(weights) != len(models) or not np.isfinite(weights).all():
        raise ValueError(f"weights must be one finite number per model ({len(models)}), got {weights!r}")
    return [float(weight) for weight in weights]


def concatenate(observations: list[Any]) -> Any:
    """
    :param observations: Batches of observations, tensors or dictionaries of tensors.
    :return: All of them as one batch.
    """
    if isinstance(observations[0], dict):
        return {key: th.cat([obs[key] for obs in observations]) for key in observations[0]}
    return th.cat(observations)
