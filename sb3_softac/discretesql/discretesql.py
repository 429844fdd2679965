"""
Soft Q-learning for discrete actions: Haarnoja et al. 2017, arXiv:1702.08165v2, with sums over the actions for its integrals.

=======================  =====================================================================================
Eq. 6                    policy softmax(Q / alpha): :meth:`DiscreteSQLPolicy.log_softmax`
Eq. 5                    soft value alpha log sum exp(Q / alpha): :mod:`sb3_softac.equations.discrete_sac`, whose
                         Eq. 10 of 1910.07207v2 is the same number for this policy
Eq. 7                    Q target: :mod:`sb3_softac.equations.bellman` (Eq. 8 of 1801.01290v2)
Eq. 7 of 1801.01290v2    Q loss: :mod:`sb3_softac.equations.bellman`
Eq. 18 of 1812.05905v2   learned temperature: :mod:`sb3_softac.equations.temperature`
=======================  =====================================================================================

Deviations from the paper, each with its reason, are listed in ``docs/deviations.md``.
"""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_softac.algorithm.policies import NetworkOfPolicy
from sb3_softac.discrete.discrete_algorithm import DiscreteOffPolicyAlgorithm
from sb3_softac.discretesql.policies import CnnPolicy, DiscreteSQLPolicy, MlpPolicy, MultiInputPolicy
from sb3_softac.entropy.temperature import Bounds, Temperature
from sb3_softac.equations.bellman import q_loss, soft_bellman_target
from sb3_softac.equations.discrete_sac import policy_entropy, soft_state_value
from sb3_softac.replay.batch import Batch


class DiscreteSQL(DiscreteOffPolicyAlgorithm):
    """
    Soft Q-learning for Discrete, MultiDiscrete and MultiBinary actions, with action masks (arXiv:1702.08165).

    DQN with the maximum-entropy objective: Q-functions alone, the policy softmax(Q / alpha) and the soft value
    alpha log sum exp(Q / alpha) in the targets. If the environment has a method ``action_masks()`` (sb3-contrib's protocol),
    invalid actions are never chosen during training and are left out of the sums. Logged under ``train/``: ``critic_loss``,
    ``ent_coef``, ``ent_coef_loss`` (if learned), ``entropy`` (nats), ``entropy_ratio``, ``target_entropy_ratio`` (of the
    largest entropy), ``q_mean`` (units of reward), ``n_updates``, ``learning_rate``.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a policy class.
    :param env: Environment with discrete actions, or its registered name.
    :param learning_rate: Learning rate of all networks and of a learned temperature, or a schedule of the remaining progress.
    :param buffer_size: Number of transitions in the replay buffer.
    :param learning_starts: Environment steps before the first gradient step.
    :param batch_size: Number of transitions per gradient step.
    :param tau: Weight in [0, 1] of the Q-functions in each update of their target.
    :param gamma: Discount factor.
    :param train_freq: Environment steps between two rounds of gradient steps, or a tuple such as ``(1, "episode")``.
    :param gradient_steps: Gradient steps per round; -1 for one per environment step.
    :param replay_buffer_class: Replay buffer, e.g. ``HerReplayBuffer``. Action masks need the default.
    :param replay_buffer_kwargs: Its keyword arguments.
    :param optimize_memory_usage: Whether to use SB3's memory-efficient variant of the replay buffer.
    :param n_steps: Number of rewards in the Q target before it bootstraps. The entropies of the steps in between are left
        out, as in SB3's SAC.
    :param ent_coef: Temperature alpha: ``"auto"`` or ``"auto_0.1"`` (learned, starting at 1 or 0.1), a number greater than 0,
        ``"lin_0.2"`` (falling linearly to a thousandth of 0.2), or a schedule of the remaining progress.
    :param target_update_interval: Gradient steps between two updates of the target, counted over the whole training.
    :param target_entropy: Target entropy for a learned temperature: ``"auto"`` for 0.98 log|A|, ``"ratio_0.5"``
        for 0.5 log|A|, a number of nats, or a schedule as a dictionary, ``dict(schedule="linear", start=0.98, end=0.3)`` or
        ``dict(schedule="drop", start=0.98)`` (:mod:`sb3_softac.entropy.target_entropy` has all options). Branches are
        summed, and only allowed actions are counted.
    :param ent_coef_bounds: Smallest and largest value of a learned temperature, each may be None; None for no bounds.
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
    policy_base = DiscreteSQLPolicy
    trains: ClassVar[dict[str, str]] = {"critic_loss": "critic"}
    targets: ClassVar[dict[str, str]] = {"critic": "critic_target"}
    policy: DiscreteSQLPolicy
    critic = NetworkOfPolicy()
    critic_target = NetworkOfPolicy()

    def __init__(
        self,
        policy: str | type[DiscreteSQLPolicy],
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

    def _make_temperature(self) -> Temperature:
        temperature = super()._make_temperature()
        self.policy.alpha.copy_(temperature.alpha)
        return temperature

    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """Algorithm 1, arXiv:1702.08165v2, without its sampling network: sums over the actions are exact."""
        alpha, policy = self.temperature.alpha, self.policy
        policy.alpha.copy_(alpha)
        masks, next_masks = batch.extras.get("action_masks"), batch.extras.get("next_action_masks")

        q = self.critic(batch.obs)
        with th.no_grad():
            q_next = policy.smallest_q(self.critic_target(batch.next_obs), next_masks)
            v_next = soft_state_value(q_next, policy.log_softmax(q_next, next_masks), alpha)  # Eq. 5
            q_target = soft_bellman_target(batch.rewards, batch.dones, v_next, batch.discounts)  # Eq. 7
            entropy = policy_entropy(policy.log_softmax(policy.smallest_q(q, masks), masks))
            max_entropy = self._max_entropies(entropy, masks)

        losses = {
            "critic_loss": q_loss(self._q_taken(q, batch), q_target),  # Eq. 7 of 1801.01290v2
            **self.temperature.losses(-entropy, self.entropy_target.ratio * max_entropy),  # Eq. 18 of 1812.05905v2
        }
        self._minimize(losses)
        policy.alpha.copy_(self.temperature.alpha)
        return {**losses, "ent_coef": alpha, **self._entropy_logs(entropy, max_entropy), "q_mean": q_target.mean()}
