"""
Composed skills: the policy of a weighted sum of soft Q-functions, arXiv:1803.06773.

The sum is again a soft Q-function, so the policy exp(Q / alpha) can be sampled without training, by importance resampling
around the actions of the skills' samplers. A separate sampler can be distilled from their replay buffers, without an
environment. :mod:`sb3_softac.sql.skills` checks what such a model is made of.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_softac.equations.soft_q import advantages_over_alpha
from sb3_softac.nets.candidates import fixed_noise, take
from sb3_softac.nets.critics import StackedContinuousCritic
from sb3_softac.sql.policies import SQLPolicy
from sb3_softac.sql.proposal import FITTED_PARTICLES, fit_gaussians, mixture_actions, mixture_proposal
from sb3_softac.sql.sampler import ActionSampler

# The proposed actions are not as good as those of a sampler of the composition, so there are more of them
PROPOSED_PER_CANDIDATE = 8


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
        total = actions.new_zeros(())
        for critic, weight, own in zip(self.critics, self.weights, features, strict=True):
            total = total + weight * critic.q_particles(own, actions).amin(dim=0, keepdim=True)  # type: ignore[operator]
        return total

    def set_training_mode(self, mode: bool) -> None:
        """
        Do nothing: the skills are not trained, and their batch normalisation and dropout stay in evaluation mode.

        :param mode: True to train, False to evaluate.
        """


class ComposedPolicy(SQLPolicy):
    """
    Policy of a composed soft Q-function. The critics of the skills are frozen; the sampler may be distilled.

    :param observation_space: Observation space.
    :param action_space: Action space, a bounded Box.
    :param lr_schedule: Learning rate schedule.
    :param members: Keyword arguments of the policies of the skills.
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
            skill.actor.critic_of_policy = None  # or the rest of the skill would live on
        self.skill_actors = nn.ModuleList(skill.actor for skill in skills).requires_grad_(False).eval()
        critic = ComposedCritic([skill.critic for skill in skills], weights).requires_grad_(False).eval()
        self.critic = self.critic_target = critic  # type: ignore[assignment]
        self.register_buffer("distilled", th.zeros((), dtype=th.bool))
        self._acts_by_sampler = False  # the same on the host
        self.register_buffer("particle_noise", th.empty(0))
        self.register_buffer("proposal_noise", th.empty(0))
        self._set_candidates(self.n_candidates)

    def _set_candidates(self, number: int) -> None:
        super()._set_candidates(number)
        noise = fixed_noise(FITTED_PARTICLES + PROPOSED_PER_CANDIDATE * number, self.actor.action_dim)
        self.particle_noise = noise[:FITTED_PARTICLES].clone().to(self.particle_noise)
        self.proposal_noise = noise[FITTED_PARTICLES:].clone().to(self.proposal_noise)

    def _critic_of_actor(self) -> StackedContinuousCritic:
        if not self._acts_by_sampler:
            raise ValueError(
                "The sampler of this composed model is not trained yet: call distil() first, or use model.policy instead of "
                "model.actor"
            )
        return super()._critic_of_actor()

    def act_by_sampler(self, distilled: bool) -> None:
        """
        :param distilled: Whether the sampler has been distilled and is used to act.
        """
        self.distilled.fill_(distilled)
        self._acts_by_sampler = distilled

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Whether to take the best of many actions of fixed noise instead of a sample: the same action for
            the same observation.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        """
        if self._acts_by_sampler:
            return super().forward(obs, deterministic)
        actors: list[ActionSampler] = list(self.skill_actors)  # type: ignore[arg-type]
        n_actions = PROPOSED_PER_CANDIDATE * self.n_candidates
        if deterministic:
            features = [actor.features(obs) for actor in actors]
            particles = [actor.transform(own, self.particle_noise) for actor, own in zip(actors, features, strict=True)]
            noise = self.proposal_noise.expand(features[0].shape[0], -1, -1)
            actions = mixture_actions(fit_gaussians(particles), n_actions, noise).tanh()
            return take(actions, self.smallest_q(obs, actions).argmax(dim=1))
        particles = [actor.particles(actor.features(obs), FITTED_PARTICLES) for actor in actors]
        actions, log_density = mixture_proposal(particles, n_actions)
        exponents, _ = advantages_over_alpha(self.smallest_q(obs, actions), self.temperature)
        return take(actions, (exponents - log_density).softmax(dim=1).multinomial(1).squeeze(1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Files of before the noise was fixed have none
        for name in ("particle_noise", "proposal_noise"):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._acts_by_sampler = bool(self.distilled)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(members=self.members, weights=self.weights, temperature=self.temperature)
        return data


def make_skill(*args: Any, policy_class: type[SQLPolicy] = SQLPolicy, **kwargs: Any) -> SQLPolicy:
    """
    :param args: Positional arguments of the policy of a skill.
    :param policy_class: Its class; files of earlier versions do not name it.
    :param kwargs: Its keyword arguments.
    :return: The policy.
    """
    return policy_class(*args, **kwargs)
