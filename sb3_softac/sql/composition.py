"""
Composed skills: the policy of a weighted sum of soft Q-functions, arXiv:1803.06773.

The policy exp(Q / alpha) of the sum can be sampled without training, by importance resampling around the actions of the
skills' samplers. The mean of the skills' Q-functions approximates the soft Q-function of their mean reward; the paper bounds
the error. A separate sampler can be distilled from the skills' replay buffers, without an environment.
"""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_softac import checks
from sb3_softac.checks import shown
from sb3_softac.equations.soft_q import advantages_over_alpha
from sb3_softac.nets.candidates import QRanking, best_by_q, fixed_noise, smallest_q, take
from sb3_softac.nets.critics import StackedContinuousCritic
from sb3_softac.sql.policies import SQLPolicy
from sb3_softac.sql.proposal import FITTED_PARTICLES, fit_gaussians, mixture_actions, mixture_proposal
from sb3_softac.sql.sampler import ActionSampler

# The proposed actions are not as good as those of a sampler of the composition, so there are more of them
PROPOSED_PER_CANDIDATE = 8


class ComposedCritic(nn.Module):
    r""":math:`Q_C(s, a) = \sum_i w_i \min_j Q_{ij}(s, a)`, with the interface of one critic."""

    def __init__(self, critics: Sequence[StackedContinuousCritic], weights: Sequence[float]):
        super().__init__()
        self.critics = nn.ModuleList(critics)
        self.weights = [float(weight) for weight in weights]

    def features(self, obs: PyTorchObs) -> list[th.Tensor]:
        """:return: The features of every skill, ``[batch, features_dim]`` each."""
        return [critic.features(obs) for critic in self.critics]  # type: ignore[operator]

    def q_particles(self, features: list[th.Tensor], actions: th.Tensor) -> th.Tensor:
        """:return: Composed soft Q-values of K actions per row ``[batch, K, action_dim]``, ``[1, batch, K]``."""
        total = actions.new_zeros(())
        for critic, weight, own in zip(self.critics, self.weights, features, strict=True):
            total = total + weight * critic.q_particles(own, actions).amin(dim=0, keepdim=True)  # type: ignore[operator]
        return total

    def set_training_mode(self, mode: bool) -> None:
        """Do nothing: the skills are not trained, and their batch normalisation and dropout stay in evaluation mode."""


