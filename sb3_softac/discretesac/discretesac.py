"""
Soft Actor-Critic for discrete actions: Christodoulou 2019, arXiv:1910.07207v2.

===========================  =================================================================================
Eq. 10                       soft state value: :mod:`sb3_softac.equations.discrete_sac`
Eq. 8 of 1801.01290v2        Q target: :mod:`sb3_softac.equations.bellman`
Eq. 7 of 1801.01290v2        Q loss: :mod:`sb3_softac.equations.bellman`
Eq. 11                       learned temperature: :mod:`sb3_softac.equations.temperature`
Eq. 12                       policy loss: :mod:`sb3_softac.equations.discrete_sac`
Algorithm 1 of 2209.10081v4  Q-clip and entropy penalty: :mod:`sb3_softac.equations.stable_discrete_sac`
===========================  =================================================================================

Deviations from the paper, each with its reason, are listed in ``docs/deviations.md``.
"""

from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_softac.algorithm.arguments import EXTENT
from sb3_softac.algorithm.policies import NetworkOfPolicy
from sb3_softac.checks import Argument, keyword_table, number, one_of
from sb3_softac.discrete.discrete_algorithm import DiscreteOffPolicyAlgorithm
from sb3_softac.discrete.networks import smallest_by_state
from sb3_softac.discretesac.policies import CnnPolicy, DiscreteSACPolicy, MlpPolicy, MultiInputPolicy
from sb3_softac.entropy.temperature import Bounds
from sb3_softac.equations.bellman import q_loss, soft_bellman_target
from sb3_softac.equations.discrete_sac import policy_entropy, policy_loss, soft_state_value
from sb3_softac.equations.stable_discrete_sac import clipped_q_loss, entropy_penalty
from sb3_softac.replay.batch import Batch

POSITIVE = number("a finite number greater than 0 (leave it out to disable it)", lambda value: value > 0.0)


