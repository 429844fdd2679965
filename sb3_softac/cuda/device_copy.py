"""A replay buffer's observations, actions and extra columns on the device of the networks."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import TensorDict

from sb3_softac.common.buffers import Draw, SoftReplayBuffer, SoftReplayBufferSamples

# Part of the device's free memory that the copy may take; the rest is for networks, activations and other programs.
SHARE = 0.5


class DeviceDraws(NamedTuple):
    """Several :class:`~sb3_softac.common.buffers.Draw` as tensors on the device, one per gradient step."""

    places: th.Tensor
    """Numbers of the first and last transitions, counted through rows and environments ``[gradient_steps, 2, batch]``."""
    numbers: th.Tensor
    """Rewards, dones and, for n-step targets, discounts ``[gradient_steps, 2 or 3, batch, 1]``."""


class DeviceCopy:
    """
    Follows a replay buffer on another device, so that a batch is gathered there and only its numbers are sent.

    The buffer itself stays on the host, where transitions come from, where it is saved, and where its memory need not be given
    in advance. Rewards and ends, a few bytes per transition, are not copied: what becomes of them is decided on the host.

    :param buffer: Replay buffer.
    :param device: Device of the networks.
    """

    def __init__(self, buffer: SoftReplayBuffer, device: th.device):
        self.buffer, self.device = buffer, device
        self._n_seen = 0
        self._copy_all()

    @staticmethod
    def fits(buffer: SoftReplayBuffer, device: th.device) -> bool:
        """
        :param buffer: Replay buffer.
        :param device: Device of the networks.
        :return: Whether there is room for the copy.
        """
        arrays = [array for store in buffer._stores.values() for array in (store.pieces, store.index)]
        size = sum(array.nbytes for array in [*arrays, buffer.actions, *buffer.extras.values()])
        return size < SHARE * th.cuda.mem_get_info(device)[0]

    def _send(self, array: np.ndarray) -> th.Tensor:
        # Without waiting for the device: memory that is not pinned has been read when this returns
        return th.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True, copy=True)

    def _copy_all(self) -> None:
        stores = self.buffer._stores
        self._pieces = {key: self._send(store.pieces) for key, store in stores.items()}
        self._index = {key: self._send(store.index) for key, store in stores.items()}
        self._columns = {"": self._send(self.buffer.actions)}
        self._columns |= {name: self._send(column) for name, column in self.buffer.extras.items()}
        self._n_seen = self.buffer.n_added

    def tensors(self) -> list[th.Tensor]:
        """:return: The tensors of the copy; others after the buffer has grown."""
        return [*self._pieces.values(), *self._index.values(), *self._columns.values()]

    def follow(self) -> None:
        """Send what was added to the buffer since the last time."""
        size, new = self.buffer.buffer_size, self.buffer.n_added - self._n_seen
        if new == 0:
            return
        stores = self.buffer._stores
        if new >= size or any(len(store.pieces) != len(self._pieces[key]) for key, store in stores.items()):
            self._copy_all()
            return
        rows = (self.buffer.pos - 1 - np.arange(new)) % size
        there = self._send(rows)
        for key, store in stores.items():
            # Whatever pieces are new, the new rows refer to them
            slots = np.unique(store.index[:, rows])
            self._pieces[key][self._send(slots).long()] = self._send(store.pieces[slots])
            self._index[key][:, there] = self._send(store.index[:, rows])
        self._columns[""][there] = self._send(self.buffer.actions[rows])
        for name, column in self.buffer.extras.items():
            self._columns[name][there] = self._send(column[rows])
        self._n_seen = self.buffer.n_added

    def send(self, draws: list[Draw]) -> DeviceDraws:
        """
        :param draws: What the buffer has drawn, one per gradient step.
        :return: The same on the device.
        """
        n_envs = self.buffer.n_envs
        places = [[rows * n_envs + columns for rows, columns in (draw.first, draw.last)] for draw in draws]
        numbers = [[part for part in draw[2:] if part is not None] for draw in draws]
        return DeviceDraws(self._send(np.array(places)), self._send(np.array(numbers)))

    def gather(self, draws: DeviceDraws, step: int) -> SoftReplayBufferSamples:
        """
        :param draws: What :meth:`send` returned.
        :param step: Gradient step.
        :return: The batch, as the buffer's own ``sample`` makes it.
        """
        first, last = draws.places[step]
        rewards, dones, *discounts = draws.numbers[step]
        columns = {
            name: column.flatten(0, 1).index_select(0, last if name.startswith("next_") else first)
            for name, column in self._columns.items()
        }
        return SoftReplayBufferSamples(
            observations=self._observations(0, first),
            actions=columns.pop(""),
            next_observations=self._observations(1, last),
            dones=dones,
            rewards=rewards,
            discounts=discounts[0] if discounts else None,
            extras=columns,
        )

    def _observations(self, which: int, places: th.Tensor) -> th.Tensor | TensorDict:
        parts = {}
        for key, store in self.buffer._stores.items():
            index = self._index[key][which].flatten(0, 1).index_select(0, places)
            parts[key] = self._pieces[key].index_select(0, index.flatten()).reshape(len(places), *store.shape)
        return parts if self.buffer._is_dict else parts[""]
