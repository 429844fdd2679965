"""The train loop that all algorithms of the package share."""

import warnings
from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, GymEnv, MaybeCallback, ReplayBufferSamples, Schedule
from stable_baselines3.common.utils import get_parameters_by_name, obs_as_tensor

from sb3_softac.common.buffers import SoftReplayBuffer, SoftReplayBufferSamples
from sb3_softac.common.optimizers import step_if
from sb3_softac.common.temperature import AutoTemperature, Temperature, make_temperature
from sb3_softac.cuda.graph_steps import GraphSteps
from sb3_softac.cuda.graphs import CudaEngine

# Launches of gradient steps whose logs may wait on the device
MAX_DEFERRED = 1_000

SelfSoftOffPolicy = TypeVar("SelfSoftOffPolicy", bound="SoftOffPolicyAlgorithm")
Batch = ReplayBufferSamples | DictReplayBufferSamples | SoftReplayBufferSamples


class SoftOffPolicyAlgorithm(OffPolicyAlgorithm):
    """
    Base of the maximum-entropy algorithms: temperature, targets, finite check and logging around one ``_update``.

    A subclass gives the losses of one gradient step in :meth:`_update`, the networks that have targets in
    :meth:`_target_pairs` and the entropy that a learned temperature aims at in :meth:`_setup_target_entropy`.

    :param policy: Policy class, or its name.
    :param env: Environment, or its registered name; None only while loading.
    :param learning_rate: Learning rate, or its schedule.
    :param ent_coef: Temperature: a number greater than 0, ``"auto"``, ``"auto_<initial value>"``, or a schedule.
    :param target_entropy: Entropy that a learned temperature holds the policy at, or ``"auto"``.
    :param tau: Weight in (0, 1] of the network in each update of its target; 1 copies it.
    :param target_update_interval: Gradient steps between two target updates, counted over the whole training.
    :param random_steps: Environment steps with uniform actions at the start; None for ``learning_starts``.
    :param policy_kwargs: Keyword arguments of the policy; the caller's dictionary is not changed.
    :param verbose: 0 for no output, 1 for information, 2 for debugging.
    :param _init_setup_model: Whether to build the networks at once.
    :param off_policy_kwargs: Further arguments of SB3's ``OffPolicyAlgorithm``.
    """

    temperature: Temperature
    ent_coef_bounds: tuple[float, float] | None = None

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        ent_coef: str | float | Schedule,
        target_entropy: str | float | dict[str, Any],
        tau: float,
        target_update_interval: int,
        random_steps: int | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        _init_setup_model: bool,
        **off_policy_kwargs: Any,
    ):
        if env is not None:
            # SB3 checks the spaces too, but it cannot know which algorithm to recommend instead.
            env = maybe_make_env(env, verbose)
            self._check_action_space(env.action_space)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate,
            tau=tau,
            policy_kwargs=dict(policy_kwargs or {}),
            verbose=verbose,
            support_multi_env=True,
            **off_policy_kwargs,
        )
        self.ent_coef = ent_coef
        self.target_entropy = target_entropy
        self.target_update_interval = target_update_interval
        self.random_steps = random_steps
        if _init_setup_model:
            self._setup_model()

    @abstractmethod
    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """
        Compute the losses of one gradient step and hand them to :meth:`_minimize`.

        :param batch: Sampled transitions.
        :return: Scalars to log, by name, on the device; the same names in every step. The losses are among them.
        """

    @abstractmethod
    def _target_pairs(self) -> list[tuple[th.nn.Module, th.nn.Module]]:
        """:return: Each network that has a target, with its target."""

    @staticmethod
    @abstractmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        """
        :param action_space: Action space of the environment.
        :raises AssertionError: if the algorithm cannot act in it; says what can.
        """

    def _check_arguments(self) -> None:
        """:raises ValueError: if an argument is out of its range."""
        if not 0.0 < self.tau <= 1.0:
            raise ValueError(f"tau must be in (0, 1], got {self.tau}: 1 copies the network, 0.005 is the usual slow average")
        if self.target_update_interval < 1:
            raise ValueError(f"target_update_interval must be at least 1 gradient step, got {self.target_update_interval}")
        if self.random_steps is not None and self.random_steps < 0:
            raise ValueError(f"random_steps must be None (as learning_starts) or at least 0, got {self.random_steps}")

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(f"Policy {policy_name!r} unknown: use one of {sorted(self.policy_aliases)} or a policy class")
        return self.policy_aliases[policy_name]

    def _buffer_columns(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """:return: What the replay buffer has to keep of a transition beyond SB3's columns: shape and dtype by name."""
        return {}

    def _setup_replay_buffer(self) -> None:
        """Choose our replay buffer unless the user has chosen one; SB3 makes it."""
        columns = self._buffer_columns()
        if self.replay_buffer_class in (None, SoftReplayBuffer) and not self.optimize_memory_usage:
            self.replay_buffer_class = SoftReplayBuffer
            ours = {"n_steps": self.n_steps, "gamma": self.gamma, "extras": columns}
            self.replay_buffer_kwargs = {**ours, **self.replay_buffer_kwargs}
        elif columns:
            raise ValueError(
                f"The replay buffer has to keep {sorted(columns)}: leave replay_buffer_class and optimize_memory_usage at "
                "their defaults, or do without action masks and the entropy penalty"
            )

    def _setup_model(self) -> None:
        self._check_arguments()
        given = self.replay_buffer_kwargs
        self._setup_replay_buffer()
        with warnings.catch_warnings():
            if self.replay_buffer_kwargs.get("n_steps") == self.n_steps:
                # SB3 says that n_steps is ignored whenever the buffer's class is given, also for a buffer that heeds it
                warnings.filterwarnings("ignore", message="`n_steps=")
            super()._setup_model()
        self.replay_buffer_kwargs = given  # what the user said: load() adds ours again
        self._setup_target_entropy()
        self.temperature = make_temperature(self.ent_coef, self.device, self.lr_schedule(1), self.ent_coef_bounds)
        self._ok = th.ones((), device=self.device)
        self._log_names: list[str] = []
        self._history: list[th.Tensor] = []
        self._graph_steps = GraphSteps(self, CudaEngine()) if self.device.type == "cuda" else None
        self._optimizers = [self.policy.optimizer]
        if self.temperature.optimizer is not None:
            self._optimizers.append(self.temperature.optimizer)
        pairs = self._target_pairs()
        self._sources: list[th.Tensor] = [parameter for network, _ in pairs for parameter in network.parameters()]
        self._targets: list[th.Tensor] = [parameter for _, target in pairs for parameter in target.parameters()]
        # Running statistics of batch normalisation are copied, not averaged twice (SB3 issue 996)
        self._source_stats = [buffer for network, _ in pairs for buffer in get_parameters_by_name(network, ["running_"])]
        self._target_stats = [buffer for _, target in pairs for buffer in get_parameters_by_name(target, ["running_"])]

    @abstractmethod
    def _setup_target_entropy(self) -> None:
        """Resolve ``self.target_entropy``, which keeps what the user said: :meth:`load` resolves it again."""

    def _target_in_nats(self, auto: float) -> float:
        """
        :param auto: What ``target_entropy="auto"`` stands for, in nats.
        :return: The target entropy in nats.
        :raises ValueError: if ``target_entropy`` is neither ``"auto"`` nor a number.
        """
        if self.target_entropy == "auto":
            return auto
        try:
            return float(self.target_entropy)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(f"target_entropy must be a number of nats or 'auto', got {self.target_entropy!r}") from None

    @property
    def log_ent_coef(self) -> th.Tensor:
        """Logarithm of the temperature, one element: the parameter if it is learned, a copy if not."""
        return self.temperature.log_ent_coef if isinstance(self.temperature, AutoTemperature) else self.temperature.alpha.log()

    @property
    def ent_coef_optimizer(self) -> th.optim.Optimizer | None:
        """Optimizer of a learned temperature; None if the temperature is not learned."""
        return self.temperature.optimizer

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # SB3 ties the uniform actions to the first update; the papers do not.
        random_steps = learning_starts if self.random_steps is None else self.random_steps
        if self.num_timesteps < random_steps and not (self.use_sde and self.use_sde_at_warmup):
            return super()._sample_action(random_steps, action_noise, n_envs)
        # SB3 asks predict(), which checks the observation and switches the networks to evaluation as collect_rollouts() has
        # done already, and scales the action to the environment's range, from where it is scaled back
        assert self._last_obs is not None
        with th.inference_mode():
            scaled = self.policy._predict(obs_as_tensor(self._last_obs, self.device)).cpu().numpy()  # type: ignore[arg-type]
        scaled = scaled.reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
        return self.policy.unscale_action(scaled), scaled

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Do gradient steps on batches from the replay buffer, update the targets and log the means of all losses.

        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :raises ValueError: if a loss is not finite. The parameters are then those of before that gradient step.
        """
        assert self.replay_buffer is not None
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers)
        self._follow_schedules(self._current_progress_remaining)
        if self._graph_steps is not None and self._graph_steps.can_run():
            self._history += self._graph_steps.run(gradient_steps, batch_size)
        else:
            self._history += [self._eager_step(batch_size) for _ in range(gradient_steps)]
        if not self._defer_logs() or len(self._history) >= MAX_DEFERRED:
            self._flush_logs()

    def _eager_step(self, batch_size: int) -> th.Tensor:
        """:return: What a gradient step logs ``[1, n_names]``."""
        assert self.replay_buffer is not None
        logs = self._update(self.replay_buffer.sample(batch_size, env=self._vec_normalize_env))
        self._n_updates += 1
        # Counted over the whole training: SB3's SAC restarts the count at every call, which at one gradient step
        # per call turns every interval into 1.
        if self._n_updates % self.target_update_interval == 0:
            self._update_targets()
        self._log_names = list(logs)
        return th.stack(list(logs.values())).unsqueeze(0)

    def _graph_constants(self) -> tuple[Any, ...]:
        """:return: What :meth:`_update` reads from the host, besides ``gamma``: a graph is captured anew when it changes."""
        return (self.temperature,)

    def _follow_schedules(self, progress_remaining: float) -> None:
        """
        :param progress_remaining: 1 at the start of training, 0 at its end.
        """
        self.temperature.update(progress_remaining)

    def _minimize(self, losses: dict[str, th.Tensor]) -> None:
        """
        One step of all optimizers on the sum of the losses, or none if a loss is not finite.

        The decision stays on the device, so that the host need not wait; :meth:`train` raises afterwards.

        :param losses: Scalar losses by name. Each must leave the parameters of the others' networks without gradient.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        th.autograd.backward([loss for loss in losses.values() if loss.requires_grad])
        self._ok.mul_(th.stack([loss.detach() for loss in losses.values()]).isfinite().all())
        for optimizer in self._optimizers:
            step_if(optimizer, self._ok)
        self.temperature.bound()

    @th.no_grad()
    def _update_targets(self, weight: th.Tensor | float = 1.0) -> None:
        """
        :param weight: 0 to leave the targets as they are.
        """
        # A step that was withheld must not move the targets either.
        weight = weight * self.tau * self._ok
        th._foreach_lerp_(self._targets, self._sources, [weight] * len(self._targets))  # type: ignore[list-item]
        for target, source in zip(self._target_stats, self._source_stats, strict=True):
            target.copy_(source)

    def _defer_logs(self) -> bool:
        """:return: Whether logs stay on the device until they are dumped, so that nobody waits for it."""
        return self.device.type != "cpu"

    def _flush_logs(self) -> None:
        """
        Log the means over all gradient steps since the last time.

        :raises ValueError: if one of the values is not finite.
        """
        if not self._history:
            return
        values = th.cat(self._history).cpu().numpy()  # the only time that the host waits for the device
        self._history = []
        means = values.mean(axis=0, dtype=np.float64)  # in which no sum of finite values overflows
        if not np.isfinite(means).all():
            step, column = np.argwhere(~np.isfinite(values))[0]
            self._ok.fill_(1.0)
            self._n_updates += int(step) - len(values)  # that step and those after it were withheld
            raise ValueError(
                f"{self._log_names[column]} is {values[step, column]} at gradient step {self._n_updates + 1}. "
                "Training stopped; the parameters are those of before this step. Look for NaN or infinite observations and "
                "rewards (SB3's VecCheckNan finds them), then for a learning rate or reward scale that is too large"
            )
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, mean in zip(self._log_names, means.tolist(), strict=True):
            self.logger.record(f"train/{name}", mean)
        self._follow_logs(dict(zip(self._log_names, values.T, strict=True)))

    def _follow_logs(self, logs: dict[str, np.ndarray]) -> None:
        """
        :param logs: Finite values by name ``[gradient_steps]``.
        """

    def dump_logs(self) -> None:
        """Write the log; SB3's ``dump_logs``."""
        self._flush_logs()
        super().dump_logs()

    def learn(
        self: SelfSoftOffPolicy,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfSoftOffPolicy:
        """
        Train the model; SB3's ``learn``.

        :param total_timesteps: Number of environment steps.
        :param callback: Callback or callbacks, called at every step.
        :param log_interval: Episodes between two logs.
        :param tb_log_name: Name of the TensorBoard run, by default that of the class.
        :param reset_num_timesteps: Whether to start counting steps (and the schedules) anew.
        :param progress_bar: Whether to show a progress bar.
        :return: The trained model.
        """
        super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name or type(self).__name__,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
        self._flush_logs()
        return self

    def set_parameters(
        self, load_path_or_dict: str | dict[str, Any], exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        SB3's ``set_parameters``, but for the temperature: whether it is learned is this model's affair, so that a model with a
        learned temperature can be loaded with a fixed or annealed one, and the other way round.

        :param load_path_or_dict: Path of a saved model, or what ``get_parameters`` returned.
        :param exact_match: Whether the parameters of all networks must be there.
        :param device: Device to load to.
        :raises ValueError: if a name is unknown or missing.
        """
        if isinstance(load_path_or_dict, dict):
            params = dict(load_path_or_dict)
        else:
            _, params, _ = load_from_zip_file(load_path_or_dict, device=device, load_data=False)
        if self.ent_coef_optimizer is None:
            params.pop("ent_coef_optimizer", None)
        elif exact_match:
            params.setdefault("ent_coef_optimizer", self.ent_coef_optimizer.state_dict())
        super().set_parameters(params, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        rebuilt = ["temperature", "_optimizers", "_sources", "_targets", "_source_stats", "_target_stats", "_ok"]
        rebuilt += ["_log_names", "_history", "_graph_steps"]
        return [*super()._excluded_save_params(), *rebuilt]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        if self.temperature.optimizer is None:
            return ["policy", "policy.optimizer"], []
        return ["policy", "policy.optimizer", "ent_coef_optimizer"], ["log_ent_coef"]
