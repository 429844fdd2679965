"""
Soft Actor-Critic as first published: Haarnoja et al. 2018, arXiv:1801.01290v2 (ICML version).

===========================  =================================================================================
Eq. 3, 5                     V target and V loss: :mod:`sb3_softac.equations.softac_v1`
Eq. 7, 8                     Q loss and Q target: :mod:`sb3_softac.equations.bellman`
Eq. 12                       policy loss: :mod:`sb3_softac.equations.softac_v1`
Algorithm 1 of 1801.01290v1  policy loss by the likelihood ratio: :mod:`sb3_softac.equations.softac_v1`
Eq. 21                       density of squashed actions: :mod:`sb3_softac.equations.squashing`
Eq. 18 of 1812.05905v2       learned temperature (``ent_coef="auto"``): :mod:`sb3_softac.equations.temperature`
===========================  =================================================================================

Deviations from the paper and from the authors' code, each with its reason, are listed in ``docs/deviations.md``.
"""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_softac.algorithm.arguments import ARGUMENTS, merged, parameters_of
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.algorithm.policies import NetworkOfPolicy
from sb3_softac.checks import BOOLEAN, Argument, differs, one_of, shown
from sb3_softac.entropy.temperature import Bounds, FixedTemperature, Temperature
from sb3_softac.equations.bellman import q_loss, soft_bellman_target
from sb3_softac.equations.softac_v1 import soft_value_target, value_loss
from sb3_softac.nets.mixture import SquashedMixtureActor
from sb3_softac.replay.batch import Batch
from sb3_softac.softac_v1.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, SoftACPolicy, check_distribution_kwargs


def _is_zero(ent_coef: Any) -> bool:
    return isinstance(ent_coef, int | float | str) and ent_coef is not False and ent_coef in (0, "0", "0.0")


