"""Collecting transitions: acting, storing, and what SB3 omits where a training run is interrupted."""

from abc import abstractmethod
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from sb3_softac.algorithm.distributed import all_agree, is_distributed
from sb3_softac.replay.buffer import SoftReplayBuffer


def end_episodes(replay_buffer: ReplayBuffer | None) -> None:
    """
    Prevent n-step targets from crossing a reset that no environment has reported.

    :param replay_buffer: Replay buffer; its newest transitions are the last ones of their episodes.
    """
    if isinstance(replay_buffer, SoftReplayBuffer):
        replay_buffer.end_episodes()
    elif isinstance(replay_buffer, NStepReplayBuffer) and replay_buffer.handle_timeout_termination and replay_buffer.size():
        newest = (replay_buffer.pos - 1) % replay_buffer.buffer_size
        running = replay_buffer.dones[newest] == 0
        replay_buffer.dones[newest, running] = replay_buffer.timeouts[newest, running] = 1.0


def require_normalization_on_top(env: VecEnv | None, normalization: VecNormalize) -> None:
    """
    The replay buffer stores the input of VecNormalize and normalizes it when sampling, so this input has to be the complete
    observation.

    :param env: Environment of the model.
    :param normalization: Its VecNormalize.
    :raises ValueError: if frames are stacked above it.
    """
    layer: Any = env
    while layer is not normalization:
        if isinstance(layer, VecFrameStack):
            raise ValueError(
                "VecFrameStack stacks the output of VecNormalize, but the replay buffer stores observations from before the "
                "normalization: put VecNormalize on top, VecNormalize(VecFrameStack(env, n)). In a file of RL Zoo, write "
                "vec_env_wrapper: [{stable_baselines3.common.vec_env.VecFrameStack: {n_stack: n}}] instead of "
                "frame_stack: n"
            )
        layer = layer.venv


def _not_finite(obs: Any, env_index: int | None) -> list[str]:
    """:return: Where observations are not finite, in words: environment, key and first value."""
    faults = []
    for key, part in obs.items() if isinstance(obs, dict) else [("", obs)]:
        part = np.asarray(part)
        if part.dtype.kind != "f" or np.isfinite(part).all():
            continue
        for i, row in [(env_index, part)] if env_index is not None else enumerate(part):
            if not (finite := np.isfinite(row)).all():
                where = f"environment {i}, key {key!r}" if key else f"environment {i}"
                faults.append(f"{where}, value {row[~finite][0]}")
    return faults


class CollectLoop(OffPolicyAlgorithm):
    """What happens between two rounds of gradient steps."""

    random_steps: int | None

    @abstractmethod
    def _follow_arguments(self) -> None:
        """Check the arguments that have been set since the last time, and let them take effect."""

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._follow_arguments()
        if is_distributed():
            self._check_shared_training()
        if self._vec_normalize_env is not None:
            require_normalization_on_top(self.env, self._vec_normalize_env)
        if reset_num_timesteps or self._last_obs is None:
            # SB3 is about to reset the environments, wherever they are: what comes next in the replay buffer does not follow
            end_episodes(self.replay_buffer)
        if self._vec_normalize_env is not None and isinstance(self.replay_buffer, SoftReplayBuffer):
            self.replay_buffer.keep_double_precision()
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        try:
            self._check_observations(self._last_obs, "reset()")
        except ValueError:
            self._last_obs = None
            raise
        return result

    def _check_shared_training(self) -> None:
        """:raises ValueError: if several processes cannot train one agent with these settings."""
        assert isinstance(self.train_freq, TrainFreq)
        if self.train_freq.unit == TrainFrequencyUnit.EPISODE:
            raise ValueError(
                "Several processes that train one agent must all do the same number of gradient steps: give train_freq in "
                "steps, not in episodes"
            )
        if self._vec_normalize_env is not None:
            raise ValueError(
                "When several processes train one agent, each would normalize observations with its own statistics: do not "
                "use VecNormalize (normalize in a file of RL Zoo), or scale observations with a wrapper that has fixed "
                "limits"
            )

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # SB3 ties the uniform actions to the first update; the papers do not.
        random_steps = learning_starts if self.random_steps is None else self.random_steps
        return super()._sample_action(random_steps, action_noise, n_envs)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """
        Collect transitions; SB3's ``collect_rollouts``, except that the step at which a callback stops is stored.

        :param env: Training environment.
        :param callback: Callback, called at every step.
        :param train_freq: Number of steps or episodes to collect.
        :param replay_buffer: Where to store the transitions.
        :param action_noise: Noise added to the actions.
        :param learning_starts: Number of steps before the first gradient step.
        :param log_interval: Episodes between two logs.
        :return: Numbers of steps and episodes, and whether to continue.
        """
        self._follow_arguments()
        if not isinstance(train_freq, TrainFreq):  # a callback has just set it
            train_freq = self.train_freq  # type: ignore[assignment]
        try:
            rollout = super().collect_rollouts(
                env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
            )
        except BaseException:
            # How far the environment has come is not known: have the next learn() reset it
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
        if is_distributed():  # a callback that stops one process stops all, after the same number of gradient steps
            rollout = rollout._replace(continue_training=all_agree(rollout.continue_training, self.device))
        return rollout

    def _check_observations(self, obs: Any, when: str, env_index: int | None = None) -> None:
        """
        :param obs: Observations as the policy reads them ``[n_envs, ...]``, or the one of a single environment.
        :param when: Where they come from, for the error.
        :param env_index: Index of the single environment.
        :raises ValueError: if they are not finite, and the policy's features extractor does not correct this.
        """
        normalization = self._vec_normalize_env
        for each in [obs] if normalization is None or env_index is not None else [normalization.get_original_obs(), obs]:
            if not (faults := _not_finite(each, env_index)):
                continue
            try:
                self.policy.obs_to_tensor(each)
            except ValueError:
                raise ValueError(
                    f"The observation of {when} is not finite: {'; '.join(faults)}. Training stopped before it was stored. "
                    "Look for a division by zero or an overflow in the environment (SB3's VecCheckNan finds it), or give the "
                    "policy a features extractor that accepts such values"
                ) from None

    def _extra_columns(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """
        :param dones: Whether the episodes ended in the last step ``[n_envs]``.
        :param infos: Infos of the last step.
        :return: Values of the replay buffer's additional columns in this step, by name ``[n_envs, ...]``.
        """
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
        if not np.isfinite(reward).all():  # it would stay in the replay buffer, and in every checkpoint from now on
            raise ValueError(
                f"The environments returned the rewards {reward.tolist()} at step {self.num_timesteps}. Training stopped "
                "before they were stored: look for a division by zero or an overflow in the environment"
            )
        self._check_observations(new_obs, f"step {self.num_timesteps}")
        for i in np.flatnonzero(dones).tolist():
            if (terminal := infos[i].get("terminal_observation")) is not None:
                self._check_observations(terminal, f"step {self.num_timesteps}, the last of an episode,", i)
        if not np.isfinite(buffer_action).all():
            raise ValueError(
                f"The actions {buffer_action.tolist()} at step {self.num_timesteps} are not finite. Training stopped before "
                "they were stored: look at action_noise"
            )
        extras = self._extra_columns(dones, infos)
        # SB3 finds out which observations belong to the transition and calls add(), to which the extras are handed along
        add: Any = replay_buffer.add
        target: Any = SimpleNamespace(add=partial(add, extras=extras)) if extras else replay_buffer
        super()._store_transition(target, buffer_action, new_obs, reward, dones, infos)  # type: ignore[arg-type]
