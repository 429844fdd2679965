"""Engines: ways to do a gradient step. The specification is :class:`PyTorchEngine`; others compute the same numbers faster."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th

from sb3_softac.replay.batch import make_batch

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm


class StepResult(NamedTuple):
    """What gradient steps report."""

    names: list[str]
    """Names of the logged values."""
    losses: list[str]
    """Names of the losses that have a gradient."""
    values: th.Tensor
    """The logged values, then the largest norm of a gradient of each loss ``[n_steps, n_names + n_losses]``; the step was
    skipped if one of them is NaN or infinite."""
    finite: bool = True
    """False if a step was skipped because something was not finite; True also where only the device knows."""


class Engine(ABC):
    """
    A way to do the gradient steps of a model.

    A subclass that is listed in ``ENGINES`` is asked before each round of gradient steps of every model.

    :param model: Model.
    """

    def __init__(self, model: "SoftOffPolicyAlgorithm"):
        self.model = model

    @classmethod
    def is_wanted(cls, model: "SoftOffPolicyAlgorithm") -> bool:
        """:return: Whether to ask this engine for this model at all."""
        return True

    @abstractmethod
    def prepare(self, batch_size: int) -> str:
        """
        Get ready for a round of gradient steps.

        :return: The reason why this engine cannot do them; empty if it can.
        """

    def steps_at_once(self, wanted: int) -> int:
        """:return: How many steps the next call of :meth:`step` does, at most ``wanted``."""
        return 1

    def sample(self, batch_size: int) -> Any:
        """:return: One batch from the replay buffer, in the form that :meth:`step` takes."""
        model = self.model
        assert model.replay_buffer is not None
        return make_batch(model.replay_buffer.sample(batch_size, env=model._vec_normalize_env), model.gamma)

    @abstractmethod
    def step(self, batches: list[Any], target_weights: list[float]) -> StepResult:
        """
        :param batches: One batch for each gradient step.
        :param target_weights: 1 for each step after which the targets are updated, else 0.
        """


ENGINES: dict[str, type[Engine]] = {}
"""By name, in the order in which they are asked; an engine adds itself when it is imported."""


class PyTorchEngine(Engine):
    """Gradient steps by the model's own ``_update``; any model, any device."""

    def prepare(self, batch_size: int) -> str:
        self.model.prepare_networks()
        return ""

    def step(self, batches: list[Any], target_weights: list[float]) -> StepResult:
        model, (batch,), (weight,) = self.model, batches, target_weights
        logs = model._update(batch)
        finite = model._logs_stay_on_device() or bool(model._finite)
        if weight and finite:
            model.update_targets(weight)
        values = [each.detach().reshape(()) for part in (logs, model.gradient_norms) for each in part.values()]
        return StepResult(list(logs), list(model.gradient_norms), th.stack(values).unsqueeze(0), finite)


class StepLog:
    """Results of gradient steps, kept on the device until they are read, so that the host does not wait for it."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._losses: list[str] = []
        self._values: list[th.Tensor] = []
        self._n_steps = 0

    def __len__(self) -> int:
        return self._n_steps

    def add(self, result: StepResult) -> None:
        """Add gradient steps, with the same names as those before."""
        self._names, self._losses = result.names, result.losses
        self._values.append(result.values)
        self._n_steps += len(result.values)

    def read(self) -> tuple[list[str], list[str], np.ndarray]:
        """
        Take out all steps since the last call.

        :return: Names of the logged values, names of the losses, and the logged values and the norms of the gradients
            ``[n_names + n_losses, n_steps]``.
        """
        rows = self._values[0] if self._n_steps == 1 else th.cat(self._values)
        self._values, self._n_steps = [], 0
        return self._names, self._losses, np.array(rows.cpu().numpy().T, np.float64, order="C")
