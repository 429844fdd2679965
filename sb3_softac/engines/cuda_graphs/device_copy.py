"""A replay buffer's observations, actions and extra columns on the device of the networks."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import TensorDict

from sb3_softac.replay.buffer import SoftReplayBuffer
from sb3_softac.replay.samples import BatchIndices, SoftReplayBufferSamples


class DrawnBatches(NamedTuple):
    """Batches of several gradient steps, as tensors."""

    transitions: th.Tensor
    """Indices of the first and last transitions, counted over rows and environments ``[gradient_steps, 2, batch]``."""
    numbers: th.Tensor
    """Rewards, dones and, for n-step targets, discounts ``[gradient_steps, 2 or 3, batch, 1]``."""


def _single(array: np.ndarray) -> th.Tensor:
    """:return: The array as a tensor of the precision that networks read, on the host."""
    return th.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else np.ascontiguousarray(array))


class DeviceCopy:
    """
    Mirrors a replay buffer on another device, so that batches are gathered there and only their indices are sent.

    The buffer itself stays on the host, where transitions come from, where it is saved, and where its memory need not be
    allocated in advance. Rewards and ends, a few bytes per transition, are not copied, because targets are computed from them
    on the host. Overwriting actions or extra columns of existing rows is not detected.
    """

    def __init__(self, buffer: SoftReplayBuffer, device: th.device):
        self.buffer, self.device = buffer, device
        self._n_seen, self._versions = buffer.n_added, self._buffer_versions()
        self._pieces = {key: self._send(store.pieces) for key, store in buffer.stores.items()}
        self._index = {key: self._send(store.index) for key, store in buffer.stores.items()}
        self._actions = self._send(buffer.actions)
        self._extras = {name: self._send(column) for name, column in buffer.extras.items()}

    @staticmethod
    def size(buffer: SoftReplayBuffer) -> int:
        """Bytes of a copy of the buffer as it is allocated now."""
        arrays = [array for store in buffer.stores.values() for array in (store.pieces, store.index)]
        return sum(array.nbytes for array in [*arrays, buffer.actions, *buffer.extras.values()])

    def follows(self, buffer: SoftReplayBuffer) -> bool:
        """Whether it is the copied buffer, and has only received new transitions since."""
        return self.buffer is buffer and self._versions == self._buffer_versions()

    def _buffer_versions(self) -> list[int]:
        return [store.version for store in self.buffer.stores.values()]

    def _send(self, array: np.ndarray) -> th.Tensor:
        # Without waiting for the device: memory that is not pinned has been read when this returns
        return _single(array).to(self.device, non_blocking=True, copy=True)

    def update(self) -> None:
        """Send the transitions that were added to the buffer since the last call."""
        buffer, size = self.buffer, self.buffer.buffer_size
        new = min(buffer.n_added - self._n_seen, size)
        start = buffer.pos - new
        for rows in (slice(max(start, 0), buffer.pos), slice(start + size, size)):  # the second are at the end of the ring
            if rows.start >= rows.stop:
                continue
            for key, store in buffer.stores.items():
                # Whatever pieces are new, the new rows refer to them
                slots = store.index[:, rows].astype(np.int64).ravel()
                self._pieces[key].index_copy_(0, self._send(slots), self._send(store.pieces[slots]))
                self._index[key][:, rows].copy_(_single(store.index[:, rows]), non_blocking=True)
            self._actions[rows].copy_(_single(buffer.actions[rows]), non_blocking=True)
            for name, column in buffer.extras.items():
                self._extras[name][rows].copy_(_single(column[rows]), non_blocking=True)
        self._n_seen = buffer.n_added

    def on_host(self, draws: list[BatchIndices]) -> DrawnBatches:
        """Draws of the buffer, one per gradient step, still on the host."""
        transitions = [[draw.first, draw.last] for draw in draws]
        numbers = [[part for part in draw[2:] if part is not None] for draw in draws]
        return DrawnBatches(th.from_numpy(np.array(transitions)), th.from_numpy(np.array(numbers, np.float32)))

    def gather(self, batches: DrawnBatches, step: int) -> SoftReplayBufferSamples:
        """The batch of a gradient step, as from the buffer's own ``sample``; the batches are on the device."""
        first, last = batches.transitions[step]
        rewards, dones, *discounts = batches.numbers[step]
        return SoftReplayBufferSamples(
            observations=self._observations(0, first),
            actions=self._actions.flatten(0, 1).index_select(0, first),
            next_observations=self._observations(1, last),
            dones=dones,
            rewards=rewards,
            discounts=discounts[0] if discounts else None,
            extras={
                name: column.flatten(0, 1).index_select(0, last if name.startswith("next_") else first)
                for name, column in self._extras.items()
            },
        )

    def _observations(self, which: int, transitions: th.Tensor) -> th.Tensor | TensorDict:
        parts = {}
        for key, store in self.buffer.stores.items():
            index = self._index[key][which].flatten(0, 1).index_select(0, transitions)
            parts[key] = self._pieces[key].index_select(0, index.flatten()).reshape(len(transitions), *store.shape)
        return parts if self.buffer.is_dict else parts[""]
