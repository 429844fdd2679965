"""The engine that does gradient steps in C, as long as C supports the model."""

import os
from typing import Any

import numpy as np
import torch as th

from sb3_softac.algorithm.distributed import is_distributed
from sb3_softac.algorithm.engine import Engine, PyTorchEngine, StepResult
from sb3_softac.engines.native.direct_batch import METHODS, ORIGINAL, DirectBatch, can_be_direct
from sb3_softac.engines.native.discretesac_plan import DiscretePlan
from sb3_softac.engines.native.library import load
from sb3_softac.engines.native.plan import Plan
from sb3_softac.engines.native.softac_v1_plan import SoftACPlan
from sb3_softac.engines.native.unsupported import Unsupported, require

SWITCH = "SB3_SOFTAC_FAST"
# Transitions of a batch times parameters of the policy: with two hidden layers of 256, two threads from a batch of 120 on
WORK_PER_THREAD = 20_000_000
PLANS: list[type[Plan]] = [SoftACPlan, DiscretePlan]


class NativeEngine(Engine):
    """Gradient steps in C; see :class:`~sb3_softac.algorithm.engine.Engine`."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.plan: Plan | None = None
        """The model in the form that C needs; None if C does not support it."""
        self._prepared_for: tuple[int, int, int] = (0, 0, 0)
        self._grads_are_stale = False
        self._direct: DirectBatch | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "plan": None, "_direct": None}  # a copy of the model has other addresses

    def __str__(self) -> str:
        assert self.plan is not None
        return f"Gradient steps run in C, threads: {self.plan.n_threads}"

    def prepare(self, batch_size: int) -> str:
        try:
            self._make_plan(batch_size)
        except Unsupported as reason:
            self.plan = None
            return f"Gradient steps run in PyTorch: {reason}"
        assert self.plan is not None
        self.plan.begin()
        self._grads_are_stale = True
        return ""

    def _make_plan(self, batch_size: int) -> None:
        """:raises Unsupported: if the model needs PyTorch."""
        model = self.model
        require(os.environ.get(SWITCH) != "0", f"{SWITCH}=0")
        require(not th.is_autocast_enabled("cpu"), "autocast is not supported in C")
        model.watch.look()
        prepared_for = (model.watch.version, batch_size, th.get_num_threads())
        if self.plan is not None and prepared_for == self._prepared_for and self.plan.replaced.are_original():
            return
        require(model.device.type == "cpu", "the networks are not on the CPU")
        require(not is_distributed(), "several processes average their gradients")
        library, reason = load()
        require(library, reason)
        kind = next((kind for kind in PLANS if isinstance(model, kind.algorithm)), None)
        require(kind, f"{type(model).__name__} is not supported in C")
        assert kind is not None
        self._prepared_for, self.plan = prepared_for, None
        try:
            plan = kind(model, batch_size, self._fitting_threads(batch_size))
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            # Parts of the model have been replaced by something unreadable; PyTorch's own error says more
            raise Unsupported(f"the model cannot be read ({error})") from error
        model.check_networks()  # also the parts that C does not read
        self.plan = plan

    def _fitting_threads(self, batch_size: int) -> int:
        """:return: Number of threads, at most PyTorch's number, such that each has enough work."""
        work = batch_size * sum(parameter.numel() for parameter in self.model.policy.parameters())
        return max(1, min(th.get_num_threads(), batch_size, work // WORK_PER_THREAD))

    def sample(self, batch_size: int) -> Any:
        model = self.model
        buffer: Any = model.replay_buffer
        if self._direct is None or not self._direct.is_for(buffer, batch_size):
            self._direct = DirectBatch(buffer, batch_size) if can_be_direct(buffer) else None
        plain = model._vec_normalize_env is None and vars(buffer).keys().isdisjoint(METHODS) and ORIGINAL.are_original()
        return self._direct.fill(model.gamma) if self._direct is not None and plain else super().sample(batch_size)

    def step(self, batches: list[Any], target_weights: list[float]) -> StepResult:
        model, plan, (batch,), (weight,) = self.model, self.plan, batches, target_weights
        assert plan is not None
        try:
            logs, norms, finite = plan.step(batch, model.tau * weight)
        except Unsupported:  # a batch that C does not know
            model.prepare_networks()
            self._grads_are_stale = True
            return PyTorchEngine(model).step(batches, target_weights)
        if self._grads_are_stale:
            plan.forget_gradients()
            self._grads_are_stale = False
        values = th.from_numpy(np.array([[*logs.values(), *norms.values()]], np.float64))
        return StepResult(list(logs), list(norms), values, finite)
