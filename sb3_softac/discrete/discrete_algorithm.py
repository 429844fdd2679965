"""
Collecting, storing and resuming with discrete actions: branches, action masks and the columns that the replay buffer keeps.
"""

import warnings
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_softac.algorithm.arguments import ARGUMENTS
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.algorithm.policies import require_finite_actions
from sb3_softac.checks import Argument
from sb3_softac.discrete.branches import Branches
from sb3_softac.discrete.masked_play import ADVICE, mask_evaluations, masks_behind
from sb3_softac.discrete.masks import (
    MASK_KEY,
    ask_masks,
    dead_ends,
    has_masks,
    keep_last_masks,
    masks_of_next_states,
    unread_masks,
    unread_masks_of_infos,
)
from sb3_softac.entropy.target_entropy import RatioTarget, discrete_target
from sb3_softac.equations.discrete_sac import policy_entropy
from sb3_softac.replay.batch import Batch

# Steps at the start of learn() in whose infos masks are looked for
N_INFOS = 10


class DiscreteOffPolicyAlgorithm(SoftOffPolicyAlgorithm):
    """Base of the algorithms with discrete actions: what they do outside of their gradient steps."""

    policy: Any
    """Has ``branches``, ``log_probs`` and ``predict`` with masks, see ``sb3_softac.discrete.masked_policy``."""
    branches: Branches
    arguments: ClassVar[dict[str, Argument]] = {
        **ARGUMENTS,
        "action_noise": Argument("None, because discrete actions have no noise", {None: None}.__getitem__),
    }
    entropy_target: RatioTarget
    masked = False
    """Whether the model was trained with masks; its replay buffer keeps them."""
    _env_has_masks = False
    """Whether the environment has masks that it is trained in now."""
    _masks: np.ndarray | None = None
    """Masks of the actions taken last, if the environment has masks ``[n_envs, n]``."""
    _last_log_pi: th.Tensor | None = None
    """Log-probabilities of the actions from which the last ones were drawn ``[n_envs, n]``."""
    _warnings_given: frozenset[str] = frozenset()

    @staticmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        Branches(action_space)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return keep_last_masks(SoftOffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper))

    def _setup_model(self) -> None:
        self.branches = Branches(self.action_space)
        if self.env is not None:
            self.masked = self.masked or has_masks(self.env)
        super()._setup_model()

    def _buffer_columns(self) -> dict[str, tuple[tuple[int, ...], type]]:
        names = ("action_masks", "next_action_masks") if self.masked else ()
        return {name: ((self.branches.n,), bool) for name in names}

    def _make_entropy_target(self) -> RatioTarget:
        return discrete_target(self._target_entropy, self.branches.max_entropy, self.device)

    def _max_entropies(self, entropy: th.Tensor, masks: th.Tensor | None) -> th.Tensor:
        """:return: Largest possible entropy in each state ``[batch]``, in nats."""
        return th.full_like(entropy, self.branches.max_entropy) if masks is None else self.branches.max_entropies(masks)

    def _entropy_logs(self, entropy: th.Tensor, max_entropy: th.Tensor) -> dict[str, th.Tensor]:
        """:return: What is logged of the policy's entropies in the states of a batch ``[batch]``."""
        return {
            "entropy": entropy.mean(),
            # The clamp is for batches in which no state has a choice: 0 in place of 0 / 0
            "entropy_ratio": entropy.mean() / max_entropy.mean().clamp(min=1e-8),
            "target_entropy_ratio": self.entropy_target.ratio,
        }

    def _q_taken(self, q: th.Tensor, batch: Batch) -> th.Tensor:
        """:return: Q-values of the actions taken ``[n_critics, batch]``, of the utilities of all options."""
        actions = batch.actions.long()
        return self.branches.select(q, actions.expand(len(q), *actions.shape))

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        result = super()._setup_learn(*args, **kwargs)
        self._env_has_masks, self._masks, self._last_log_pi = has_masks(self._env()), None, None
        columns = self._kept_columns()
        if self._env_has_masks and "action_masks" not in columns:
            raise ValueError(
                "The environment has action masks, but this model was created for an environment without them, and its "
                f"replay buffer does not store masks: load the model with it, {type(self).__name__}.load(path, env=env)"
            )
        mask_evaluations(result[1], self)
        if not self._env_has_masks:
            self._warn_about_masks(unread_masks(self._env()))
        return result

    def _warn_about_masks(self, found: str | None) -> None:
        """:param found: What looks like masks that nobody reads; None if there is nothing."""
        if found is not None:
            self._warn_once(
                f"The environment has {found}, but no method action_masks(). {type(self).__name__} reads masks from that "
                "method only, so it may choose invalid actions. If this is a mask, wrap each environment in sb3-contrib's "
                "ActionMasker, ActionMasker(env, function), with a function that returns the mask of the current state",
                about="unread masks",
            )

    @th.no_grad()
    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # Asked only now: a callback may have used the environment since its last step
        self._masks = ask_masks(self._env(), self.branches) if self._env_has_masks else None
        random_steps = learning_starts if self.random_steps is None else self.random_steps
        if self.num_timesteps < random_steps:
            logits = th.zeros(n_envs, self.branches.n)
            log_pi = self.branches.log_softmax(logits, None if self._masks is None else th.as_tensor(self._masks))
        else:
            obs = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            log_pi = self.policy.log_probs(obs, self._masks)
            require_finite_actions(log_pi)
        self._last_log_pi = log_pi
        if self.num_timesteps >= random_steps and self._has_own_predict():
            masks = {} if self._masks is None else {"action_masks": self._masks}
            action = np.asarray(self.predict(self._last_obs, deterministic=False, **masks)[0])  # type: ignore[arg-type]
        else:
            chosen = self.branches.choose(log_pi, deterministic=False).cpu().numpy()
            action = chosen.astype(self.action_space.dtype)
        return action, action - self.branches.start  # the buffer counts from 0

    def _has_own_predict(self) -> bool:
        """:return: Whether a user has replaced a method by which SB3's algorithms choose actions."""
        methods = self.predict, self.policy.predict, self.policy._predict
        return not all(method.__module__.startswith("sb3_softac.") for method in methods)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if self._last_log_pi is None and (self._env_has_masks or "old_entropy" in self._kept_columns()):
            raise RuntimeError(
                f"{type(self).__name__}._sample_action() did not call super()._sample_action(), which notes the action masks "
                "and the entropy of each step: to choose actions in another way, override predict()"
            )
        if not self._env_has_masks and self.num_timesteps - self._num_timesteps_at_start <= N_INFOS * self.n_envs:
            self._warn_about_masks(unread_masks_of_infos(infos, self.branches.n))
        ended = dead_ends(infos, dones, self.branches) if self._masks is not None else []
        if ended:
            self._warn_once(
                f"A time limit ended an episode of environment {ended[0]} in a state in which its mask allows no action. "
                "Such states are stored as terminal, without a value: let the environment return terminated=True in them"
            )
            infos = [{**info, "TimeLimit.truncated": False} if i in ended else info for i, info in enumerate(infos)]
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._masks = self._last_log_pi = None

    def _extra_columns(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        columns: dict[str, np.ndarray] = {}
        if self._masks is not None:
            masks_next, missing = masks_of_next_states(self._env(), infos, dones, self.branches)
            if missing:
                self._warn_once(
                    "The masks of the last states before time limits are not available, so all actions count as allowed in "
                    "them: wrap each environment in sb3_softac.discrete.masks.ActionMaskInfo, e.g. make_vec_env(..., "
                    f'wrapper_class=ActionMaskInfo), or let the vectorized environment put them into infos[i]["{MASK_KEY}"]'
                )
            columns |= {"action_masks": self._masks, "next_action_masks": masks_next}
        elif "action_masks" in self._kept_columns():
            everything = np.ones((len(dones), self.branches.n), dtype=bool)
            columns |= {"action_masks": everything, "next_action_masks": everything}
        if "old_entropy" in self._kept_columns():  # of DiscreteSAC's entropy penalty, which may have been left out since
            assert self._last_log_pi is not None
            columns["old_entropy"] = policy_entropy(self._last_log_pi).cpu().numpy()
        return columns

    def _kept_columns(self) -> Collection[str]:
        """:return: Names of what the replay buffer keeps beyond SB3's columns."""
        return getattr(self.replay_buffer, "extras", {}).keys()

    def _env(self) -> VecEnv:
        assert self.env is not None
        return self.env

    def _warn_once(self, message: str, about: str = "") -> None:
        """Warn, unless this model has warned about the same already; by default, with the same message."""
        if (about or message) not in self._warnings_given:
            self._warnings_given = self._warnings_given | {about or message}
            warnings.warn(message, stacklevel=2)

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
        :param state: Not used; returned unchanged (recurrent policies have one).
        :param episode_start: Not used.
        :param deterministic: Whether to take the most probable action instead of a sample.
        :param action_masks: True where an action is allowed, one row per observation. If None, the masks come from the
            environment that returned this observation object, if :class:`~sb3_softac.discrete.masked_play.MasksForPredict`
            knows it; otherwise all actions are allowed, and a model that was trained with masks warns once.
        :return: Actions of the action space, and the state.
        :raises ValueError: if a mask has the wrong shape or values, or forbids everything.
        """
        if action_masks is None:
            action_masks = masks_behind(observation)  # type: ignore[assignment]
            if action_masks is None and self.masked:
                self._warn_once(ADVICE)
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def _excluded_save_params(self) -> list[str]:
        own = ("branches", "_env_has_masks", "_masks", "_last_log_pi", "_warnings_given")
        return [*super()._excluded_save_params(), *own]