class DiscreteSAC(DiscreteOffPolicyAlgorithm):
    """
    Soft Actor-Critic for Discrete, MultiDiscrete and MultiBinary actions, with action masks (arXiv:1910.07207).

    Everything that SB3's SAC accepts means the same here, except for gSDE and action noise, which discrete actions do not
    have. If the environment has a method ``action_masks()`` (sb3-contrib's protocol), invalid actions are never chosen during
    training and are left out of expectations. Logged under ``train/``: ``actor_loss``, ``critic_loss``, ``ent_coef``,
    ``ent_coef_loss`` (if learned), ``entropy`` (nats), ``entropy_ratio``, ``target_entropy_ratio`` (of the largest entropy),
    ``q_mean`` (units of reward), ``entropy_penalty`` (if used), ``n_updates``, ``learning_rate``.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a policy class.
    :param env: Environment with discrete actions, or its registered name.
    :param learning_rate: Learning rate of all networks and of a learned temperature, or a schedule of the remaining progress.
    :param buffer_size: Number of transitions in the replay buffer.
    :param learning_starts: Environment steps before the first gradient step.
    :param batch_size: Number of transitions per gradient step.
    :param tau: Weight in [0, 1] of the critics in each update of their target.
    :param gamma: Discount factor.
    :param train_freq: Environment steps between two rounds of gradient steps, or a tuple such as ``(1, "episode")``.
    :param gradient_steps: Gradient steps per round; -1 for one per environment step.
    :param replay_buffer_class: Replay buffer, e.g. ``HerReplayBuffer``. Action masks and the entropy penalty need the default.
    :param replay_buffer_kwargs: Its keyword arguments.
    :param optimize_memory_usage: Whether to use SB3's memory-efficient variant of the replay buffer.
    :param n_steps: Number of rewards in the Q target before it bootstraps. The entropies of the steps in between are left
        out, so targets of different lengths agree only for ``critic_ent_coef_scale=0``.
    :param ent_coef: Temperature alpha: ``"auto"`` or ``"auto_0.1"`` (learned, starting at 1 or 0.1), a number greater than 0,
        ``"lin_0.2"`` (falling linearly to a thousandth of 0.2), or a schedule of the remaining progress.
    :param target_update_interval: Gradient steps between two updates of the target, counted over the whole training.
    :param target_entropy: Target entropy for a learned temperature: ``"auto"`` for the paper's 0.98 log|A|, ``"ratio_0.5"``
        for 0.5 log|A|, a number of nats, or a schedule as a dictionary, ``dict(schedule="linear", start=0.98, end=0.3)`` or
        ``dict(schedule="drop", start=0.98)`` (:mod:`sb3_softac.entropy.target_entropy` has all options). Branches are
        summed, and only allowed actions are counted.
    :param ent_coef_bounds: Smallest and largest value of a learned temperature, each may be None; None for no bounds.
    :param critic_ent_coef_scale: Factor in [0, 1] of the entropy in the Q target: 1 is the paper, 0 the decoupled critic of
        arXiv:2509.09838.
    :param q_aggregation: How the critics are combined in the Q target and the policy loss: ``"min"`` (paper) or ``"mean"``
        (arXiv:2209.10081).
    :param stable_kwargs: The stabilisers of arXiv:2209.10081, by name: ``q_clip``, the bound at which changes of a Q-value are
        clipped, relative to the root mean square of the targets; ``entropy_penalty``, the weight of the squared change of
        entropy.
    :param stats_window_size: Episodes over which the rollout statistics are averaged.
    :param tensorboard_log: Folder of the TensorBoard logs.
    :param policy_kwargs: Keyword arguments of the policy.
    :param verbose: 0 for no output, 1 for information, 2 for debugging.
    :param seed: Seed of all random number generators.
    :param device: Device of the networks.
    :param random_steps: Environment steps with uniform actions at the start; None for ``learning_starts``.
    :param cuda_graphs: Whether to run gradient steps as CUDA graphs, on a GPU: the same results in less time.
    :param _init_setup_model: Whether to build the networks at once.
    :raises ValueError: if an argument is out of its range.
    :raises AssertionError: if the action space is not discrete.
    """

    policy_aliases: ClassVar = dict(MlpPolicy=MlpPolicy, CnnPolicy=CnnPolicy, MultiInputPolicy=MultiInputPolicy)
    policy_base = DiscreteSACPolicy
    arguments: ClassVar[dict[str, Argument]] = {
        **DiscreteOffPolicyAlgorithm.arguments,
        "critic_ent_coef_scale": EXTENT._replace(expected="a number in [0, 1] (1 is the paper, 0 a critic without entropy)"),
        "q_aggregation": one_of("min", "mean", expected="'min' (the paper) or 'mean'"),
        "stable_kwargs": keyword_table("stable_kwargs", {"q_clip": POSITIVE, "entropy_penalty": POSITIVE}),
    }
    trains: ClassVar[dict[str, str]] = {"actor_loss": "actor", "critic_loss": "critic", "entropy_penalty": "actor"}
    targets: ClassVar[dict[str, str]] = {"critic": "critic_target"}
    policy: DiscreteSACPolicy
    actor = NetworkOfPolicy()
    critic = NetworkOfPolicy()
    critic_target = NetworkOfPolicy()

    def __init__(
        self,
        policy: str | type[DiscreteSACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        ent_coef: str | float | Schedule = "auto",
        target_update_interval: int = 1,
        target_entropy: str | float | dict[str, Any] = "auto",
        ent_coef_bounds: Bounds | None = None,
        critic_ent_coef_scale: float = 1.0,
        q_aggregation: str = "min",
        stable_kwargs: dict[str, float] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        random_steps: int | None = None,
        cuda_graphs: bool = False,
        _init_setup_model: bool = True,
    ):
        self.critic_ent_coef_scale = critic_ent_coef_scale
        self.q_aggregation = q_aggregation
        self.stable_kwargs: dict[str, float] = stable_kwargs  # type: ignore[assignment]  # read by the base
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
        """Algorithm 1, arXiv:1910.07207v2: the gradients of all networks at the same parameters, then one step."""
        alpha = self.temperature.alpha
        masks, next_masks = batch.extras.get("action_masks"), batch.extras.get("next_action_masks")

        features = self.critic.features(batch.obs)
        q = self.critic.q_values(features)
        own_features = features.detach() if self.policy.share_features_extractor else self.actor.features(batch.obs)
        log_pi = self.actor.log_probs(own_features, masks)
        entropy = policy_entropy(log_pi)  # Eq. 10
        max_entropy = self._max_entropies(entropy, masks)
        with th.no_grad():
            log_pi_next = self.actor.log_probs(self.actor.features(batch.next_obs), next_masks)
            q_next = self._aggregate(self.critic_target(batch.next_obs), log_pi_next)
            v_next = soft_state_value(q_next, log_pi_next, self.critic_ent_coef_scale * alpha)  # Eq. 10
            q_target = soft_bellman_target(batch.rewards, batch.dones, v_next, batch.discounts)  # Eq. 8 of 1801.01290v2

        losses = {
            "actor_loss": policy_loss(log_pi, self._aggregate(q.detach(), log_pi.detach()), alpha),  # Eq. 12
            "critic_loss": self._critic_loss(q, q_target, batch),  # Eq. 7 of 1801.01290v2
            **self._entropy_penalty(entropy, batch),  # Algorithm 1 of 2209.10081v4
            **self.temperature.losses(-entropy, self.entropy_target.ratio * max_entropy),  # Eq. 11
        }
        self._minimize(losses)
        return {**losses, "ent_coef": alpha, **self._entropy_logs(entropy, max_entropy), "q_mean": q_target.mean()}

    def _buffer_columns(self) -> dict[str, tuple[tuple[int, ...], type]]:
        own = {"old_entropy": ((), np.float32)} if "entropy_penalty" in self.stable_kwargs else {}
        return {**super()._buffer_columns(), **own}

    def _follow_arguments(self) -> None:
        super()._follow_arguments()
        if "entropy_penalty" in self.stable_kwargs and "old_entropy" not in self._kept_columns():
            raise ValueError(
                "The entropy penalty needs the entropies of the policy that collected the data; the replay buffer does not "
                "contain them: load() the saved model with these stable_kwargs, to start with an empty replay buffer, or "
                "leave the penalty out"
            )

    def _aggregate(self, q: th.Tensor, log_pi: th.Tensor) -> th.Tensor:
        """:return: One Q-value per action ``[batch, n]`` from those of the critics ``[n_critics, batch, n]``."""
        if self.q_aggregation == "mean":
            return q.mean(dim=0)
        if len(self.branches.sizes) == 1:
            return q.amin(dim=0)
        return smallest_by_state(q, soft_state_value(q, log_pi.expand_as(q), 0.0))

    def _critic_loss(self, q: th.Tensor, q_target: th.Tensor, batch: Batch) -> th.Tensor:
        q_taken = self._q_taken(q, batch)
        if "q_clip" not in self.stable_kwargs:
            return q_loss(q_taken, q_target)
        with th.no_grad():
            q_old = self._q_taken(self.critic_target(batch.obs), batch)
        # Relative, because Q-values are as large as rewards and discount make them; the paper's rewards are clipped to 1
        clip_range = self.stable_kwargs["q_clip"] * q_target.square().mean().sqrt()
        return clipped_q_loss(q_taken, q_old, q_target, clip_range)

    def _entropy_penalty(self, entropy: th.Tensor, batch: Batch) -> dict[str, th.Tensor]:
        weight = self.stable_kwargs.get("entropy_penalty")
        return {} if weight is None else {"entropy_penalty": weight * entropy_penalty(entropy, batch.extras["old_entropy"])}
