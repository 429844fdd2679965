"""
The base of the algorithms: SB3's ``OffPolicyAlgorithm`` with one training loop for all of them.

The path of a transition: SB3's ``collect_rollouts`` asks :meth:`_sample_action` for an action, steps the environments and
hands the result to :meth:`_store_transition`, which adds it to the replay buffer; :meth:`train` samples batches, and an engine
(:mod:`sb3_softac.algorithm.engine`) does the gradient steps, by default with the algorithm's ``_update``, whose losses
:meth:`_minimize` differentiates; then the targets are updated, and the logs are written.
"""

import io
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable
from functools import partial
from io import BufferedIOBase
from operator import is_
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file, open_path
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, Schedule, TrainFreq
from stable_baselines3.common.utils import configure_logger, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_softac.algorithm import distributed
from sb3_softac.algorithm.arguments import (
    ARGUMENTS,
    GIVEN_TO_BUFFERS,
    LEARN_ARGUMENTS,
    ONLY_AT_CONSTRUCTION,
    check_bounded_box,
    check_buffer_kwargs,
    check_env,
    check_features_extractor,
    check_learning_rate,
    check_policy_class,
    check_policy_kwargs,
    parameters_of,
)
from sb3_softac.algorithm.changes import ModelWatch
from sb3_softac.algorithm.collecting_checks import (
    check_observations,
    check_shared_training,
    require_finite_rewards,
    require_fitting_buffer,
    require_normalization_on_top,
)
from sb3_softac.algorithm.engine import ENGINES, Engine, PyTorchEngine, StepLog, StepResult
from sb3_softac.algorithm.finite import find_faults, largest_norms, step_if
from sb3_softac.algorithm.model_files import add_plain_part, networks_that_fit, replacing, without_pickles
from sb3_softac.algorithm.network_checks import (
    check_networks,
    check_optimizers,
    named_tensors,
    require_gradients,
    running_statistics,
)
from sb3_softac.checks import Argument, Refused, did_you_mean, differs, integer, read, shown
from sb3_softac.entropy.saturation import SaturationWatch
from sb3_softac.entropy.target_entropy import TargetEntropy, continuous_target
from sb3_softac.entropy.temperature import AutoTemperature, Bounds, Temperature, check_ent_coef, make_temperature
from sb3_softac.files.plain_files import safe_load_is_on
from sb3_softac.replay.batch import Batch
from sb3_softac.replay.buffer import SoftReplayBuffer, end_episodes, with_extras

SelfSoftOffPolicy = TypeVar("SelfSoftOffPolicy", bound="SoftOffPolicyAlgorithm")

# Gradient steps whose logs may wait on the device
MAX_DEFERRED = 1_000
STEPS, BATCH = integer(0, " gradient steps"), integer(1, " transition")
# Attributes with another name than their argument
ATTRIBUTES = {"stats_window_size": "_stats_window_size", "target_entropy": "_target_entropy"}
# Attributes that are rebuilt when a model is loaded
NOT_SAVED = (
    *("temperature", "entropy_target", "watch", "engines", "_arguments_before", "_changed_by_load"),
    *("_finite", "_failed_batch", "gradient_norms", "_step_log", "_saturation_watch", "_announced"),
)


def _comparable(value: Any) -> Any:
    """:return: A placeholder for a function, which is another object once it has been loaded."""
    return "a function" if callable(value) else value


def _fitting(noise: ActionNoise | None, n_envs: int) -> ActionNoise | None:
    """:return: Noise that is independent in each environment; SB3 ensures it only once, at the start of ``learn``."""
    n_now = noise.n_envs if isinstance(noise, VectorizedActionNoise) else 1
    if noise is None or n_now == n_envs:
        return noise
    base = noise.base_noise if isinstance(noise, VectorizedActionNoise) else noise
    return VectorizedActionNoise(base, n_envs) if n_envs > 1 else base


