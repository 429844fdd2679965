"""Code that the algorithms share around collecting and gradient steps: arguments, setup, loading and saving."""

import math
import warnings
from abc import abstractmethod
from operator import is_
from typing import Any, ClassVar, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_softac.algorithm import distributed
from sb3_softac.algorithm.arguments import (
    ARGUMENTS,
    GIVEN_TO_BUFFERS,
    LEARN_ARGUMENTS,
    ONLY_AT_CONSTRUCTION,
    check_buffer_kwargs,
    check_env,
    check_features_extractor,
    check_learning_rate,
    check_policy_class,
    check_policy_kwargs,
)
from sb3_softac.algorithm.collect_loop import CollectLoop
from sb3_softac.algorithm.model_files import ModelFiles
from sb3_softac.algorithm.train_loop import TrainLoop, require_gradients
from sb3_softac.checks import Argument, Refused, differs, read, shown
from sb3_softac.entropy.temperature import AutoTemperature, Bounds, check_ent_coef
from sb3_softac.replay.buffer import SoftReplayBuffer

SelfSoftOffPolicy = TypeVar("SelfSoftOffPolicy", bound="SoftOffPolicyAlgorithm")


class SoftOffPolicyAlgorithm(CollectLoop, TrainLoop, ModelFiles):
    """
    Base of the maximum-entropy algorithms.

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
    """What the arguments of the constructor must be, by name. A subclass may add its own."""
    _watched_before: list[Any]
    """Result of :meth:`_watched` when the arguments were last checked."""

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
        self._read_arguments(vars(self))  # those that a subclass has set before
        given = self._read_arguments(
            {
                "learning_rate": learning_rate,
                "ent_coef": ent_coef,
                "ent_coef_bounds": ent_coef_bounds,
                "target_entropy": target_entropy,
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
        # SB3 writes it there, and users hand the policy_kwargs of one model to another
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
        # See EntropyOptions
        self.__dict__.update(ent_coef=given["ent_coef"], target_entropy=given["target_entropy"])
        self.target_update_interval = given["target_update_interval"]
        self.random_steps = given["random_steps"]
        self.cuda_graphs = given["cuda_graphs"]
        if given["_init_setup_model"]:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_env(env)
        if isinstance(env, str):  # of load() or set_env()
            raise Refused(f"env must be an environment, got its name {env!r}: create it with gymnasium.make")
        return OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    @staticmethod
    @abstractmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        """
        :param action_space: Action space of the environment.
        :raises AssertionError: if the algorithm does not support it; the message names one that does.
        """

    def _read_arguments(self, values: dict[str, Any]) -> dict[str, Any]:
        """
        :param values: Values by name; those of arguments are replaced by values of the type that the program uses.
        :return: The same dictionary.
        :raises ValueError: if an argument is not what it must be.
        """
        for name in self.arguments.keys() & values.keys():
            values[name] = read(name, values[name], self.arguments[name])
        return values

    def _check_arguments(self) -> None:
        """
        Check all arguments, before anything is built from them.

        :raises ValueError: if an argument is not what it must be, or arguments contradict one another.
        """
        self._read_arguments(vars(self))
        self.policy_kwargs = check_policy_kwargs(self.policy_class, self.policy_kwargs)
        check_features_extractor(self.policy_class, self.policy_kwargs, self.observation_space)
        self.replay_buffer_kwargs = self._read_buffer_kwargs()
        self._check_ent_coef()

    def _check_ent_coef(self) -> None:
        check_ent_coef(self.ent_coef, self.ent_coef_bounds)

    def _read_buffer_kwargs(self) -> dict[str, Any]:
        buffer_class = self.replay_buffer_class or SoftReplayBuffer
        taken = {*GIVEN_TO_BUFFERS}
        taken |= {"env"} if issubclass(buffer_class, HerReplayBuffer) else set()
        taken |= {"extras"} if issubclass(buffer_class, SoftReplayBuffer) else set()
        return check_buffer_kwargs(buffer_class, self.replay_buffer_kwargs or {}, taken)

    def _watched(self) -> list[Any]:
        """:return: The attributes that hold arguments, and what else depends on them."""
        attributes = vars(self)
        return [attributes.get(name) for name in (*self.arguments, "replay_buffer")]

    def _follow_arguments(self) -> None:
        """
        Check the arguments again if an attribute has been set since the last time, and let it take effect.

        :raises ValueError: if a value is not what it must be, or can no longer have an effect.
        """
        if all(map(is_, self._watched(), self._watched_before)):
            return
        before = dict(zip(self.arguments, self._watched_before, strict=False))
        self._read_arguments(vars(self))
        changed = {name for name, value in before.items() if differs(vars(self).get(name), value)}
        for name in sorted(changed.intersection(ONLY_AT_CONSTRUCTION)):
            raise Refused(
                f"{name} was changed from {shown(before[name])} to {shown(vars(self).get(name))}, which has no effect now: "
                "pass it to the constructor or to load()"
            )
        if "learning_rate" in changed:
            self._setup_lr_schedule()
        if "ent_coef_bounds" in changed:
            if isinstance(self.temperature, AutoTemperature):
                self.temperature.set_bounds(self.ent_coef_bounds)
            else:
                self._check_ent_coef()  # only a learned temperature has bounds
        self._follow_targets(changed)
        self._watched_before = self._watched()

    def _follow_targets(self, changed: set[str]) -> None:
        """
        Let the replay buffer compute its n-step targets with the model's ``n_steps`` and ``gamma``.

        :param changed: Arguments that have changed.
        :raises ValueError: if one of the two has changed, and the replay buffer cannot follow.
        """
        buffer: Any = self.replay_buffer
        for name in ("n_steps", "gamma"):
            fixed = name in self.replay_buffer_kwargs or not hasattr(buffer, "n_steps") or not hasattr(buffer, name)
            if not fixed:
                setattr(buffer, name, getattr(self, name))
            elif name in changed and (name == "n_steps" or getattr(buffer, "n_steps", 1) > 1):
                why = "replay_buffer_kwargs fixes it" if name in self.replay_buffer_kwargs else "it has no such attribute"
                raise Refused(
                    f"{name} was changed to {getattr(self, name)}, but {type(buffer).__name__} computes the targets, and "
                    f"{why}: create a model with the new value, or load() the saved model with it"
                )

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # Several environments may take more steps than asked for. SB3's progress is then negative, and so are linear schedules
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        self._current_progress_remaining = max(self._current_progress_remaining, 0.0)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        rate = check_learning_rate(self.lr_schedule, self._current_progress_remaining)
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            update_learning_rate(optimizer, rate)

    def _check_optimizers(self) -> None:
        """:raises ValueError: if a setting of an optimizer is not finite; it would destroy the parameters in one step."""
        for group in [group for optimizer in self._optimizers for group in optimizer.param_groups]:
            numbers = [value for value in group.values() if type(value) is float]
            numbers += [part for value in group.values() if type(value) is tuple for part in value if type(part) is float]
            if math.isfinite(sum(numbers)):  # one test for all: this runs before each round of gradient steps
                continue
            for name, value in group.items():
                if not all(math.isfinite(n) for n in (value if type(value) is tuple else (value,)) if type(n) is float):
                    raise ValueError(f"The optimizer's {name} is {value}: it must be finite. No parameter has been changed")

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
            if self.replay_buffer_kwargs.get("n_steps") == self.n_steps:
                # SB3 says that n_steps is ignored whenever the buffer's class is given, also for a buffer that heeds it
                warnings.filterwarnings("ignore", message="`n_steps=")
            super()._setup_model()
        self.replay_buffer_kwargs = given  # what the user said: load() adds ours again
        self._setup_entropy_options()
        self._setup_training()
        self._enter_fast_steps()
        if self.cuda_graphs:
            from sb3_softac.engines.cuda_graphs import GraphSteps  # the one door to that room

            self._step_runner = GraphSteps(self)
        self._follow_targets(set())
        self._watched_before = self._watched()

    def _enter_fast_steps(self) -> None:
        from sb3_softac.engines.native import FastSteps  # the one door to that room

        self._step_runner = FastSteps(self)

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
        self._check_networks()
        if distributed.is_distributed():
            distributed.broadcast([*self.policy.state_dict().values(), *self.temperature.parameters()])
        super().learn(**given)
        self._flush_logs()
        return self

    def set_parameters(
        self, load_path_or_dict: str | dict[str, Any], exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        SB3's ``set_parameters``. The state of a learned temperature in the file is ignored if this model has none, so that a
        model can be loaded with a fixed or scheduled temperature instead of a learned one, and vice versa.

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
        elif "ent_coef" in self._said_anew:  # load() is about to start it anew
            params.setdefault("ent_coef_optimizer", self.ent_coef_optimizer.state_dict())
        super().set_parameters(params, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        rebuilt = [
            "temperature",
            "_watched_before",
            "_said_anew",
            "_finite",
            "_failed_batch",
            "_step_log",
            "_saturation_watch",
            "_step_runner",
        ]
        return [*super()._excluded_save_params(), *rebuilt]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        if self.temperature.optimizer is None:
            return ["policy", "policy.optimizer"], []
        return ["policy", "policy.optimizer", "ent_coef_optimizer"], ["log_ent_coef"]