class SoftAC_v1(SoftOffPolicyAlgorithm):
    """
    Soft Actor-Critic with a state-value network, twin soft Q-functions and a squashed Gaussian actor (arXiv:1801.01290).

    What SB3's SAC accepts means the same here, except for what the page on deviations lists; only ``ent_coef`` has a
    different default. Additional arguments are ``random_steps``, ``actor_q``, ``n_critics``, ``reparameterize``,
    ``ent_coef_bounds`` and ``cuda_graphs``. Logged under ``train/``: ``actor_loss``, ``critic_loss``, ``value_loss``,
    ``ent_coef``, ``ent_coef_loss`` (if learned), ``entropy`` (nats), ``q_mean``, ``v_mean`` (units of reward), ``n_updates``,
    ``learning_rate``.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a policy class.
    :param env: Environment with a bounded Box action space, or its registered name.
    :param learning_rate: Learning rate of all networks and of a learned temperature, or a schedule of the remaining progress.
    :param buffer_size: Number of transitions in the replay buffer.
    :param learning_starts: Environment steps before the first gradient step.
    :param batch_size: Number of transitions per gradient step.
    :param tau: Weight in [0, 1] of V in each update of its target.
    :param gamma: Discount factor.
    :param train_freq: Environment steps between two rounds of gradient steps, or a tuple such as ``(1, "episode")``.
    :param gradient_steps: Gradient steps per round; -1 for one per environment step.
    :param action_noise: Noise added to the actions during training.
    :param replay_buffer_class: Replay buffer, e.g. ``HerReplayBuffer``.
    :param replay_buffer_kwargs: Its keyword arguments.
    :param optimize_memory_usage: Whether to use SB3's memory-efficient variant of the replay buffer.
    :param n_steps: Number of rewards in the Q target before it bootstraps. The entropies of the steps in between are left out,
        as in SB3's SAC.
    :param ent_coef: Temperature alpha: a number greater than 0 (default 0.2, the paper's reward scale 5), ``"auto"`` or
        ``"auto_0.1"`` (learned, starting at 1 or 0.1), ``"lin_0.2"`` (falling linearly to a thousandth of 0.2), or a schedule
        of the remaining progress; 0 for the paper's deterministic variant, with
        ``policy_kwargs=dict(distribution="deterministic")`` and ``action_noise``.
    :param target_update_interval: Gradient steps between two updates of the target of V, counted over the whole training.
        1000 with ``tau=1`` and ``gradient_steps=4`` is the paper's hard-target variant.
    :param target_entropy: Target entropy in nats for a learned temperature; ``"auto"`` is minus the number of
        action dimensions.
    :param use_sde: Whether to explore with state-dependent noise (gSDE).
    :param sde_sample_freq: Steps between two draws of the gSDE noise matrix; -1 for one draw per rollout.
    :param use_sde_at_warmup: Whether to use gSDE instead of uniform actions during the first ``random_steps``.
    :param stats_window_size: Episodes over which the rollout statistics are averaged.
    :param tensorboard_log: Folder of the TensorBoard logs.
    :param policy_kwargs: Keyword arguments of the policy.
    :param verbose: 0 for no output, 1 for information, 2 for debugging.
    :param seed: Seed of all random number generators.
    :param device: Device of the networks.
    :param random_steps: Environment steps with uniform actions at the start; None for ``learning_starts``.
    :param actor_q: Q-value in the policy loss: ``"min"`` over the critics (paper) or that of the ``"first"`` (authors' code).
    :param n_critics: Number of soft Q-functions, at least 1; may also be given in ``policy_kwargs``, as in SB3.
    :param ent_coef_bounds: Smallest and largest value of a learned temperature, each may be None; None for no bounds.
    :param cuda_graphs: Whether to run gradient steps as CUDA graphs, on a GPU: the same results in less time.
    :param reparameterize: Whether to differentiate the policy loss through the sampled actions (ICML version); if not, the
        likelihood ratio is used, with V as a baseline (first version, arXiv:1801.01290v1).
    :param _init_setup_model: Whether to build the networks at once.
    :raises ValueError: if an argument is out of its range.
    :raises AssertionError: if the action space is not a bounded Box.
    """

    policy_aliases: ClassVar = dict(MlpPolicy=MlpPolicy, CnnPolicy=CnnPolicy, MultiInputPolicy=MultiInputPolicy)
    policy_base = SoftACPolicy
    arguments: ClassVar[dict[str, Argument]] = {
        **SoftOffPolicyAlgorithm.arguments,
        "actor_q": one_of("min", "first", expected="'min' (the paper) or 'first' (the authors' code)"),
        "reparameterize": BOOLEAN,
        "ent_coef": Argument(
            ARGUMENTS["ent_coef"].expected, lambda value: value if _is_zero(value) else ARGUMENTS["ent_coef"].read(value)
        ),
    }
    trains: ClassVar[dict[str, str]] = {"actor_loss": "actor", "critic_loss": "critic", "value_loss": "value_net"}
    targets: ClassVar[dict[str, str]] = {"value_net": "value_net_target"}
    policy: SoftACPolicy
    actor = NetworkOfPolicy()
    critic = NetworkOfPolicy()
    value_net = NetworkOfPolicy()
    value_net_target = NetworkOfPolicy()

    def __init__(
        self,
        policy: str | type[SoftACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        ent_coef: str | float | Schedule = 0.2,
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        random_steps: int | None = None,
        actor_q: str = "min",
        n_critics: int = 2,
        ent_coef_bounds: Bounds | None = None,
        cuda_graphs: bool = False,
        reparameterize: bool = True,
        _init_setup_model: bool = True,
    ):
        self.actor_q, self.reparameterize = actor_q, reparameterize
        twice = isinstance(policy_kwargs, dict) and "n_critics" in policy_kwargs
        if twice and differs(n_critics, 2) and differs(n_critics, policy_kwargs["n_critics"]):  # type: ignore[index]
            raise ValueError(f"n_critics={shown(n_critics)} and policy_kwargs={shown(policy_kwargs)} differ: give only one")
        # A user's policy need not have this argument
        names, accepts_others = parameters_of(policy) if isinstance(policy, type) else ({}, True)
        is_given = accepts_others or "n_critics" in names or differs(n_critics, 2)
        of_policy = {"n_critics": n_critics} if is_given else {}
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
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=merged(of_policy, policy_kwargs),
            verbose=verbose,
            seed=seed,
            device=device,
            random_steps=random_steps,
            cuda_graphs=cuda_graphs,
            _init_setup_model=_init_setup_model,
        )

    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """Algorithm 1, arXiv:1801.01290v2: the gradients of all networks at the same parameters, then one step."""
        if self.use_sde:
            self.actor.reset_noise()
        alpha = self.temperature.alpha

        # One sample serves the V target and the policy loss
        sample = self.actor.sample(batch.obs, self.reparameterize)  # Eq. 11, 21
        features = self.critic.features(batch.obs)
        q = self.critic.q_values(features, batch.actions)
        q_pi = self.critic.q_values(features.detach(), sample.actions)
        q_pi_min = q_pi.amin(dim=0)
        v = self.value_net(batch.obs).squeeze(1)
        with th.no_grad():
            v_target = sample.mean(soft_value_target(q_pi_min, sample.log_pi, alpha))  # Eq. 3
            log_pi = sample.mean(sample.log_pi)
            v_next = self.value_net_target(batch.next_obs).squeeze(1)
            q_target = soft_bellman_target(batch.rewards, batch.dones, v_next, batch.discounts)  # Eq. 8

        losses = {
            "actor_loss": sample.policy_loss(q_pi_min if self.actor_q == "min" else q_pi[0], v, alpha),  # Eq. 12
            "critic_loss": q_loss(q, q_target),  # Eq. 7
            "value_loss": value_loss(v, v_target),  # Eq. 5
            **self.temperature.losses(log_pi, self.entropy_target.nats),  # Eq. 18 of 1812.05905v2
        }
        self._minimize(losses)
        diagnostics = {"ent_coef": alpha, "entropy": -log_pi.mean(), "q_mean": q.mean(), "v_mean": v.mean()}
        return {**losses, **diagnostics}

    def _follow_schedules(self, progress_remaining: float) -> None:
        super()._follow_schedules(progress_remaining)
        if isinstance(self.actor, SquashedMixtureActor):
            self.actor.follow_schedule(progress_remaining)

    def _make_temperature(self) -> Temperature:
        self._check_temperature_of(self.policy.distribution)
        none = _is_zero(self.ent_coef) and self.ent_coef_bounds is None
        return FixedTemperature(0.0, self.device) if none else super()._make_temperature()

    def _check_temperature_of(self, distribution: str) -> None:
        """:raises ValueError: if a policy of this distribution cannot have this temperature."""
        if _is_zero(self.ent_coef) is not (distribution == "deterministic"):
            raise ValueError(
                f"ent_coef={self.ent_coef!r} and the policy's distribution={distribution!r} do not go together. A stochastic "
                "policy needs a temperature greater than 0; the deterministic variant needs both ent_coef=0 and "
                "policy_kwargs=dict(distribution='deterministic')"
            )
        if not self.reparameterize and distribution == "deterministic":
            raise ValueError("A deterministic policy has no likelihood ratio: leave out reparameterize=False")

    def _check_ent_coef(self) -> None:
        if not _is_zero(self.ent_coef) or self.ent_coef_bounds is not None:  # 0 is for deterministic policies
            super()._check_ent_coef()

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.policy.distribution == "deterministic" and self.action_noise is None:
            raise ValueError(
                "A deterministic policy explores only by noise: pass action_noise, e.g. NormalActionNoise with a standard "
                "deviation of 0.1 (in RL Zoo noise_type: 'normal', noise_std: 0.1)"
            )
        return super()._setup_learn(*args, **kwargs)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.policy_class.__init__ is SoftACPolicy.__init__:  # else it may have another default
            check_distribution_kwargs(self.policy_kwargs, self.use_sde)
            self._check_temperature_of(self.policy_kwargs.get("distribution", "gaussian"))