class ComposedPolicy(SQLPolicy):
    """
    Policy of a composed soft Q-function. The critics of the skills are frozen; the sampler may be distilled.

    :param observation_space: Observation space.
    :param action_space: Action space, a bounded Box.
    :param lr_schedule: Learning rate schedule.
    :param members: Keyword arguments of the policies of the skills, with the ``policy_class`` of each.
    :param weights: Weights of their soft Q-functions.
    :param temperature: Temperature alpha of the composed policy, greater than 0.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.sql.SQLPolicy`, for the new sampler.
    """

    trained_networks: ClassVar[tuple[str, ...]] = ("actor",)
    distilled: th.Tensor
    """Whether the sampler has been distilled and is used to act; see :meth:`act_by_sampler`."""
    particle_noise: th.Tensor
    """Noise of the samplers' particles for deterministic actions ``[FITTED_PARTICLES, action_dim]``."""
    proposal_noise: th.Tensor
    """Noise of the proposed actions for deterministic actions ``[m, action_dim]``."""

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
        skills = [make_skill(observation_space, action_space, lr_schedule, **member) for member in members]
        for skill in skills:
            skill.actor.ranking = QRanking(None)  # otherwise the rest of the skill would be kept alive
        self.skill_actors = nn.ModuleList(skill.actor for skill in skills).requires_grad_(False).eval()
        critic = ComposedCritic([skill.critic for skill in skills], weights).requires_grad_(False).eval()
        self.critic = self.critic_target = critic  # type: ignore[assignment]
        self.register_buffer("distilled", th.zeros((), dtype=th.bool))
        self._acts_by_sampler = False  # the same on the host
        self.register_buffer("particle_noise", th.empty(0))
        self.register_buffer("proposal_noise", th.empty(0))
        self._fix_noise()

    def _fix_noise(self) -> None:
        # At least two proposals per skill; a plain int, so that a trace does not record it
        self._n_proposed = max(PROPOSED_PER_CANDIDATE * self.n_candidates, 2 * len(self.members))
        noise = fixed_noise(FITTED_PARTICLES + self._n_proposed, self.actor.action_dim)
        self.particle_noise = noise[:FITTED_PARTICLES].clone().to(self.particle_noise)
        self.proposal_noise = noise[FITTED_PARTICLES:].clone().to(self.proposal_noise)

    @SQLPolicy.n_candidates.setter  # type: ignore[attr-defined]
    def n_candidates(self, number: int) -> None:
        self.actor.n_candidates = number
        self._fix_noise()

    def _find_critic(self) -> StackedContinuousCritic:
        if not self._acts_by_sampler:
            raise ValueError(
                "The sampler of this composed model is not trained yet: call distil() first, or use model.policy instead of "
                "model.actor"
            )
        return self.critic

    def act_by_sampler(self, distilled: bool) -> None:
        """Set whether the sampler has been distilled and is used to act."""
        self.distilled.fill_(distilled)
        self._acts_by_sampler = distilled

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        if self._acts_by_sampler:
            return super()._predict(observation, deterministic)
        actors: list[ActionSampler] = list(self.skill_actors)  # type: ignore[arg-type]
        if deterministic:  # the best of many actions of fixed noise
            features = [actor.features(observation) for actor in actors]
            particles = [actor.transform(own, self.particle_noise) for actor, own in zip(actors, features, strict=True)]
            noise = self.proposal_noise.expand(features[0].shape[0], -1, -1)
            actions = mixture_actions(fit_gaussians(particles), self._n_proposed, noise).tanh()
            return best_by_q(self.critic, observation, actions)
        particles = [actor.particles(actor.features(observation), FITTED_PARTICLES) for actor in actors]
        actions, log_density = mixture_proposal(particles, self._n_proposed)
        exponents, _ = advantages_over_alpha(smallest_q(self.critic, observation, actions), self.temperature)
        return take(actions, (exponents - log_density).softmax(dim=1).multinomial(1).squeeze(1))

    def _load_from_state_dict(self, state: dict[str, th.Tensor], prefix: str, *args: Any) -> None:
        proposed = state.get(f"{prefix}proposal_noise", self.proposal_noise)
        if proposed.shape[1:] == self.proposal_noise.shape[1:]:
            self.proposal_noise, self._n_proposed = self.proposal_noise.new_empty(proposed.shape), len(proposed)
        super()._load_from_state_dict(state, prefix, *args)
        self._acts_by_sampler = bool(self.distilled)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"members": self.members, "weights": self.weights, "temperature": self.temperature}
        return {**super()._get_constructor_parameters(), **own}


def make_skill(*args: Any, policy_class: type[SQLPolicy], **kwargs: Any) -> SQLPolicy:
    """:return: The policy of a skill."""
    return policy_class(*args, **kwargs)


def check_skills(models: Sequence[BaseAlgorithm], algorithm: type[BaseAlgorithm]) -> None:
    """:raises ValueError: if there are no models to compose, they are not of the algorithm, or they do not match."""
    if not isinstance(models, Sequence) or not models:
        raise ValueError(f"compose() needs a list of at least one model, got {shown(models)}")
    first = models[0]
    for number, model in enumerate(models):
        if not isinstance(model, algorithm):
            found = type(model).__name__
            raise ValueError(f"compose() needs models of class {algorithm.__name__}, model {number} is a {found}")
        if isinstance(model.policy, ComposedPolicy):
            raise ValueError(
                f"Model {number} is itself composed: compose() the models that it was made from, with their weights"
            )
        spaces_ = (model.observation_space, model.action_space)
        if spaces_ != (first.observation_space, first.action_space):
            raise ValueError(
                f"compose() needs models with equal spaces, model {number} has {spaces_}, model 0 has different ones"
            )
        ours, theirs = (_normalization(each.get_vec_normalize_env()) for each in (first, model))
        equal = ours.keys() == theirs.keys() and all(map(np.array_equal, ours.values(), (theirs[name] for name in ours)))
        if not equal:
            raise ValueError(
                f"The observations of model {number} are normalized differently from those of model 0, so their Q-functions "
                "cannot be added: train the skills with one VecNormalize that has training=False"
            )
        if not np.isclose(_unit_of_rewards(first), _unit_of_rewards(model), rtol=0.01):
            warnings.warn(
                f"VecNormalize has divided the rewards of model {number} by another number than those of model 0, so their "
                "Q-values have different units: choose weights that make up for it",
                stacklevel=3,
            )


