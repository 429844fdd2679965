"""Batches of the default replay buffer, gathered where C reads them."""

from operator import is_
from typing import Any

import numpy as np
import torch as th

from sb3_softac.algorithm import engine
from sb3_softac.algorithm.changes import Functions
from sb3_softac.replay import buffer as replay_buffer
from sb3_softac.replay.batch import Batch
from sb3_softac.replay.buffer import SoftReplayBuffer
from sb3_softac.replay.observation_store import ObservationStore

METHODS = (
    *("sample", "draw", "size", "to_torch", "_draw_rows", "_draw", "_get_samples", "_observations", "_tensor"),
    *("_normalize_obs", "_normalize_reward", "_maybe_cast_dtype"),
)


class DirectBatch:
    """
    One batch, filled again for each gradient step: no tensors have to be made, and its addresses stay the same.

    :param buffer: The replay buffer, for which :func:`can_be_direct` holds.
    :param batch_size: Number of transitions.
    """

    def __init__(self, buffer: SoftReplayBuffer, batch_size: int):
        self.buffer, self.batch_size = buffer, batch_size
        (self._store,) = buffer.stores.values()
        self._sources = self._arrays()
        columns = {"actions": buffer.actions, **buffer.extras}
        self._columns = {name: np.empty((batch_size, *each.shape[2:]), each.dtype) for name, each in columns.items()}
        self._obs, self._next_obs = np.empty((2, batch_size, *self._store.shape), np.float32)
        self._numbers = np.empty((3, batch_size, 1), np.float32)
        extras = {name: th.from_numpy(each) for name, each in self._columns.items()}
        rewards, dones, discounts = th.from_numpy(self._numbers[..., 0])
        self.batch = Batch(
            obs=th.from_numpy(self._obs),
            actions=extras.pop("actions"),
            rewards=rewards,
            dones=dones,
            discounts=discounts,
            next_obs=th.from_numpy(self._next_obs),
            extras=extras,
        )

    def _arrays(self) -> list[Any]:
        buffer, store = self.buffer, self._store
        return [store, store.pieces, store.index, buffer.actions, *buffer.extras.values()]

    def is_for(self, buffer: Any, batch_size: int) -> bool:
        """:return: Whether it can be filled from this buffer, which has grown or changed otherwise if it cannot."""
        return buffer is self.buffer and batch_size == self.batch_size and all(map(is_, self._arrays(), self._sources))

    def fill(self, gamma: float) -> Batch:
        """:return: Transitions drawn from the buffer, as its ``sample`` draws them; they are there until the next call."""
        buffer, store = self.buffer, self._store
        draw = buffer.draw(self.batch_size)
        store.get(False, draw.first, self._obs)
        store.get(True, draw.last, self._next_obs)
        for name, out in self._columns.items():
            column = buffer.actions if name == "actions" else buffer.extras[name]
            where = draw.last if name.startswith("next_") else draw.first
            column.reshape(-1, *column.shape[2:]).take(where, axis=0, out=out, mode="clip")
        numbers = self._numbers
        numbers[0], numbers[1], numbers[2] = draw.rewards, draw.dones, gamma if draw.discounts is None else draw.discounts
        return self.batch


ORIGINAL = Functions(
    {
        SoftReplayBuffer: METHODS,
        ObservationStore: ("get",),
        replay_buffer: ("n_step_targets", "SoftReplayBufferSamples"),
        engine: ("make_batch",),
    }
)


def can_be_direct(buffer: Any) -> bool:
    """:return: Whether a buffer is the default one, with arrays of single-precision numbers as observations."""
    if type(buffer) is not SoftReplayBuffer or len(buffer.stores) > 1 or buffer.is_dict:
        return False
    (store,) = buffer.stores.values()
    as_in_c = store.pieces.dtype == np.float32 and buffer.actions.dtype in (np.float32, np.int64)
    return as_in_c and type(store) is ObservationStore
