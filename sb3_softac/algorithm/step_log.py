"""Logged values of gradient steps, kept on the device until they are read."""

import numpy as np
import torch as th


class StepLog:
    """Scalars of gradient steps. Adding to it does not make the host wait for the device; reading it does."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._values: list[th.Tensor] = []
        self._n_steps = 0

    def __len__(self) -> int:
        return self._n_steps

    def add(self, logs: dict[str, th.Tensor]) -> None:
        """
        :param logs: Scalars of one gradient step by name; the same names in every step.
        """
        self.add_steps(list(logs), th.stack(list(logs.values())).unsqueeze(0))

    def add_steps(self, names: list[str], values: th.Tensor) -> None:
        """
        :param names: Names of the scalars.
        :param values: Their values in several gradient steps ``[n_steps, n_names]``.
        """
        self._names = names
        self._values.append(values)
        self._n_steps += len(values)

    def read(self) -> dict[str, np.ndarray]:
        """:return: All values since the last call by name ``[n_steps]``, in double precision; the log is empty afterwards."""
        values = th.cat(self._values).cpu().numpy().astype(np.float64)
        self._values, self._n_steps = [], 0
        return dict(zip(self._names, values.T, strict=True))
