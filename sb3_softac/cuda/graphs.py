"""
Gradient steps as CUDA graphs: hundreds of small kernels launched at once.

A graph repeats what was captured, kernel by kernel, on the same memory and with the same numbers. Whatever may change between
two steps must therefore be in a tensor that is always the same, or be part of the key under which the graph is kept.
"""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch as th

# Launches before the capture that run as they are: they make what a capture cannot, optimizer states and workspaces.
WARM_UP = 3
Function = Callable[[], th.Tensor]


class Engine(Protocol):
    """Captures what a function does on the device."""

    def warm_up(self, function: Function) -> th.Tensor:
        """
        :param function: Function without arguments.
        :return: What it returned, run as it is.
        """

    def capture(self, function: Function) -> tuple[th.Tensor, Callable[[], None]]:
        """
        :param function: Function without arguments.
        :return: The tensor that it returns, and what runs it again, which has not happened yet.
        """


class CudaEngine:
    """PyTorch's CUDA graphs."""

    def warm_up(self, function: Function) -> th.Tensor:
        """
        :param function: Function without arguments.
        :return: What it returned, run on a stream of its own, as a capture will be.
        """
        stream = th.cuda.Stream()
        stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(stream):
            result = function()
        th.cuda.current_stream().wait_stream(stream)
        return result

    def capture(self, function: Function) -> tuple[th.Tensor, Callable[[], None]]:
        """
        :param function: Function without arguments.
        :return: The tensor that it returns, and what runs it again.
        :raises RuntimeError: if it does something that a graph cannot, such as waiting for the device.
        """
        graph = th.cuda.CUDAGraph()
        with th.cuda.graph(graph):
            result = function()
        return result, graph.replay


class Launcher:
    """
    One function of some tensors, run as it is until it is warm, and as a graph from then on.

    :param engine: What captures.
    :param function: Function of ``inputs``.
    :param inputs: First values of the tensors.
    :param optimizers: Optimizers that the function steps. Their learning rates are read anew for each launch.
    """

    def __init__(
        self,
        engine: Engine,
        function: Callable[..., th.Tensor],
        inputs: tuple[th.Tensor, ...],
        optimizers: list[th.optim.Optimizer],
    ):
        self.engine, self.optimizers = engine, optimizers
        self.inputs = tuple(value.clone() for value in inputs)
        self._function = lambda: function(*self.inputs)
        self._rates = [th.tensor(group["lr"], device=inputs[0].device) for group in self._groups()]
        self._launches = 0
        self._result: th.Tensor | None = None
        self._replay: Callable[[], None] | None = None

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def launch(self, inputs: tuple[th.Tensor, ...]) -> th.Tensor:
        """
        :param inputs: Values of the tensors.
        :return: What the function returns, a copy.
        :raises RuntimeError: if the function cannot be captured; it has not been run then.
        """
        for tensor, value in zip(self.inputs, inputs, strict=True):
            tensor.copy_(value)
        self._launches += 1
        if self._launches <= WARM_UP:
            return self.engine.warm_up(self._function)
        for rate, group in zip(self._rates, self._groups(), strict=True):
            rate.fill_(group["lr"])
        if self._replay is None:
            self._result, self._replay = self._capture()
        self._replay()
        assert self._result is not None
        return self._result.clone()

    def _capture(self) -> tuple[th.Tensor, Callable[[], None]]:
        """Capture with learning rates in tensors. The optimizers get their numbers back, which can be saved and changed."""
        before = [{name: group[name] for name in ("lr", "capturable")} for group in self._groups()]
        for rate, group in zip(self._rates, self._groups(), strict=True):
            group.update(lr=rate, capturable=True)
        try:
            return self.engine.capture(self._function)
        finally:
            for group, values in zip(self._groups(), before, strict=True):
                group.update(values)


class Graphs:
    """
    Functions by everything that they are captured with.

    :param engine: What captures.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._launchers: dict[Hashable, Launcher] = {}
        self._key: Hashable = None

    def launch(
        self,
        key: Hashable,
        variant: Hashable,
        function: Callable[..., th.Tensor],
        inputs: tuple[th.Tensor, ...],
        optimizers: list[th.optim.Optimizer],
    ) -> th.Tensor:
        """
        :param key: All numbers and places in memory that the function depends on. Another key drops all that was captured.
        :param variant: Which of the functions with the same key it is.
        :param function: Function of ``inputs``.
        :param inputs: Values of the tensors.
        :param optimizers: Optimizers that the function steps.
        :return: What the function returns, a copy.
        :raises RuntimeError: if the function cannot be captured; it has not been run then.
        """
        if key != self._key:
            self._key, self._launchers = key, {}
        if variant not in self._launchers:
            self._launchers[variant] = Launcher(self.engine, function, inputs, optimizers)
        return self._launchers[variant].launch(inputs)


def places_of(tensors: list[th.Tensor], optimizers: list[th.optim.Optimizer]) -> Hashable:
    """
    :param tensors: Tensors that a function reads or writes.
    :param optimizers: Optimizers that it steps.
    :return: Where in memory the tensors, the optimizers' parameters and their states are, which of them are trained, and the
        optimizers' options but for the learning rate: if any of it changes, so does this.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    options = [tuple((name, value) for name, value in group.items() if name not in ("params", "lr")) for group in groups]
    states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    trained = [parameter for group in groups for parameter in group["params"]]
    places = [(tensor.data_ptr(), tensor.requires_grad) for tensor in (*tensors, *trained, *states)]
    return tuple(options), tuple(places)
