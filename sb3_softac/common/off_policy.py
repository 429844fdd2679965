"""Code that the algorithms share around collecting and gradient steps: arguments, setup, loading and saving."""

import warnings
from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_softac.common import ranks
from sb3_softac.common.arguments import check_arguments, check_policy_class
from sb3_softac.common.buffers import SoftReplayBuffer
from sb3_softac.common.collect_loop import CollectLoop
from sb3_softac.common.model_files import ModelFiles
from sb3_softac.common.train_loop import TrainLoop

SelfSoftOffPolicy = TypeVar("SelfSoftOffPolicy", bound="SoftOffPolicyAlgorithm")


class SoftOffPolicyAlgorithm(CollectLoop, TrainLoop, ModelFiles):
    """
    Base of the maximum-entropy algorithms.

    :param policy: Policy class, or its name.
    :param env: Environment, or its registered name; None only while loading.
    :param learning_rate: Learning rate, or its schedule.
    :param ent_coef: Temperature: a number greater than 0, ``"auto"``, ``"auto_<initial value>"``, ``"lin_<initial value>"``
        or a schedule.
    :param ent_coef_bounds: Smallest and largest value of a learned temperature; None for no bounds.
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

    policy_base: ClassVar[type[BasePolicy]]
    """Base class of the policies that the algorithm can use."""

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        ent_coef: str | float | Schedule,
        ent_coef_bounds: tuple[float, float] | None,
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
        self.ent_coef_bounds = ent_coef_bounds
        self.__dict__.update(ent_coef=ent_coef, target_entropy=target_entropy)  # see EntropyOptions
        self.target_update_interval = target_update_interval
        self.random_steps = random_steps
        self.cuda_graphs = cuda_graphs
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    @abstractmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        """
        :param action_space: Action space of the environment.
        :raises AssertionError: if the algorithm does not support it; the message names one that does.
        """

    def _check_arguments(self) -> None:
        """:raises ValueError: if an argument is out of its range."""
        check_arguments(self)

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
        elif columns:
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
            from sb3_softac.cuda import GraphSteps  # the one door to that room

            self._step_runner = GraphSteps(self)

    def _enter_fast_steps(self) -> None:
        from sb3_softac.fast import FastSteps  # the one door to that room

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
        """
        name = tb_log_name or type(self).__name__
        if ranks.several():
            ranks.copy_from_first([*self.policy.state_dict().values(), *self.temperature.parameters()])
        super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)
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
        rebuilt = ["temperature", "_said_anew", "_finite", "_failed_batch", "_step_log", "_saturation_watch", "_step_runner"]
        return [*super()._excluded_save_params(), *rebuilt]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        if self.temperature.optimizer is None:
            return ["policy", "policy.optimizer"], []
        return ["policy", "policy.optimizer", "ent_coef_optimizer"], ["log_ent_coef"]