class SoftOffPolicyAlgorithm(OffPolicyAlgorithm):
    """
    Base of the maximum-entropy algorithms.

    A subclass defines the losses of one gradient step in ``_update``, the network that each of them trains in ``trains``,
    and the networks that have targets in ``targets``. Networks are looked up in the policy at each step, so that they, their
    parameters and the optimizer may be replaced at any time.

    :param policy: Policy class, or its name.
    :param env: Environment, or its registered name; None only while loading.
    :param learning_rate: Learning rate, or its schedule.
    :param ent_coef: Temperature: a number greater than 0, ``"auto"``, ``"auto_<initial value>"``, ``"lin_<initial value>"``
        or a schedule.
    :param ent_coef_bounds: Smallest and largest value of a learned temperature, each may be None; None for no bounds.
    :param target_entropy: Target entropy for a learned temperature, or ``"auto"``.
    :param tau: Weight in [0, 1] of the network in each update of its target; 1 copies it.
    :param target_update_interval: Gradient steps between two target updates, counted over the whole training.
    :param random_steps: Environment steps with uniform actions at the start; None for ``learning_starts``.
    :param policy_kwargs: Keyword arguments of the policy; the caller's dictionary is not changed.
    :param verbose: 0 for no output, 1 for information, 2 for debugging.
    :param cuda_graphs: Whether gradient steps run as CUDA graphs, on a GPU.
    :param _init_setup_model: Whether to build the networks at once.
    :param off_policy_kwargs: Further arguments of SB3's ``OffPolicyAlgorithm``.
    """

    arguments: ClassVar[dict[str, Argument]] = ARGUMENTS
    """What the arguments of the constructor must be, by name. A subclass may add its own.

    :meta hide-value:"""
    policy_base: ClassVar[type[BasePolicy]]
    """Base class of the policies that the algorithm can use."""
    own_policies: ClassVar[dict[str, type[BasePolicy]]] = {}
    """Policies that users cannot select by name, but that are saved by name."""
    trains: ClassVar[dict[str, str]]
    """By the name of a loss: the network of the policy that it trains, and it alone."""
    targets: ClassVar[dict[str, str]]
    """By the name of a network of the policy: its target."""
    temperature: Temperature
    """The temperature that ``ent_coef`` stands for."""
    entropy_target: TargetEntropy
    """The target that ``target_entropy`` stands for."""
    watch: ModelWatch
    """Notices whatever is replaced between two rounds of gradient steps."""
    _made_with: dict[str, Any]
    """The arguments that temperature and target entropy were made with; saved with the model."""

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        ent_coef: str | float | Schedule,
        ent_coef_bounds: Bounds | None,
        target_entropy: str | float | dict[str, Any],
        tau: float,
        target_update_interval: int,
        random_steps: int | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        cuda_graphs: bool,
        _init_setup_model: bool,
        **off_policy_kwargs: Any,
    ):
        check_policy_class(policy, self.policy_base, type(self).__name__)
        self._read_arguments(vars(self))  # those a subclass has already set
        given = self._read_arguments(
            {
                "learning_rate": learning_rate,
                "ent_coef": ent_coef,
                "ent_coef_bounds": ent_coef_bounds,
                "tau": tau,
                "target_update_interval": target_update_interval,
                "random_steps": random_steps,
                "policy_kwargs": policy_kwargs,
                "verbose": verbose,
                "cuda_graphs": cuda_graphs,
                "_init_setup_model": _init_setup_model,
                **off_policy_kwargs,
            }
        )
        use_sde = given.get("use_sde", False)
        # SB3 adds it there, and users pass the policy_kwargs of one model on to another
        if differs((given["policy_kwargs"] or {}).pop("use_sde", use_sde), use_sde):
            raise Refused("policy_kwargs: 'use_sde' is an argument of the algorithm (SoftAC_v1 alone has it), give it there")
        if env is not None:
            # SB3 checks the spaces too, but it cannot know which algorithm to recommend instead.
            check_env(env)
            env = maybe_make_env(env, given["verbose"])
            self._check_action_space(env.action_space)
        elif given["_init_setup_model"]:
            raise Refused("env must be an environment or its registered name, got None")
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            given["learning_rate"],
            tau=given["tau"],
            policy_kwargs=dict(given["policy_kwargs"] or {}),
            verbose=given["verbose"],
            support_multi_env=True,
            **{name: given[name] for name in off_policy_kwargs},
        )
        self.ent_coef_bounds = given["ent_coef_bounds"]
        self.ent_coef, self._target_entropy = given["ent_coef"], target_entropy
        self.target_update_interval = given["target_update_interval"]
        self.random_steps = given["random_steps"]
        self.cuda_graphs = given["cuda_graphs"]
        if given["_init_setup_model"]:
            self._setup_model()

    # --- Construction

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_env(env)
        if isinstance(env, str):  # of load() or set_env()
            raise Refused(f"env must be an environment, got its name {env!r}: create it with gymnasium.make")
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    @staticmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        """:raises AssertionError: if the algorithm does not support this action space; the message names one that does."""
        check_bounded_box(action_space)

    def _read_arguments(self, values: dict[str, Any]) -> dict[str, Any]:
        """Replace the values of arguments by values of the type that the program uses; other names are left alone."""
        for name in self.arguments.keys() & values.keys():
            values[name] = read(name, values[name], self.arguments[name])
        return values

    def _check_arguments(self) -> None:
        """Check all arguments, and that they do not contradict one another, before anything is built from them."""
        self._read_arguments(vars(self))
        if differs(self.use_sde, saved := self.policy_kwargs.get("use_sde", self.use_sde)):
            raise Refused(f"use_sde={self.use_sde} cannot be loaded: the saved networks have use_sde={saved}")
        self.policy_kwargs = check_policy_kwargs(self.policy_class, self.policy_kwargs)
        check_features_extractor(self.policy_class, self.policy_kwargs, self.observation_space)
        self.replay_buffer_kwargs = self._read_buffer_kwargs()
        self._check_ent_coef()
        self._make_entropy_target()

    def _check_ent_coef(self) -> None:
        check_ent_coef(self.ent_coef, self.ent_coef_bounds, starts=not self._is_loaded())

    def _read_buffer_kwargs(self) -> dict[str, Any]:
        buffer_class = self.replay_buffer_class or SoftReplayBuffer
        taken = {*GIVEN_TO_BUFFERS}
        taken |= {"env"} if issubclass(buffer_class, HerReplayBuffer) else set()
        taken |= {"extras"} if issubclass(buffer_class, SoftReplayBuffer) else set()
        return check_buffer_kwargs(buffer_class, self.replay_buffer_kwargs or {}, taken)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(f"Unknown policy {policy_name!r}: use one of {sorted(self.policy_aliases)} or a policy class")
        return self.policy_aliases[policy_name]

    def _buffer_columns(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """:return: Additional columns of the replay buffer, beyond SB3's: shape and dtype by name."""
        return {}

    def _setup_replay_buffer(self) -> None:
        """Choose our replay buffer unless the user has chosen one; SB3 creates it."""
        columns = self._buffer_columns()
        if self.optimize_memory_usage and self.replay_buffer_class is SoftReplayBuffer and self._is_loaded():
            self.replay_buffer_class = None  # from the file; the user need not have chosen it
        if self.replay_buffer_class in (None, SoftReplayBuffer) and not self.optimize_memory_usage:
            self.replay_buffer_class = SoftReplayBuffer
            ours = {"n_steps": self.n_steps, "gamma": self.gamma, "extras": columns}
            # The networks read single precision; VecNormalize subtracts means first
            ours["single_precision"] = self._vec_normalize_env is None
            self.replay_buffer_kwargs = {**ours, **self.replay_buffer_kwargs}
            return
        self.replay_buffer_kwargs = dict(self.replay_buffer_kwargs)  # SB3 adds its own
        if columns:
            raise ValueError(
                f"The replay buffer has to store {sorted(columns)}: leave replay_buffer_class and optimize_memory_usage at "
                "their defaults, or do not use action masks and the entropy penalty"
            )

    def _setup_model(self) -> None:
        self._check_arguments()
        given = self.replay_buffer_kwargs
        self._setup_replay_buffer()
        with warnings.catch_warnings():
            # SB3 says that n_steps is ignored whenever the buffer's class is given, even for a buffer that uses it
            warnings.filterwarnings("ignore", message="`n_steps=")
            super()._setup_model()
        self.replay_buffer_kwargs = given  # what the user gave: load() adds ours again
        self._setup_entropy()
        self._finite = th.ones((), device=self.device)
        self._failed_batch: Batch | None = None
        self.gradient_norms: dict[str, th.Tensor] = {}
        self._step_log = StepLog()
        self._saturation_watch = SaturationWatch()
        self.engines: list[Engine] = [engine(self) for engine in ENGINES.values() if engine.is_wanted(self)]
        """Asked in this order before each round of gradient steps; PyTorch does what they cannot."""
        if self.cuda_graphs and "cuda_graphs" not in ENGINES:
            raise ImportError("cuda_graphs=True needs sb3_softac.engines.cuda_graphs, which is not installed")
        self._announced = ""
        self._follow_targets(set())
        if self.n_steps > 1 and (used := getattr(self.replay_buffer, "n_steps", 1)) != self.n_steps:
            warnings.warn(
                f"n_steps={self.n_steps} has no effect: {type(self.replay_buffer).__name__} computes targets of {used} "
                f"step{'s' * (used > 1)}. Set n_steps={used}, or leave out replay_buffer_class and the n_steps of "
                "replay_buffer_kwargs",
                stacklevel=4,
            )
        self.accept_arguments()
        self.watch = ModelWatch(self)
        self._checked_version = -1

    # --- Collecting

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
        :param reset_num_timesteps: Whether to restart the step count (and with it the schedules).
        :param progress_bar: Whether to show a progress bar.
        :return: The trained model.
        :raises RuntimeError: if gradients are switched off.
        :raises ValueError: if a network was replaced without its target or without the optimizer.
        """
        require_gradients()
        given: dict[str, Any] = {
            "total_timesteps": total_timesteps,
            "callback": callback,
            "log_interval": log_interval,
            "tb_log_name": tb_log_name,
            "reset_num_timesteps": reset_num_timesteps,
            "progress_bar": progress_bar,
        }
        given = {name: read(name, value, LEARN_ARGUMENTS[name]) for name, value in given.items()}
        given["tb_log_name"] = tb_log_name or type(self).__name__
        check_networks(self)
        if distributed.is_distributed():
            distributed.broadcast([*self.policy.state_dict().values(), *self.temperature.parameters()])
        super().learn(**given)
        self._flush_logs()
        return self

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._follow_arguments()
        if distributed.is_distributed():
            check_shared_training(self)
        if self._vec_normalize_env is not None:
            require_normalization_on_top(self.env, self._vec_normalize_env)
        if reset_num_timesteps or self._last_obs is None:
            # SB3 is about to reset the environments, perhaps mid-episode: the next transition does not continue the last one
            end_episodes(self.replay_buffer)
        if self._vec_normalize_env is not None and isinstance(self.replay_buffer, SoftReplayBuffer):
            self.replay_buffer.keep_double_precision()
        require_fitting_buffer(self)
        self.action_noise = _fitting(self.action_noise, self.n_envs)
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        try:
            check_observations(self, self._last_obs, "reset()")
        except ValueError:
            self._last_obs = None
            raise
        return result

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # SB3 ties the uniform actions to the first update; the papers do not.
        random_steps = learning_starts if self.random_steps is None else self.random_steps
        noise = None if action_noise is None else partial(self._finite_noise, action_noise)
        return super()._sample_action(random_steps, noise, n_envs)  # type: ignore[arg-type]

    def _finite_noise(self, action_noise: ActionNoise) -> np.ndarray:
        if not np.isfinite(noise := action_noise()).all():
            raise ValueError(
                f"action_noise returned {np.asarray(noise).tolist()} at step {self.num_timesteps + 1}, which is not finite. "
                "Training stopped before the action was taken"
            )
        return noise

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> RolloutReturn:
        """SB3's ``collect_rollouts``, except that the step at which a callback stops is stored."""
        self._follow_arguments()
        if action_noise is self.action_noise:
            action_noise = self.action_noise = _fitting(action_noise, env.num_envs)
        if not isinstance(train_freq, TrainFreq):  # a callback has just set it
            train_freq = self.train_freq  # type: ignore[assignment]
        try:
            rollout = super().collect_rollouts(env, callback, train_freq, replay_buffer, action_noise, *args, **kwargs)
        except BaseException:
            # The state of the environment is unknown: make the next learn() reset it
            self._last_obs = None
            raise
        if not rollout.continue_training:
            step = callback.locals
            self._update_info_buffer(step["infos"], step["dones"])
            self._store_transition(
                replay_buffer, step["buffer_actions"], step["new_obs"], step["rewards"], step["dones"], step["infos"]
            )
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._episode_num += int(np.sum(step["dones"]))
        if distributed.is_distributed():
            # A callback that stops one process stops all, after the same number of gradient steps
            rollout = rollout._replace(continue_training=distributed.all_agree(rollout.continue_training, self.device))
        return rollout

    def _extra_columns(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """:return: Values of the replay buffer's additional columns in this step, by name ``[n_envs, ...]``."""
        return {}

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        require_finite_rewards(self, reward)
        check_observations(self, new_obs, f"step {self.num_timesteps}")
        for i in np.flatnonzero(dones).tolist():
            if (terminal := infos[i].get("terminal_observation")) is not None:
                check_observations(self, terminal, f"step {self.num_timesteps}, the last of an episode,", i)
        if columns := self._extra_columns(dones, infos):
            infos = with_extras(infos, columns)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    # --- Training

    @abstractmethod
    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """
        Compute the losses of one gradient step and hand them to :meth:`_minimize`.

        :param batch: Sampled transitions.
        :return: Scalars to log, by name, on the device; the same names in every step. They include the losses.
        """

    @property
    def optimizers(self) -> list[th.optim.Optimizer]:
        own = self.temperature.optimizer
        return [self.policy.optimizer] if own is None else [self.policy.optimizer, own]

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Do gradient steps on batches from the replay buffer, update the targets and log the means of all losses.

        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :raises ValueError: if a loss is not finite (the parameters are then those before that gradient step), or if a network
            was changed without its target or without the optimizer.
        :raises RuntimeError: if gradients are switched off, or a loss does not depend on the network that it trains.
        """
        require_gradients()
        if not hasattr(self, "_logger"):  # before the first learn(), with a buffer filled in some other way
            self._logger = configure_logger(self.verbose)
        self._follow_arguments()
        gradient_steps, batch_size = read("gradient_steps", gradient_steps, STEPS), read("batch_size", batch_size, BATCH)
        self._update_learning_rate(self.optimizers)
        check_optimizers(self.optimizers)
        self._follow_schedules(self._current_progress_remaining)
        engine = self._choose_engine(batch_size)
        while gradient_steps > 0:
            n = engine.steps_at_once(gradient_steps)
            batches = [engine.sample(batch_size) for _ in range(n)]
            # Counted over the whole training: SB3's SAC restarts the count at every call, which at one gradient step per call
            # turns every interval into 1.
            due = [float((self._n_updates + i) % self.target_update_interval == 0) for i in range(1, n + 1)]
            result = engine.step(batches, due)
            self.count_steps(result)
            gradient_steps -= n
            if not result.finite:
                self._failed_batch = batches[-1]
                break
        if not self._logs_stay_on_device() or len(self._step_log) >= MAX_DEFERRED:
            self._flush_logs()

    def _minimize(self, losses: dict[str, th.Tensor]) -> None:
        """
        One step of all optimizers, or none if a loss or a gradient is not finite.

        Each loss is differentiated with respect to the network that it trains, see ``trains``, and nothing else. The decision
        whether to step stays on the device, so that the host need not wait; :meth:`train` raises an error afterwards. Several
        processes that train one agent average losses and gradients first, so that all take the same step.

        :param losses: Scalar losses by name.
        """
        self.policy.zero_grad()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        gradients: dict[str, list[th.Tensor]] = {}
        for name, loss in losses.items():
            parameters = self._trained_by(name)
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            if trained and not loss.requires_grad and len(trained) == len(parameters):
                raise RuntimeError(
                    f"{name} does not depend on the parameters that it is to train"
                    f"{f' (policy.{self.trains[name]})' if name in self.trains else ''}: one of your forward methods may run "
                    "under th.no_grad() or detach its result"
                )
            if trained and loss.requires_grad:
                loss.backward(inputs=trained, retain_graph=True)
                gradients[name] = [each.grad for each in trained if each.grad is not None]
        values = [loss.detach() for loss in losses.values()]
        if distributed.is_distributed():
            average_once = {id(gradient): gradient for each in gradients.values() for gradient in each}
            distributed.average([*values, *average_once.values()])
        self.gradient_norms = largest_norms(gradients)
        checked = th.stack([*values, *self.gradient_norms.values()])
        self._finite.mul_(checked.isfinite().all())
        for optimizer in self.optimizers:
            step_if(optimizer, self._finite)
        self.temperature.bound()

    def _trained_by(self, loss: str) -> list[th.Tensor]:
        """:return: The parameters that a loss trains."""
        if loss in self.trains:
            return list(getattr(self.policy, self.trains[loss]).parameters())
        return self.temperature.parameters()

    @th.no_grad()
    def update_targets(self, weight: th.Tensor | float = 1.0) -> None:
        """Move all targets towards their networks; a weight of 0 leaves them as they are."""
        # A skipped step must not move the targets either.
        weight = weight * self.tau * self._finite
        for name, target_name in self.targets.items():
            network, target = getattr(self.policy, name), getattr(self.policy, target_name)
            followers = named_tensors(target.named_parameters())
            for key, source in named_tensors(network.named_parameters()).items():
                followers[key].lerp_(source, weight)
            # Running statistics of batch normalisation are copied, not averaged twice (SB3 issue 996)
            statistics = running_statistics(target)
            for key, source in running_statistics(network).items():
                statistics[key].copy_(source)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # Several environments may take more steps than asked for. SB3's progress is then negative, and so are linear schedules
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(self._current_progress_remaining, 0.0)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        rate = check_learning_rate(self.lr_schedule, self._current_progress_remaining)
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            update_learning_rate(optimizer, rate)

    def _follow_schedules(self, progress_remaining: float) -> None:
        """Follow all schedules but that of the learning rate; 1 at the start of training, 0 at its end."""
        self.temperature.update(progress_remaining)
        self.entropy_target.update(progress_remaining)

    def _choose_engine(self, batch_size: int) -> Engine:
        """:return: The first engine that can do the steps; what it is, or why it is PyTorch, is printed once."""
        for engine in self.engines:
            if not (reason := engine.prepare(batch_size)):
                self._announce(str(engine))
                return engine
            if self._n_updates > 0:  # before that, the optimizers may just have no state yet
                self._announce(reason)
        engine = PyTorchEngine(self)
        engine.prepare(batch_size)
        return engine

    def _announce(self, message: str) -> None:
        if message != self._announced:
            self._announced = message
            if self.verbose >= 1:
                print(message)

    def prepare_networks(self) -> None:
        """Set the networks to training mode, and check them."""
        self.policy.set_training_mode(True)
        self.check_networks()

    def check_networks(self) -> None:
        """Check the networks if something has changed since the last time."""
        if self.watch.look() or self._checked_version != self.watch.version:
            check_networks(self)
            self._checked_version = self.watch.version

    def count_steps(self, result: StepResult) -> None:
        """Count gradient steps that an engine has done, and keep what they logged."""
        self._step_log.add(result)
        self._n_updates += len(result.values)

    def _logs_stay_on_device(self) -> bool:
        """:return: Whether logs wait on the device until they are dumped, so that the host does not wait for it."""
        return self.device.type != "cpu" and not self.entropy_target.needs_entropy

    def _flush_logs(self) -> None:
        """
        Log the means over all gradient steps since the last call.

        :raises ValueError: if one of the values is not finite.
        """
        if not len(self._step_log):
            return
        names, losses, values = self._step_log.read()  # the only time that the host waits for the device
        if not np.isfinite(values).all():
            self._stop([*names, *(f"gradient of {name}" for name in losses)], values)
        logs = dict(zip(names, values, strict=False))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, mean in zip(names, values.mean(axis=1).tolist(), strict=False):
            self.logger.record(f"train/{name}", mean)
        if self.temperature.optimizer is not None:
            self._saturation_watch.observe(self.entropy_target.is_lost(logs), logs["ent_coef"])
        self.entropy_target.observe(logs)
        self._target_entropy_state = self.entropy_target.state()

    def _stop(self, names: list[str], values: np.ndarray) -> NoReturn:
        """:raises ValueError: that names the first value that is not finite and its causes. Later steps are not counted."""
        faulty = ~np.isfinite(values)
        step = int(faulty.any(axis=0).argmax())
        first = int(faulty[:, step].argmax())
        self._finite.fill_(1.0)
        self._n_updates += step - faulty.shape[1]  # that step and those after it were skipped
        faults, self._failed_batch = find_faults(self.policy, self._failed_batch), None
        because = f", because of what is not finite: {', '.join(faults)}" if faults else ""
        raise ValueError(
            f"{names[first]} is {values[first, step]} at gradient step {self._n_updates + 1}{because}. Training stopped; the "
            "parameters are those before this step. Look for NaN or infinite observations and rewards (SB3's VecCheckNan "
            "finds them), then for a learning rate or reward scale that is too large"
        )

    def dump_logs(self) -> None:
        """Write the log; SB3's ``dump_logs``."""
        self._flush_logs()
        super().dump_logs()

    # --- Temperature and target entropy

    def _setup_entropy(self) -> None:
        now = {"ent_coef": _comparable(self.ent_coef), "target_entropy": self._target_entropy}
        before = vars(self).get("_made_with", now)
        self._changed_by_load = {name for name in now if differs(now[name], _comparable(before[name]))}
        self.entropy_target = self._make_entropy_target()
        if "target_entropy" not in self._changed_by_load:
            self.entropy_target.load_state(vars(self).get("_target_entropy_state", {}))
        self._target_entropy_state = self.entropy_target.state()
        self.temperature = self._make_temperature()
        if self._is_loaded():
            self.entropy_target.update(self._current_progress_remaining)
            if "ent_coef" not in self._changed_by_load:
                self.temperature.update(self._current_progress_remaining)
        self._made_with = now

    def _is_loaded(self) -> bool:
        """:return: Whether a file is being loaded, so that a learned temperature does not start from ``ent_coef``."""
        return "_made_with" in vars(self)

    def _make_temperature(self) -> Temperature:
        starts = not self._is_loaded() or "temperature" in vars(self)
        return make_temperature(self.ent_coef, self.device, self.lr_schedule(1), self.ent_coef_bounds, starts)

    def _make_entropy_target(self) -> TargetEntropy:
        assert self.action_space.shape is not None
        return continuous_target(self._target_entropy, self.action_space.shape)

    @property
    def target_entropy(self) -> float:
        """Target entropy in nats for a learned temperature. It can be set to anything that the constructor accepts."""
        return self.entropy_target.nats

    @target_entropy.setter
    def target_entropy(self, value: Any) -> None:
        before, self._target_entropy = self._target_entropy, value
        try:
            self.entropy_target = self._make_entropy_target()
        except ValueError:
            self._target_entropy = before
            raise
        self._made_with["target_entropy"] = value
        self._target_entropy_state = self.entropy_target.state()

    @property
    def log_ent_coef(self) -> th.Tensor:
        """Logarithm of the temperature, one element: the parameter itself if it is learned, otherwise a copy."""
        return self.temperature.log_ent_coef if isinstance(self.temperature, AutoTemperature) else self.temperature.alpha.log()

    @log_ent_coef.setter
    def log_ent_coef(self, value: Any) -> None:
        if not isinstance(self.temperature, AutoTemperature):
            raise AttributeError("log_ent_coef cannot be set, because the temperature is not learned: set ent_coef")
        self.temperature.log_ent_coef.data.copy_(th.as_tensor(value).detach())

    @property
    def ent_coef_tensor(self) -> th.Tensor:
        """The temperature; setting it sets ``ent_coef``."""
        return self.temperature.alpha

    @ent_coef_tensor.setter
    def ent_coef_tensor(self, value: Any) -> None:
        self.ent_coef = float(value)

    @property
    def ent_coef_optimizer(self) -> th.optim.Optimizer | None:
        """Optimizer of a learned temperature; None if the temperature is not learned."""
        return self.temperature.optimizer

    @ent_coef_optimizer.setter
    def ent_coef_optimizer(self, optimizer: th.optim.Optimizer) -> None:
        self.temperature.optimizer = optimizer

    # --- Arguments that are set later

    def _argument_values(self) -> list[Any]:
        return list(map(vars(self).get, (*self.arguments, "replay_buffer")))

    def accept_arguments(self) -> None:
        """Treat the current values of all arguments as applied; for code that restores a model."""
        self._arguments_before = self._argument_values()

    def _follow_arguments(self) -> None:
        """
        Check the arguments again if an attribute was set since the last call, and apply the change.

        :raises ValueError: if a value is invalid, or can no longer take effect.
        """
        if all(map(is_, self._argument_values(), self._arguments_before)):
            return
        before = dict(zip(self.arguments, self._arguments_before, strict=False))
        self._read_arguments(vars(self))
        changed = {name for name, value in before.items() if differs(vars(self).get(name), value)}
        for name in sorted(changed.intersection(ONLY_AT_CONSTRUCTION)):
            raise Refused(
                f"{name} was changed from {shown(before[name])} to {shown(vars(self).get(name))}, which has no effect now: "
                "pass it to the constructor or to load()"
            )
        if "learning_rate" in changed:
            self._setup_lr_schedule()
        if "ent_coef_bounds" in changed and "ent_coef" not in changed and isinstance(self.temperature, AutoTemperature):
            self.temperature.set_bounds(self.ent_coef_bounds)
        elif changed & {"ent_coef", "ent_coef_bounds"}:
            new = self._make_temperature()
            if isinstance(new, AutoTemperature) and isinstance(self.temperature, AutoTemperature):
                self.temperature.restart_as(new)
            else:
                self.temperature = new
            self._made_with["ent_coef"] = _comparable(self.ent_coef)
        if self.replay_buffer is not self._arguments_before[-1]:
            changed.add("replay_buffer")
            end_episodes(self.replay_buffer)  # the next transition does not continue its last one
        self._follow_targets(changed)
        self.accept_arguments()

    def _follow_targets(self, changed: set[str]) -> None:
        """Let the replay buffer compute its n-step targets with the model's ``n_steps`` and ``gamma``, or refuse a change."""
        buffer: Any = self.replay_buffer
        followed = "replay_buffer" in changed and hasattr(self._arguments_before[-1], "n_steps")
        if followed and self.n_steps > 1 and not hasattr(buffer, "n_steps"):
            raise Refused(
                f"n_steps is {self.n_steps}, but {type(buffer).__name__}, which is now the replay buffer, has targets of one "
                "step: set n_steps=1, or load a replay buffer that a model like this one has saved"
            )
        for name in ("n_steps", "gamma"):
            n_steps = getattr(buffer, "n_steps", 1)
            fixed = name in self.replay_buffer_kwargs or not hasattr(buffer, "n_steps") or not hasattr(buffer, name)
            if not fixed:
                setattr(buffer, name, getattr(self, name))
            elif name in changed and (n_steps != self.n_steps if name == "n_steps" else n_steps > 1):
                why = "replay_buffer_kwargs fixes it" if name in self.replay_buffer_kwargs else "it has no such attribute"
                raise Refused(
                    f"{name} was changed to {getattr(self, name)}, but {type(buffer).__name__} computes the targets, and "
                    f"{why}: create a model with this package's SoftReplayBuffer and without {name} in replay_buffer_kwargs"
                )

    # --- Files

    def save(
        self,
        path: str | Path | BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        Save the model; SB3's ``save``. An existing file is replaced atomically when the new one is completely on disk.

        :param path: File, or a stream.
        :param exclude: Names of attributes to leave out.
        :param include: Names of attributes to save that would otherwise be left out.
        """
        pickled = io.BytesIO()
        super().save(pickled, None if exclude is None else [ATTRIBUTES.get(name, name) for name in exclude], include)
        content = add_plain_part(pickled, vars(self), self.named_policies())
        if isinstance(path, str | Path):
            with replacing(path if Path(path).suffix else f"{path}.zip") as file:
                file.write(content)
        else:
            open_path(path, "w").write(content)

    @classmethod
    def named_policies(cls) -> dict[str, type[BasePolicy]]:
        """:return: Policy classes by their names in saved files."""
        return {**cls.policy_aliases, **cls.own_policies}

    @classmethod
    def load(  # type: ignore[override]
        cls: type[SelfSoftOffPolicy],
        path: str | Path | BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        safe: bool | None = None,
        **kwargs: Any,
    ) -> SelfSoftOffPolicy:
        """
        Load a model; SB3's ``load``. A learned temperature goes on from where it was, or starts from another ``ent_coef``.

        SB3's files contain pickles, which can run arbitrary code when they are read. With ``safe=True`` no pickle is read, so
        files from untrusted sources can be loaded: their numbers, and named classes of PyTorch, SB3 and this package. Episode
        statistics and the folder for TensorBoard are not loaded then.

        :param path: File that :meth:`save` wrote.
        :param env: Environment for further training; None to predict only.
        :param device: Device of the networks.
        :param custom_objects: Objects to use instead of those in the file.
        :param print_system_info: Whether to print the versions with which the file was saved.
        :param force_reset: Whether to reset the environment before training continues.
        :param safe: Whether to raise an error instead of unpickling anything. None means False, unless the environment
            variable ``SB3_SOFTAC_SAFE_LOAD`` is set, which is meant for programs that you do not change, such as RL Zoo's.
        :param kwargs: Arguments of the constructor to change.
        :return: The model.
        :raises ValueError: if another algorithm saved the file, if an argument is unknown, or if ``safe`` is set and something
            would have to be unpickled.
        """
        changes = cls._load_arguments(kwargs)
        policy_kwargs = changes.pop("policy_kwargs", None)
        if safe or (safe is None and safe_load_is_on()):
            content, custom_objects, sizes = without_pickles(cls, path, custom_objects or {})
            with networks_that_fit(sizes, path):
                model = super().load(content, env, device, custom_objects, print_system_info, force_reset, **changes)
        else:
            try:
                model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **changes)
            except UnpicklingError as error:  # PyTorch reads nothing but tensors
                raise ValueError(f"Refused: the tensor file in {path} contains more than tensors") from error
        # SB3 compares them, too, but with what algorithms have added to those of the user
        added = {name: model.policy_kwargs[name] for name in ("n_critics", "use_sde") if name in model.policy_kwargs}
        if policy_kwargs is not None and differs({**added, **policy_kwargs}, model.policy_kwargs):
            raise ValueError(
                f"policy_kwargs={shown(policy_kwargs)} cannot be loaded: the saved networks have {shown(model.policy_kwargs)}"
            )
        if differs(kwargs.get("n_critics", saved := model.policy_kwargs.get("n_critics", 2)), saved):
            raise ValueError(f"n_critics={kwargs['n_critics']} cannot be loaded: the saved networks have n_critics={saved}")
        if "ent_coef" in model._changed_by_load or callable(kwargs.get("ent_coef")):
            model.temperature = model._make_temperature()
        model._changed_by_load = set()
        if "stats_window_size" in kwargs:  # SB3 would go on with the old one
            size = read("stats_window_size", kwargs["stats_window_size"], cls.arguments["stats_window_size"])
            model._stats_window_size = size
            model.ep_info_buffer = deque(model.ep_info_buffer or (), size)
            model.ep_success_buffer = deque(model.ep_success_buffer or (), size)
        return model

    @classmethod
    def _load_arguments(cls, given: dict[str, Any]) -> dict[str, Any]:
        """:return: The attributes for arguments to change; SB3 would also set attributes that nobody reads."""
        changes = {ATTRIBUTES.get(name, name): value for name, value in given.items()}
        parameters = parameters_of(cls)[0].keys() - {"self", "policy", "env", "device", "_init_setup_model"}
        if "n_critics" in parameters:  # part of the policy's arguments, which are those of the file
            changes.pop("n_critics", None)
        known = vars(cls(policy=cls.policy_base, env=None, _init_setup_model=False))  # type: ignore[call-arg,arg-type]
        for name in given:
            if name not in parameters and (name not in known or name in ("use_sde", "sde_sample_freq")):
                raise ValueError(f"load() got an unknown argument {name!r}{did_you_mean(name, parameters)}")
        return changes

    def set_parameters(
        self, load_path_or_dict: str | dict[str, Any], exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        SB3's ``set_parameters``. The state of a learned temperature in the file is ignored if this model has none, so that a
        model can be loaded with a fixed or scheduled temperature instead of a learned one.

        :param load_path_or_dict: Path of a saved model, or the result of ``get_parameters``.
        :param exact_match: Whether the parameters of all networks must be present.
        :param device: Device to load to.
        :raises ValueError: if a name is unknown or missing.
        """
        if isinstance(load_path_or_dict, dict):
            params = dict(load_path_or_dict)
        else:
            _, params, _ = load_from_zip_file(load_path_or_dict, device=device, load_data=False)
        if self.ent_coef_optimizer is None:
            params.pop("ent_coef_optimizer", None)
        elif "ent_coef" in self._changed_by_load:  # load() is about to restart it
            params.setdefault("ent_coef_optimizer", self.ent_coef_optimizer.state_dict())
        super().set_parameters(params, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *NOT_SAVED]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        if self.temperature.optimizer is None:
            return ["policy", "policy.optimizer"], []
        return ["policy", "policy.optimizer", "ent_coef_optimizer"], ["log_ent_coef"]
