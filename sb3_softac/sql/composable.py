"""Composing a model of skills (:mod:`sb3_softac.sql.composition`), and distilling its sampler from their experience."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_softac.algorithm.network_checks import require_gradients
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.algorithm.policies import NetworkOfPolicy
from sb3_softac.checks import integer, is_number, read, shown
from sb3_softac.sql.composition import ComposedPolicy
from sb3_softac.sql.policies import SQLPolicy
from sb3_softac.sql.skills import check_skills, concatenate, read_weights, transitions_of

SelfComposable = TypeVar("SelfComposable", bound="Composable")


class Composable(SoftOffPolicyAlgorithm):
    """
    Soft Q-learning with models that can be composed.

    The constructor's parameters are those of :class:`~sb3_softac.algorithm.off_policy.SoftOffPolicyAlgorithm`.
    """

    own_policies: ClassVar[dict[str, type[BasePolicy]]] = {"ComposedPolicy": ComposedPolicy}
    policy: SQLPolicy
    actor = NetworkOfPolicy()
    critic = NetworkOfPolicy()

    @abstractmethod
    def _sampler_loss(self, obs: PyTorchObs, features: th.Tensor, alpha: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """:return: The loss of the sampler, and the standard deviation of its actions."""

    @classmethod
    def compose(
        cls: type[SelfComposable],
        models: Sequence[SelfComposable],
        weights: str | Sequence[float] = "mean",
        ent_coef: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> SelfComposable:
        """
        Make a model of a weighted sum of soft Q-functions (arXiv:1803.06773). It acts without training; :meth:`distil` makes
        it faster.

        :param models: Trained models with equal observation and action spaces, and equally normalized observations.
        :param weights: ``"mean"``, ``"sum"``, or one number per model.
        :param ent_coef: Temperature of the composed policy, a number greater than 0; None for that of the first model.
        :param policy_kwargs: Keyword arguments of the policy, for the sampler that can be distilled. Its features extractor is
            of the first model's class, unless another one is given.
        :param kwargs: Further arguments of the constructor; ``device`` is that of the first model, unless given.
        :return: The composed model, without an environment.
        :raises ValueError: if there are no models, or the models or the weights do not match.
        """
        check_skills(models, cls)
        first, numbers = models[0], read_weights(len(models), weights)
        if ent_coef is not None and not is_number(ent_coef):
            raise ValueError(
                f"ent_coef of a composed model must be a number, got {shown(ent_coef)}: its temperature is not learned"
            )
        temperature = float(first.temperature.alpha) if ent_coef is None else ent_coef
        members = [model.policy._get_constructor_parameters() for model in models]
        for member, model in zip(members, models, strict=True):
            member["policy_class"] = type(model.policy)
            for known in ("observation_space", "action_space", "lr_schedule"):
                member.pop(known, None)
        extractor = ("features_extractor_class", "features_extractor_kwargs", "normalize_images")
        inherited = {name: members[0][name] for name in extractor}
        own = {"members": members, "weights": numbers, "temperature": temperature}
        composed = cls(
            ComposedPolicy,
            None,
            ent_coef=temperature,
            policy_kwargs={**inherited, **(policy_kwargs or {}), **own},
            _init_setup_model=False,
            **{"buffer_size": 1, "device": first.device, **kwargs},
        )  # type: ignore[call-arg]
        composed.observation_space, composed.action_space = first.observation_space, first.action_space
        composed.n_envs, composed._vec_normalize_env = 1, first._vec_normalize_env
        composed._setup_model()
        policy = composed.policy
        assert isinstance(policy, ComposedPolicy)
        for critic, actor, model in zip(policy.critic.critics, policy.skill_actors, models, strict=True):  # type: ignore[arg-type]
            critic.load_state_dict(model.policy.critic.state_dict())
            actor.load_state_dict(model.policy.actor.state_dict())
        return composed

    def distil(self, replay_buffers: Sequence[ReplayBuffer], gradient_steps: int, batch_size: int = 128) -> None:
        """
        Train the sampler of a composed model on stored observations, without an environment; afterwards the model acts with
        it.

        Observations are normalized as for the first skill (for a loaded model: as in the environment of ``set_env``).

        :param replay_buffers: Replay buffers of the skills; each is sampled in proportion to its number of transitions.
        :param gradient_steps: Number of gradient steps, at least 1.
        :param batch_size: Number of observations per step, at least 1.
        :raises ValueError: if this is no composed model, an argument is out of its range, there are no transitions, or a loss
            is not finite.
        :raises RuntimeError: if gradients are switched off.
        """
        require_gradients()
        policy = self.policy
        if not isinstance(policy, ComposedPolicy):
            raise ValueError("distil() trains the sampler of a composed model: create one with SQL.compose()")
        gradient_steps = read("gradient_steps", gradient_steps, integer(1))
        batch_size = read("batch_size", batch_size, integer(1))
        sizes = transitions_of(replay_buffers, self.observation_space)
        self._prepare_networks()
        self._finite.fill_(1.0)
        for _ in range(gradient_steps):
            counts = np.random.multinomial(batch_size, sizes / sizes.sum())
            samples = [
                buffer.sample(int(n), env=self._vec_normalize_env)
                for buffer, n in zip(replay_buffers, counts, strict=True)
                if n
            ]
            obs = concatenate([drawn.observations for drawn in samples], self.device)
            loss, _ = self._sampler_loss(obs, self.critic.features(obs), self.temperature.alpha)
            self._minimize({"actor_loss": loss})
        policy.set_training_mode(False)
        if not self._finite:
            raise ValueError("A loss was not finite while distilling: look for NaN in the replay buffers' observations")
        policy.act_by_sampler(True)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if isinstance(self.policy, ComposedPolicy):
            raise ValueError(
                "A composed model has no Q-function of its own that learn() could train: train its sampler with distil(), "
                "or train the skills further and compose() them again"
            )
        return super()._setup_learn(*args, **kwargs)