def _unit_of_rewards(model: BaseAlgorithm) -> float:
    env = model.get_vec_normalize_env()
    return 1.0 if env is None or not env.norm_reward else float(np.sqrt(env.ret_rms.var + env.epsilon))


def _normalization(env: VecNormalize | None) -> dict[str, Any]:
    """:return: Everything that normalizes observations, by name; empty if nothing does."""
    if env is None or not env.norm_obs:
        return {}
    parts = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
    moments = {f"{name} of {key}": getattr(rms, name) for key, rms in parts.items() for name in ("mean", "var")}
    return {**moments, "clip_obs": env.clip_obs, "epsilon": env.epsilon}


def read_weights(n_models: int, weights: str | Sequence[float]) -> list[float]:
    """:return: One weight per model, of the ``weights`` argument of ``SQL.compose``."""
    if isinstance(weights, str):
        if weights not in ("mean", "sum"):
            raise ValueError(f"weights must be 'mean', 'sum' or one number per model, got {weights!r}")
        return [1.0 / n_models if weights == "mean" else 1.0] * n_models
    if not isinstance(weights, Sequence | np.ndarray) or len(weights) != n_models:
        raise ValueError(f"weights must be 'mean', 'sum' or one number per model ({n_models}), got {weights!r}")
    return [float(checks.read("each of the weights", weight, checks.number("a finite number"))) for weight in weights]


class SkillObservations:
    """
    The observations in the replay buffers of skills, from which a sampler is distilled.

    :raises ValueError: if there are none, or those of a buffer are not of the observation space.
    """

    def __init__(self, replay_buffers: Sequence[ReplayBuffer], observation_space: spaces.Space):
        if isinstance(replay_buffers, ReplayBuffer):
            raise ValueError(f"distil() needs a list of replay buffers, got a {type(replay_buffers).__name__}")
        for number, buffer in enumerate(replay_buffers):
            if buffer.observation_space != observation_space:
                raise ValueError(
                    f"Replay buffer {number} contains observations of {buffer.observation_space}, but the model needs "
                    f"{observation_space}: pass the replay buffers of the skills that it is composed of"
                )
        sizes = np.array([buffer.size() * buffer.n_envs for buffer in replay_buffers])  # SB3 counts rows, of n_envs each
        if not sizes.sum():
            raise ValueError(
                "The replay buffers contain no transitions to distil from. A model is saved without its replay buffer: use "
                "save_replay_buffer() and load_replay_buffer()"
            )
        self.buffers, self.shares = replay_buffers, sizes / sizes.sum()

    def sample(self, batch_size: int, env: VecNormalize | None, device: th.device) -> PyTorchObs:
        """:return: A batch, from each buffer in proportion to its number of transitions."""
        counts = np.random.multinomial(batch_size, self.shares)
        batches = [buffer.sample(int(n), env=env).observations for buffer, n in zip(self.buffers, counts, strict=True) if n]
        if isinstance(batches[0], dict):
            return {key: th.cat([obs[key].to(device) for obs in batches]) for key in batches[0]}  # type: ignore[index]
        return th.cat([obs.to(device) for obs in batches])  # type: ignore[union-attr]
