"""
A function on the device: called directly while it warms up, replayed as a graph afterwards.

A graph repeats the captured kernels on the same memory and with the same scalars. Values that change from one launch to the
next have to be in persistent tensors, and nothing else that the function reads may have changed.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch as th

from sb3_softac.engines.cuda_graphs.capture import Capturer, Replay

# Launches before the capture that call the function: they create what a capture cannot, optimizer states and workspaces
WARM_UP = 3
FunctionOfTensors = TypeVar("FunctionOfTensors", bound=Callable[..., th.Tensor])


class CaptureError(Exception):
    """The function cannot be captured; none of it has been run on the device."""


class Launcher(Generic[FunctionOfTensors]):
    """
    A function of some tensors on the device, whose first values are ``inputs``, on the host.

    The learning rates of the optimizers that it steps are read before each launch. When anything else that it reads has
    changed, the owner must drop the launcher.
    """

    def __init__(
        self,
        capturer: Capturer,
        function: FunctionOfTensors,
        optimizers: Callable[[], list[th.optim.Optimizer]],
        inputs: tuple[th.Tensor, ...],
        device: th.device,
    ):
        self.capturer, self.function = capturer, function
        self._optimizers = optimizers
        self._inputs = tuple(value.to(device, copy=True) for value in inputs)
        self._rates_now = [float(group["lr"]) for group in self._groups()]
        self._rates = [th.tensor(rate, device=device) for rate in self._rates_now]
        self._n_launches = 0
        self._graph: tuple[th.Tensor, Replay] | None = None

    @property
    def n_replays(self) -> int:
        """Launches of the graph."""
        return max(self._n_launches - WARM_UP, 0)

    def capture_if_warm(self) -> None:
        """Capture the function once it has been called directly often enough; CaptureError if that fails."""
        if self._graph is None and self._n_launches >= WARM_UP:
            self._graph = self._capture()

    def launch(self, inputs: tuple[th.Tensor, ...]) -> th.Tensor:
        """Run the function with these values of its tensors, given on the host, and return a copy of its result."""
        for tensor, value in zip(self._inputs, inputs, strict=True):
            tensor.copy_(value, non_blocking=True)  # memory that is not pinned has been read when this returns
        self._n_launches += 1
        if self._graph is None:
            return self.capturer.warm_up(self._call)
        rates = [float(group["lr"]) for group in self._groups()]
        if rates != self._rates_now:
            for tensor, rate in zip(self._rates, rates, strict=True):
                tensor.fill_(rate)
            self._rates_now = rates
        result, replay = self._graph
        replay()
        return result.clone()

    def _call(self) -> th.Tensor:
        return self.function(*self._inputs)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers() for group in optimizer.param_groups]

    def _capture(self) -> tuple[th.Tensor, Replay]:
        """
        Capture with learning rates in tensors. Afterwards the optimizers have plain numbers again, which can be saved and
        changed.
        """
        groups = self._groups()
        before: list[dict[str, Any]] = [
            {name: group[name] for name in ("lr", "capturable") if name in group} for group in groups
        ]
        for rate, group in zip(self._rates, groups, strict=True):
            group.update(lr=rate, **({"capturable": True} if "capturable" in group else {}))
        try:
            return self.capturer.capture(self._call)
        except Exception as error:
            raise CaptureError(f"this update cannot be captured ({error})") from error
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)
