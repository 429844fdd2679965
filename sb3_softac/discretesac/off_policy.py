"""Acting, storing and continuing with discrete actions: branches, action masks and what the replay buffer keeps of them."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_softac.common.buffers import SoftReplayBuffer
from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.discretesac.branches import Branches
from sb3_softac.discretesac.masks import keep_last_masks, masks_of_next_states
from sb3_softac.discretesac.policies import DiscreteSACPolicy
from sb3_softac.equations.discrete_sac import policy_entropy


class DiscreteOffPolicyAlgorithm(SoftOffPolicyAlgorithm):
    """
    What DiscreteSAC does outside of its gradient steps.

    The constructor's parameters are those of :class:`~sb3_softac.common.off_policy.SoftOffPolicyAlgorithm`.
    """

    policy: DiscreteSACPolicy
    branches: Branches
    stable_kwargs: dict[str, float]
    _has_masks = False
    _last_masks: np.ndarray | None = None

    @staticmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        Branches(action_space)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return keep_last_masks(OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper))

    def _setup_model(self) -> None:
        self.branches = Branches(self.action_space)
        if self.env is not None:
            self._has_masks = self._has_masks or is_masking_supported(self.env)
        super()._setup_model()

    def _buffer_columns(self) -> dict[str, tuple[tuple[int, ...], type]]:
        columns: dict[str, tuple[tuple[int, ...], type]] = {}
        if self._has_masks:
            columns |= {name: ((self.branches.n,), bool) for name in ("action_masks", "next_action_masks")}
        if "entropy_penalty" in self.stable_kwargs:
            columns["old_entropy"] = ((), np.float32)
        return columns

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self.env is not None
        env_has_masks = is_masking_supported(self.env)
        columns = getattr(self.replay_buffer, "extras", {}).keys()
        if env_has_masks and "action_masks" not in columns:
            raise ValueError(
                "The environment has action masks, but this model was made for one without, and its replay buffer keeps none: "
                "make a new model for this environment"
            )
        if "entropy_penalty" in self.stable_kwargs and "old_entropy" not in columns:
            raise ValueError(
                "The entropy penalty needs the entropies of the policy that collected the data; the replay buffer lacks them: "
                "start with an empty one, or leave the penalty out"
            )
        self._last_masks = self._current_masks() if env_has_masks else None
        return result

    def _current_masks(self) -> np.ndarray:
        """:return: Masks of the states that the environments are in ``[n_envs, n]``."""
        assert self.env is not None
        return self.branches.check_masks(get_action_masks(self.env), self.env.num_envs)

    @th.inference_mode()
    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        random_steps = learning_starts if self.random_steps is None else self.random_steps
        if self.num_timesteps < random_steps:
            logits = th.zeros(n_envs, self.branches.n)
            log_pi = self.branches.log_softmax(logits, None if self._last_masks is None else th.as_tensor(self._last_masks))
        else:
            obs = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            log_pi = self.policy.log_probs(obs, self._last_masks)
        if "entropy_penalty" in self.stable_kwargs:
            self._last_entropy = policy_entropy(log_pi).cpu().numpy()
        action = self.branches.to_env(self.branches.sample(log_pi))
        return action, action - self.branches.start  # the buffer counts from 0

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if isinstance(replay_buffer, SoftReplayBuffer) and replay_buffer.extras:
            replay_buffer.stage(**self._extra_columns(dones, infos))
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)  # type: ignore[arg-type]

    def _extra_columns(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """:return: What the replay buffer keeps of this transition beyond SB3's columns, by name ``[n_envs, ...]``."""
        columns = {}
        if "entropy_penalty" in self.stable_kwargs:
            columns["old_entropy"] = self._last_entropy
        if self._last_masks is not None:
            masks_next = masks_of_next_states(infos, dones, self.branches.n)
            masks_next = self.branches.check_masks(masks_next, len(dones))
            columns |= {"action_masks": self._last_masks, "next_action_masks": masks_next}
            # Where an episode has ended, the environment has been reset already
            self._last_masks = self._current_masks() if dones.any() else masks_next
        elif self._has_masks:
            everything = np.ones((len(dones), self.branches.n), dtype=bool)
            columns |= {"action_masks": everything, "next_action_masks": everything}
        return columns

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose actions; SB3's ``predict`` with sb3-contrib's ``action_masks``.

        :param observation: Observation or batch of observations.
        :param state: Not used, returned as it is (recurrent policies have one).
        :param episode_start: Not used.
        :param deterministic: Whether to take the most probable action instead of a sample.
        :param action_masks: True where an action is allowed, one row per observation; None if all are.
        :return: Actions of the action space, and the state.
        :raises ValueError: if a mask has the wrong shape or forbids everything.
        """
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "branches"]
