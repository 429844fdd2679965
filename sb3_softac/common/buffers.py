"""
The replay buffer of all algorithms: SB3's in less memory, with n-step targets for dictionaries too, and extra columns such as
action masks.
"""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac.common.observation_store import ObservationStore


class SoftReplayBufferSamples(NamedTuple):
    """SB3's samples and, in a dictionary, the extra columns."""

    observations: th.Tensor | TensorDict
    actions: th.Tensor
    next_observations: th.Tensor | TensorDict
    dones: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor | None
    extras: TensorDict


class Draw(NamedTuple):
    """What a batch consists of: where its transitions are in the replay buffer, and what is decided on the host."""

    first: tuple[np.ndarray, np.ndarray]
    """Rows and environments of the first transition of each target ``[batch]``."""
    last: tuple[np.ndarray, np.ndarray]
    """Those of the last transition; for 1-step targets the same."""
    rewards: np.ndarray
    """Discounted sums of rewards ``[batch, 1]``."""
    dones: np.ndarray
    """1 where the last transition led to a terminal state ``[batch, 1]``."""
    discounts: np.ndarray | None
    """Discounts of the values behind the last transitions ``[batch, 1]``; None for the algorithm's gamma."""


class SoftReplayBuffer(ReplayBuffer):
    """
    SB3's ReplayBuffer, DictReplayBuffer and NStepReplayBuffer in one, with extra columns.

    Time limits, n-step targets, several environments and VecNormalize mean what they mean there, and the same random numbers
    draw the same samples. Observations are stored once, in the precision that the networks use.

    :param buffer_size: Number of transitions.
    :param observation_space: Observation space.
    :param action_space: Action space.
    :param device: Device of the samples.
    :param n_envs: Number of parallel environments.
    :param optimize_memory_usage: Not supported; SB3's own ReplayBuffer has it.
    :param handle_timeout_termination: Whether time limits are told from terminations.
    :param n_steps: Number of rewards in a target before it bootstraps.
    :param gamma: Discount factor, for ``n_steps`` greater than 1.
    :param extras: Further columns of a transition: shape and dtype by name. A name that begins with ``next_`` belongs to the
        state that the transition (with n-step targets: the last of them) leads to.
    :raises ValueError: if memory optimisation is asked for.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        n_steps: int = 1,
        gamma: float = 0.99,
        extras: dict[str, tuple[tuple[int, ...], Any]] | None = None,
    ):
        if optimize_memory_usage:
            raise ValueError(
                "SoftReplayBuffer has no memory optimisation: use replay_buffer_class=ReplayBuffer (SB3's) for it"
            )
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage, self.handle_timeout_termination = False, handle_timeout_termination
        self.n_steps, self.gamma = n_steps, gamma
        self._is_dict = isinstance(observation_space, spaces.Dict)
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        self._stores = {key: ObservationStore(space, size, n_envs) for key, space in parts.items()}
        self.actions = np.zeros((size, n_envs, self.action_dim), dtype=self._maybe_cast_dtype(action_space.dtype))
        self.rewards = np.zeros((size, n_envs), dtype=np.float32)
        self.dones = np.zeros((size, n_envs), dtype=bool)
        self.timeouts = np.zeros((size, n_envs), dtype=bool)
        self.extras = {name: np.zeros((size, n_envs, *shape), dtype) for name, (shape, dtype) in (extras or {}).items()}
        self._staged: dict[str, np.ndarray] = {}
        self.n_added = 0
        """Rows added since the start, also those that have been overwritten."""

    @property
    def observations(self) -> np.ndarray | dict[str, np.ndarray]:  # type: ignore[override]
        """All observations as SB3 keeps them ``[buffer_size, n_envs, ...]``: a copy, to look at."""
        return self._whole(next_obs=False)

    @property
    def next_observations(self) -> np.ndarray | dict[str, np.ndarray]:  # type: ignore[override]
        """All next observations as SB3 keeps them ``[buffer_size, n_envs, ...]``: a copy, to look at."""
        return self._whole(next_obs=True)

    def _whole(self, next_obs: bool) -> np.ndarray | dict[str, np.ndarray]:
        rows, columns = np.indices((self.buffer_size, self.n_envs))
        parts = {
            key: store.get(next_obs, (rows.flatten(), columns.flatten())).reshape(self.buffer_size, self.n_envs, *store.shape)
            for key, store in self._stores.items()
        }
        return parts if self._is_dict else parts[""]

    def stage(self, **extras: np.ndarray) -> None:
        """
        Give the extra columns of the transition that is added next.

        :param extras: Values by name ``[n_envs, ...]``.
        """
        self._staged = extras

    def add(  # type: ignore[override]
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Store one transition per environment.

        :param obs: Observations ``[n_envs, ...]``.
        :param next_obs: Next observations; after the end of an episode its last one, not the first of the next.
        :param action: Actions ``[n_envs, ...]``.
        :param reward: Rewards ``[n_envs]``.
        :param done: Whether the episodes ended ``[n_envs]``.
        :param infos: Infos; ``TimeLimit.truncated`` tells a time limit from a termination.
        :raises ValueError: if an extra column was not given.
        """
        if missing := self.extras.keys() - self._staged.keys():
            raise ValueError(
                f"The extra columns {sorted(missing)} of the replay buffer have no values: call stage() before add()"
            )
        for key, store in self._stores.items():
            pair: Any = (obs[key], next_obs[key]) if self._is_dict else (obs, next_obs)
            store.add(self.pos, self.full, *pair)
        self.actions[self.pos] = np.reshape(action, (self.n_envs, self.action_dim))
        self.rewards[self.pos] = reward
        self.dones[self.pos] = done
        if self.handle_timeout_termination:
            self.timeouts[self.pos] = [info.get("TimeLimit.truncated", False) for info in infos]
        for name, column in self.extras.items():
            column[self.pos] = self._staged[name]
        self._staged = {}
        self.n_added += 1
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> SoftReplayBufferSamples:  # type: ignore[override]
        """
        Draw transitions uniformly, with replacement.

        :param batch_size: Number of transitions.
        :param env: Normalization of observations and rewards, if any.
        :return: The transitions on the device.
        """
        return self._get_samples(self._draw_rows(batch_size), env)

    def draw(self, batch_size: int) -> Draw:
        """
        Draw transitions as :meth:`sample` does, but leave them where they are.

        :param batch_size: Number of transitions.
        :return: Which ones, with their rewards.
        """
        return self._draw(self._draw_rows(batch_size), None)

    def _draw_rows(self, batch_size: int) -> np.ndarray:
        return np.random.randint(0, self.size(), size=batch_size)

    def _draw(self, rows: np.ndarray, env: VecNormalize | None) -> Draw:
        columns = np.random.randint(0, self.n_envs, size=len(rows))  # also for one: the same random stream as SB3's
        last, rewards, discounts = self._n_step(rows, columns, env)
        dones = (self.dones[last] & ~self.timeouts[last]).astype(np.float32)[:, None]
        return Draw((rows, columns), last, rewards[:, None], dones, discounts)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: np.ndarray, env: VecNormalize | None = None
    ) -> SoftReplayBufferSamples:
        draw = self._draw(batch_inds, env)
        extras = {
            name: self._tensor(column[draw.last if name.startswith("next_") else draw.first])
            for name, column in self.extras.items()
        }
        return SoftReplayBufferSamples(
            observations=self._observations(False, draw.first, env),
            actions=self._tensor(self.actions[draw.first]),
            next_observations=self._observations(True, draw.last, env),
            dones=self._tensor(draw.dones),
            rewards=self._tensor(draw.rewards),
            discounts=None if draw.discounts is None else self._tensor(draw.discounts),
            extras=extras,
        )

    def _n_step(
        self, rows: np.ndarray, columns: np.ndarray, env: VecNormalize | None
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray | None]:
        """
        :return: Where the last transition of each target stands, the discounted sum of its rewards ``[batch]`` and the
            discount of the value behind it ``[batch, 1]`` (None for 1-step targets: the algorithm's gamma).
        """
        if self.n_steps == 1:
            return (rows, columns), self._normalize_reward(self.rewards[rows, columns], env).astype(np.float32), None
        steps = np.arange(self.n_steps)
        indices = (rows[:, None] + steps) % self.buffer_size
        # A target ends with its episode, and at the newest transition, behind which the oldest ones follow
        ends = self.dones[indices, columns[:, None]] | (indices == (self.pos - 1) % self.buffer_size)
        lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), self.n_steps - 1)
        rewards = self._normalize_reward(self.rewards[indices, columns[:, None]], env)
        weights = np.where(steps <= lengths[:, None], self.gamma**steps, 0.0)
        returns = (rewards * weights).sum(axis=1).astype(np.float32)
        discounts = (self.gamma ** (lengths + 1.0)).astype(np.float32)[:, None]
        return (indices[np.arange(len(rows)), lengths], columns), returns, discounts

    def _observations(
        self, next_obs: bool, where: tuple[np.ndarray, np.ndarray], env: VecNormalize | None
    ) -> th.Tensor | TensorDict:
        parts = {key: store.get(next_obs, where) for key, store in self._stores.items()}
        if not self._is_dict:
            return self._tensor(self._normalize_obs(parts[""], env))  # type: ignore[arg-type]
        return {key: self._tensor(values) for key, values in self._normalize_obs(parts, env).items()}  # type: ignore[union-attr]

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        # Indexing by arrays has made a copy already
        return th.as_tensor(array, device=self.device)
