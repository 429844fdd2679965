"""
Soft Q-learning: Haarnoja et al. 2017, arXiv:1702.08165v2.

===========================  =================================================================================
Eq. 10                       soft state value by importance sampling: :mod:`sb3_softac.equations.soft_q`
Eq. 11                       soft Bellman residual: :mod:`sb3_softac.equations.bellman`, ``.bellman.q_loss``
Eq. 13, 14                   Stein variational gradient of the sampler: :mod:`sb3_softac.equations.stein`
Eq. 18 of 1812.05905v2       learned temperature (``ent_coef="auto"``): :mod:`sb3_softac.equations.temperature`
===========================  =================================================================================

Deviations from the paper and from the authors' code, each with its reason, are listed in ``docs/deviations.md``.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from stable_baselines3.common.utils import update_learning_rate

from sb3_softac.algorithm.arguments import check_learning_rate
from sb3_softac.algorithm.network_checks import require_gradients
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.algorithm.policies import NetworkOfPolicy
from sb3_softac.checks import Argument, Refused, integer, is_number, one_of, read, shown
from sb3_softac.entropy.temperature import Bounds, Temperature
from sb3_softac.equations.bellman import q_loss, soft_bellman_target
from sb3_softac.equations.soft_q import (
    effective_sample_size,
    importance_sampled_soft_value,
    mean_of_continuing,
    soft_policy_entropy,
)
from sb3_softac.equations.stein import sampler_loss, svgd_direction, unsquashed_score
from sb3_softac.replay.batch import Batch
from sb3_softac.sql.composition import ComposedPolicy, SkillObservations, check_skills, read_weights
from sb3_softac.sql.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, SQLPolicy
from sb3_softac.sql.proposal import FITTED_PARTICLES, mixture_proposal, uniform_proposal

SelfSQL = TypeVar("SelfSQL", bound="SQL")


class SQL(SoftOffPolicyAlgorithm):
    """
    Soft Q-learning: soft Q-functions learned from the soft Bellman equation, and a sampler trained to draw from exp(Q / alpha)
    (arXiv:1702.08165).

    Everything that SB3's SAC accepts means the same here, except for gSDE, which a sampler does not have. Logged under
    ``train/``: ``actor_loss`` (only its gradient has a meaning), ``critic_loss``, ``ent_coef``, ``ent_coef_loss`` (if
    learned), ``entropy`` (nats, of exp(Q / alpha), at the observations if the temperature is learned, else at the next ones),
    ``effective_sample_size`` (of the value particles), ``particle_spread`` (standard deviation of the sampler's actions),
    ``q_mean``, ``v_mean`` (units of reward), ``n_updates``, ``learning_rate``. ``effective_sample_size``,
    ``v_mean`` and the entropy at the next observations leave out terminal states; if all are terminal, 0 is logged.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a policy class.
    :param env: Environment with a bounded Box action space, or its registered name.
    :param learning_rate: Learning rate of all networks and of a learned temperature, or a schedule of the remaining progress.
    :param buffer_size: Number of transitions in the replay buffer.
    :param learning_starts: Environment steps before the first gradient step.
    :param batch_size: Number of transitions per gradient step.
    :param tau: Weight in [0, 1] of the Q-functions in each update of their target.
    :param gamma: Discount factor.
    :param train_freq: Environment steps between two rounds of gradient steps, or a tuple such as ``(1, "episode")``.
    :param gradient_steps: Gradient steps per round; -1 for one per environment step.
    :param action_noise: Noise added to the actions during training.
    :param replay_buffer_class: Replay buffer, e.g. ``HerReplayBuffer``.
    :param replay_buffer_kwargs: Its keyword arguments.
    :param optimize_memory_usage: Whether to use SB3's memory-efficient variant of the replay buffer.
    :param n_steps: Number of rewards in the Q target before it bootstraps. The entropies of the steps in between are left out.
    :param ent_coef: Temperature alpha: a number greater than 0 (the inverse of the paper's reward scale), ``"auto"`` or
        ``"auto_0.1"`` (learned, starting at 1 or 0.1), ``"lin_0.2"`` (falling linearly to a thousandth of 0.2), or a schedule
        of the remaining progress.
    :param target_update_interval: Gradient steps between two updates of the target, counted over the whole training; 1000 with
        ``tau=1`` is the paper's hard copy.
    :param target_entropy: Target entropy in nats for a learned temperature; ``"auto"`` is minus the number of
        action dimensions.
    :param kernel_particles: Actions per state for the Stein variational gradient, at least 4; one half stands for the
        sampler's density, the other half is moved.
    :param value_particles: Actions per state for the soft value, at least 2.
    :param proposal: Where they come from: ``"mixture"``, half uniform, half around the sampler's actions, or ``"uniform"``.
    :param stats_window_size: Episodes over which the rollout statistics are averaged.
    :param tensorboard_log: Folder of the TensorBoard logs.
    :param policy_kwargs: Keyword arguments of the policy.
    :param verbose: 0 for no output, 1 for information, 2 for debugging.
    :param seed: Seed of all random number generators.
    :param device: Device of the networks.
    :param random_steps: Environment steps with uniform actions at the start; None for ``learning_starts``.
    :param ent_coef_bounds: Smallest and largest value of a learned temperature, each may be None; None for no bounds.
    :param cuda_graphs: Whether to run gradient steps as CUDA graphs, on a GPU: the same results in less time.
    :param _init_setup_model: Whether to build the networks at once.
    :raises ValueError: if an argument is out of its range.
    :raises AssertionError: if the action space is not a bounded Box.
    """

    policy_aliases: ClassVar = dict(MlpPolicy=MlpPolicy, CnnPolicy=CnnPolicy, MultiInputPolicy=MultiInputPolicy)
    own_policies: ClassVar[dict[str, type[BasePolicy]]] = {"ComposedPolicy": ComposedPolicy}
    policy_base = SQLPolicy
    arguments: ClassVar[dict[str, Argument]] = {
        **SoftOffPolicyAlgorithm.arguments,
        "kernel_particles": integer(4, " (half of them stand for the sampler's density, half are moved)"),
        "value_particles": integer(2),
        "proposal": one_of("mixture", "uniform", expected="'mixture' or 'uniform' (the paper)"),
    }
    trains: ClassVar[dict[str, str]] = {"actor_loss": "actor", "critic_loss": "critic"}
    targets: ClassVar[dict[str, str]] = {"critic": "critic_target"}
    policy: SQLPolicy
    actor = NetworkOfPolicy()
    critic = NetworkOfPolicy()
    critic_target = NetworkOfPolicy()

    def __init__(
        self,
        policy: str | type[SQLPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 128,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        ent_coef: str | float | Schedule = 1.0,
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        kernel_particles: int = 16,
        value_particles: int = 32,
        proposal: str = "mixture",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        random_steps: int | None = None,
        ent_coef_bounds: Bounds | None = None,
        cuda_graphs: bool = False,
        _init_setup_model: bool = True,
    ):
        self.kernel_particles = kernel_particles
        self.value_particles = value_particles
        self.proposal = proposal
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            ent_coef=ent_coef,
            ent_coef_bounds=ent_coef_bounds,
            target_update_interval=target_update_interval,
            target_entropy=target_entropy,
            sde_support=False,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            random_steps=random_steps,
            cuda_graphs=cuda_graphs,
            _init_setup_model=_init_setup_model,
        )

    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """Algorithm 1, arXiv:1702.08165v2: the gradients of Q-functions and sampler at the same parameters, then one step."""
        obs, alpha = batch.obs, self.temperature.alpha

        with th.no_grad():
            actions_next, log_proposal = self._propose(batch.next_obs)
            next_features = self.critic_target.features(batch.next_obs)
            q_next = self.critic_target.q_particles(next_features, actions_next).amin(dim=0)
            v_next = importance_sampled_soft_value(q_next, log_proposal, alpha)  # Eq. 10
            q_target = soft_bellman_target(batch.rewards, batch.dones, v_next, batch.discounts)  # Eq. 11
        features = self.critic.features(obs)
        q = self.critic.q_values(features, batch.actions)

        actor_loss, spread = self._sampler_loss(obs, features, alpha)  # Eq. 13, 14
        if self.temperature.optimizer is None:
            entropy = mean_of_continuing(soft_policy_entropy(q_next, log_proposal, alpha), batch.dones)
        else:
            entropy = self._mean_entropy(obs, features, alpha)
        losses = {
            "actor_loss": actor_loss,
            "critic_loss": q_loss(q, q_target),  # Eq. 11
            **self.temperature.losses(-entropy, self.entropy_target.nats),  # Eq. 18, arXiv:1812.05905v2
        }
        self._minimize(losses)
        sample_size = effective_sample_size(q_next, log_proposal, alpha)
        diagnostics = {
            "ent_coef": alpha,
            "entropy": entropy,
            "effective_sample_size": mean_of_continuing(sample_size, batch.dones),
            "particle_spread": spread,
            "q_mean": q.mean(),
            "v_mean": mean_of_continuing(v_next, batch.dones),
        }
        return {**losses, **diagnostics}

    @th.no_grad()
    def _mean_entropy(self, obs: PyTorchObs, features: th.Tensor, alpha: th.Tensor) -> th.Tensor:
        """:return: Mean entropy where the agent acted: in terminal next states the Q-functions are never trained."""
        actions, log_proposal = self._propose(obs)
        q = self.critic.q_particles(features, actions).amin(dim=0)
        return soft_policy_entropy(q, log_proposal, alpha).mean()

    def _propose(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """:return: Value particles ``[batch, m, action_dim]`` in (-1, 1) and their log-densities ``[batch, m]``, in nats."""
        features = self.actor.features(obs)
        if self.proposal == "uniform":
            return uniform_proposal(len(features), self.value_particles, self.actor.action_dim, self.device)
        return mixture_proposal([self.actor.particles(features, FITTED_PARTICLES)], self.value_particles)

    def _sampler_loss(self, obs: PyTorchObs, features: th.Tensor, alpha: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """:return: The loss of the sampler, and the standard deviation of its actions."""
        own_features = self.actor.features(obs)
        n_fixed = self.kernel_particles // 2
        with th.no_grad():
            fixed = self.actor.particles(own_features, n_fixed)
        updated = self.actor.particles(own_features, self.kernel_particles - n_fixed)
        actions = fixed.tanh().requires_grad_(True)
        q = self.critic.q_particles(features, actions).amin(dim=0)
        (q_gradient,) = th.autograd.grad(q.sum(), actions)
        direction = svgd_direction(fixed, updated, unsquashed_score(q_gradient, fixed, alpha))
        return sampler_loss(updated, direction), actions.detach().std(dim=1).mean()

    @classmethod
    def compose(
        cls: type[SelfSQL],
        models: Sequence[SelfSQL],
        weights: str | Sequence[float] = "mean",
        ent_coef: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> SelfSQL:
        """
        Make a model that acts by a weighted sum of soft Q-functions (arXiv:1803.06773): their mean approximates the soft
        Q-function of the mean reward. It acts without training; :meth:`distil` makes it faster.

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
        if "env" in kwargs:
            raise Refused("compose() makes a model without an environment: give it one with set_env() afterwards")
        members = [{"policy_class": type(model.policy), **model.policy_kwargs} for model in models]
        extractor = ("features_extractor_class", "features_extractor_kwargs", "normalize_images")
        inherited = {name: getattr(first.policy, name) for name in extractor}
        if "features_extractor_class" in (policy_kwargs or {}):
            del inherited["features_extractor_kwargs"]
        own = {"members": members, "weights": numbers, "temperature": temperature}
        composed = cls(
            ComposedPolicy,
            None,  # type: ignore[arg-type]
            ent_coef=temperature,
            policy_kwargs={**inherited, **(policy_kwargs or {}), **own},
            _init_setup_model=False,
            **{"buffer_size": 1, "device": first.device, **kwargs},
        )
        composed.observation_space, composed.action_space = first.observation_space, first.action_space
        composed.n_envs, composed._vec_normalize_env = 1, first._vec_normalize_env
        composed._setup_model()
        policy = composed.policy
        assert isinstance(policy, ComposedPolicy)
        for critic, actor, model in zip(policy.critic.critics, policy.skill_actors, models, strict=True):  # type: ignore[arg-type]
            critic.load_state_dict(model.policy.critic.state_dict())
            actor.load_state_dict(model.policy.actor.state_dict())
        return composed

    def distil(self, replay_buffers: Sequence[ReplayBuffer], gradient_steps: int, batch_size: int | None = None) -> None:
        """
        Train the sampler of a composed model on stored observations, without an environment; afterwards the model acts with
        it.

        Observations are normalized as for the first skill (for a loaded model: as in the environment of ``set_env``).

        :param replay_buffers: Replay buffers of the skills; each is sampled in proportion to its number of transitions.
        :param gradient_steps: Number of gradient steps, at least 1.
        :param batch_size: Number of observations per step, at least 1; by default that of the model.
        :raises ValueError: if this is no composed model, an argument is out of its range, there are no transitions, or a loss
            is not finite.
        :raises RuntimeError: if gradients are switched off.
        """
        require_gradients()
        self._follow_arguments()
        policy = self.policy
        if not isinstance(policy, ComposedPolicy):
            raise ValueError("distil() trains the sampler of a composed model: create one with SQL.compose()")
        gradient_steps = read("gradient_steps", gradient_steps, integer(1))
        batch_size = read("batch_size", self.batch_size if batch_size is None else batch_size, integer(1))
        observations = SkillObservations(replay_buffers, self.observation_space)
        update_learning_rate(policy.optimizer, check_learning_rate(self.lr_schedule, self._current_progress_remaining))
        self.prepare_networks()
        self._finite.fill_(1.0)
        for _ in range(gradient_steps):
            obs = observations.sample(batch_size, self._vec_normalize_env, self.device)
            loss, _ = self._sampler_loss(obs, self.critic.features(obs), self.temperature.alpha)
            self._minimize({"actor_loss": loss})
        policy.set_training_mode(False)
        if not self._finite:
            raise ValueError("A loss was not finite while distilling: look for NaN in the replay buffers' observations")
        policy.act_by_sampler(True)

    def _make_temperature(self) -> Temperature:
        temperature = super()._make_temperature()
        if isinstance(self.policy, ComposedPolicy):
            self.policy.temperature = float(temperature.alpha)
        return temperature

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._refuse_composed()
        return super()._setup_learn(*args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        self._refuse_composed()
        super().train(gradient_steps, batch_size)

    def _refuse_composed(self) -> None:
        if isinstance(self.policy, ComposedPolicy):
            raise ValueError(
                "A composed model has no Q-function of its own that learn() could train: train its sampler with distil(), "
                "or train the skills further and compose() them again"
            )
