"""
The replay buffer of all algorithms: SB3's, but in less memory, with n-step targets also for dictionaries, and with extra
columns such as action masks.
"""

from operator import attrgetter
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples, TensorDict
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac.replay import row_checks
from sb3_softac.replay.observation_store import ObservationStore
from sb3_softac.replay.row_view import RowView, RowViews, refuse
from sb3_softac.replay.samples import BatchIndices, Samples, SoftReplayBufferSamples, n_step_targets

EXTRAS = "sb3_softac.extras"
"""Key under which an info has the values of extra columns, a dictionary by name."""


def with_extras(infos: list[dict[str, Any]], columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """:return: Copies of the infos that carry the values of extra columns ``[n_envs, ...]`` to the replay buffer."""
    return [{**info, EXTRAS: {name: values[i] for name, values in columns.items()}} for i, info in enumerate(infos)]


class SoftReplayBuffer(ReplayBuffer):
    """
    SB3's ReplayBuffer, DictReplayBuffer and NStepReplayBuffer in one, with extra columns.

    Time limits, n-step targets, several environments and VecNormalize are handled as in SB3, and the same random numbers give
    the same samples. Observations are stored once, so ``observations`` and ``next_observations`` can be read as SB3's arrays
    are, but not written (:class:`~sb3_softac.replay.row_view.RowView`; ``np.asarray`` makes an array). All other columns are
    arrays that can be changed; ``dones`` and ``timeouts`` are booleans.

    :param buffer_size: Number of transitions.
    :param observation_space: Observation space.
    :param action_space: Action space.
    :param device: Device of the samples.
    :param n_envs: Number of parallel environments.
    :param optimize_memory_usage: Not supported; use SB3's ReplayBuffer for it.
    :param handle_timeout_termination: Whether to distinguish time limits from terminations.
    :param n_steps: Number of rewards in a target before it bootstraps.
    :param gamma: Discount factor, for ``n_steps`` greater than 1.
    :param extras: Additional columns of a transition: shape and dtype by name. A name that starts with ``next_`` belongs to
        the state that the transition (with n-step targets: the last transition) leads to.
    :param single_precision: Whether to round double-precision observations to single precision, for half the memory. Samples
        are in single precision anyway, but VecNormalize then receives rounded numbers.
    :raises ValueError: if ``optimize_memory_usage`` is set, or a number is out of its range.
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
        single_precision: bool = False,
    ):
        if optimize_memory_usage:
            raise ValueError("SoftReplayBuffer has no optimize_memory_usage: use SB3's ReplayBuffer for it")
        row_checks.check_numbers(buffer_size, n_envs, n_steps, gamma)
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage, self.handle_timeout_termination = False, handle_timeout_termination
        self.n_steps, self.gamma = n_steps, gamma
        self.is_dict = isinstance(observation_space, spaces.Dict)
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        self.stores = {key: ObservationStore(space, size, n_envs, single_precision) for key, space in parts.items()}
        self.actions = np.zeros((size, n_envs, self.action_dim), dtype=self._maybe_cast_dtype(action_space.dtype))
        self.rewards = np.zeros((size, n_envs), dtype=np.float32)
        self.dones, self.timeouts = np.zeros((size, n_envs), dtype=bool), np.zeros((size, n_envs), dtype=bool)
        self.extras = {name: np.zeros((size, n_envs, *shape), dtype) for name, (shape, dtype) in (extras or {}).items()}
        self.n_added = 0
        """Rows added since the start, including those that have been overwritten."""
        columns = [self.actions, self.rewards, self.dones, self.timeouts, *self.extras.values()]
        row_checks.warn_about_memory(sum(map(attrgetter("nbytes"), [*columns, *self.stores.values()])))

    @property
    def observations(self) -> Any:
        """All observations in SB3's layout ``[buffer_size, n_envs, ...]``, read-only."""
        return self._views(False)

    @observations.setter
    def observations(self, values: Any) -> None:
        refuse()

    @property
    def next_observations(self) -> Any:
        """All next observations in SB3's layout ``[buffer_size, n_envs, ...]``, read-only."""
        return self._views(True)

    @next_observations.setter
    def next_observations(self, values: Any) -> None:
        refuse()

    def _views(self, next_obs: bool) -> Any:
        views = RowViews((key, RowView(store, next_obs)) for key, store in self.stores.items())
        return views if self.is_dict else views[""]

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
        :param infos: Infos; ``TimeLimit.truncated`` distinguishes a time limit from a termination, and the values of the
            extra columns are in ``info["sb3_softac.extras"]``, see :func:`~sb3_softac.replay.buffer.with_extras`.
        :raises ValueError: if a shape is not that of the space, if keys or extra columns are missing or unknown, or if ``pos``
            was set.
        """
        # Everything is checked before anything is stored
        stores, pos, n_envs = self.stores, self.pos, self.n_envs
        obs, next_obs = row_checks.by_key("obs", obs, stores.keys()), row_checks.by_key("next_obs", next_obs, stores.keys())
        pairs = [store.fit(obs[key], next_obs[key], f"[{key!r}]" if key else "") for key, store in stores.items()]
        actions = row_checks.as_row("action", action, (n_envs, self.action_dim), reshape=True)
        rewards = row_checks.as_row("reward", reward, (n_envs,))
        dones = row_checks.as_row("done", done, (n_envs,))
        timeouts = row_checks.time_limits(infos, n_envs) if self.handle_timeout_termination else False
        has_extras = self.extras or any(EXTRAS in info for info in infos[:1])
        extras = row_checks.extra_columns([info.get(EXTRAS, {}) for info in infos], self.extras) if has_extras else {}
        for store, pair in zip(stores.values(), pairs, strict=True):
            store.add(pos, *pair)
        self.actions[pos], self.rewards[pos], self.dones[pos], self.timeouts[pos] = actions, rewards, dones, timeouts
        for name, values in extras.items():
            self.extras[name][pos] = values
        self.n_added += 1
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def extend(self, *args: Any, **kwargs: Any) -> None:
        """
        Add several transitions per environment, one after the other.

        :param args: The arguments of :meth:`add`, each with a leading axis of steps; dictionaries of such arrays too.
        :param kwargs: The same, by name.
        :raises ValueError: if the numbers of steps differ, or as :meth:`add` does.
        """
        for transition in zip(*map(row_checks.steps, [*args, *kwargs.values()]), strict=True):
            self.add(*transition[: len(args)], **dict(zip(kwargs, transition[len(args) :], strict=True)))

    def reset(self) -> None:
        """Forget all transitions."""
        super().reset()
        self.timeouts[:] = False
        for store in self.stores.values():
            store.clear()

    def end_episodes(self) -> None:
        """End n-step targets at the newest transitions, as at a time limit: the environments were reset from outside."""
        if self.size() > 0:
            self.timeouts[self.pos - 1] |= ~self.dones[self.pos - 1]

    def keep_double_precision(self) -> None:
        """Store double-precision observations without rounding from now on; those already stored stay rounded."""
        for store in self.stores.values():
            store.keep_double_precision()

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Samples:  # type: ignore[override]
        """
        Draw transitions uniformly, with replacement.

        :param batch_size: Number of transitions.
        :param env: Normalization of observations and rewards, if any.
        :return: The transitions on the device.
        :raises ValueError: if the batch or the buffer is empty.
        """
        return self._get_samples(self._draw_rows(batch_size), env)

    def draw(self, batch_size: int) -> BatchIndices:
        """As :meth:`sample`, but return only the positions, and what is computed on the host."""
        return self._draw(self._draw_rows(batch_size), None)

    def _draw_rows(self, batch_size: int) -> np.ndarray:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if self.size() == 0:
            raise ValueError("The replay buffer is empty: call add() or learn() before sampling from it")
        return np.random.randint(0, self.size(), size=batch_size)

    def _draw(self, rows: np.ndarray, env: VecNormalize | None) -> BatchIndices:
        columns = np.random.randint(0, self.n_envs, size=len(rows))  # also for one: the same random stream as SB3's
        first = last = rows * self.n_envs + columns
        discounts: np.ndarray | None = None
        if self.n_steps == 1:
            rewards = self._normalize_reward(self.rewards.take(first), env).astype(np.float32)
        else:
            way = (rows[:, None] + np.arange(self.n_steps)) % self.buffer_size
            each = way * self.n_envs + columns[:, None]
            # A target ends with its episode, and at the newest transition, after which come the oldest ones
            ends = self.dones.take(each) | self.timeouts.take(each) | (way == (self.pos - 1) % self.buffer_size)
            each_reward = self._normalize_reward(self.rewards.take(each), env)
            lengths, rewards, discounts = n_step_targets(each_reward, ends, self.gamma)
            last, discounts = (rows + lengths) % self.buffer_size * self.n_envs + columns, discounts[:, None]
        dones = (self.dones.take(last) & ~self.timeouts.take(last)).astype(np.float32)[:, None]
        return BatchIndices(first, last, rewards[:, None], dones, discounts)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Samples:  # type: ignore[override]
        draw = self._draw(batch_inds, env)
        parts: dict[str, Any] = {
            "observations": self._observations(False, draw.first, env),
            "actions": self._tensor(_rows_of(self.actions, draw.first)),
            "next_observations": self._observations(True, draw.last, env),
            "dones": self._tensor(draw.dones),
            "rewards": self._tensor(draw.rewards),
            "discounts": None if draw.discounts is None else self._tensor(draw.discounts),
        }
        if not self.extras:
            return DictReplayBufferSamples(**parts) if self.is_dict else ReplayBufferSamples(**parts)
        extras = {
            name: self._tensor(_rows_of(column, draw.last if name.startswith("next_") else draw.first))
            for name, column in self.extras.items()
        }
        return SoftReplayBufferSamples(**parts, extras=extras)

    def _observations(self, next_obs: bool, where: np.ndarray, env: VecNormalize | None) -> th.Tensor | TensorDict:
        parts = {key: store.get(next_obs, where) for key, store in self.stores.items()}
        values = self._normalize_obs(parts if self.is_dict else parts[""], env)
        return {key: self._tensor(part) for key, part in values.items()} if isinstance(values, dict) else self._tensor(values)

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        # Indexing by arrays has made a copy already
        return th.as_tensor(array.astype(self._maybe_cast_dtype(array.dtype), copy=False), device=self.device)


def _rows_of(column: np.ndarray, where: np.ndarray) -> np.ndarray:
    """:return: Values of a column ``[size, n_envs, ...]`` at positions counted over both, a copy."""
    return column.reshape(-1, *column.shape[2:]).take(where, axis=0)


def end_episodes(replay_buffer: ReplayBuffer | None) -> None:
    """Prevent n-step targets from crossing a reset that no environment has reported."""
    if isinstance(replay_buffer, SoftReplayBuffer):
        replay_buffer.end_episodes()
    elif isinstance(replay_buffer, NStepReplayBuffer) and replay_buffer.handle_timeout_termination and replay_buffer.size():
        newest = (replay_buffer.pos - 1) % replay_buffer.buffer_size
        running = replay_buffer.dones[newest] == 0
        replay_buffer.dones[newest, running] = replay_buffer.timeouts[newest, running] = 1.0
