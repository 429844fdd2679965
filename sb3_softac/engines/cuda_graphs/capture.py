"""Capture and replay: PyTorch's CUDA graphs, or a substitute."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch as th

Function = Callable[[], th.Tensor]
Replay = Callable[[], None]


class Capturer(Protocol):
    """Runs functions on a device, captures their operations, and replays them."""

    device_type: str
    """Type of its devices, such as ``"cuda"``."""

    def free_memory(self) -> int:
        """:return: Bytes that are free on the device."""

    def warm_up(self, function: Function) -> th.Tensor:
        """The result of a function without arguments, without a capture."""

    def capture(self, function: Function) -> tuple[th.Tensor, Replay]:
        """Record a function's operations without running them; returns its tensor, and a function that replays them."""


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """An earlier model that is freed during a capture would abort it, because its graphs are destroyed at once."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class CudaCapturer:
    """PyTorch's CUDA graphs."""

    device_type = "cuda"

    def __init__(self, device: th.device):
        self.device = device
        self._side_stream: th.cuda.Stream | None = None

    def free_memory(self) -> int:
        return th.cuda.mem_get_info(self.device)[0]

    def warm_up(self, function: Function) -> th.Tensor:
        """Run on a separate stream, as in a capture."""
        with th.cuda.device(self.device):
            stream = self._stream()
            stream.wait_stream(th.cuda.current_stream())
            try:
                with th.cuda.stream(stream):
                    return function()
            finally:
                # Also after an error: memory that is freed then must not be used again before this stream has read it
                th.cuda.current_stream().wait_stream(stream)

    def capture(self, function: Function) -> tuple[th.Tensor, Replay]:
        graph = th.cuda.CUDAGraph()
        with th.cuda.device(self.device), no_garbage_collection(), self._as_before_on_failure():
            # Other threads may use the device meanwhile
            with th.cuda.graph(graph, stream=self._stream(), capture_error_mode="thread_local"):
                result = function()
        return result, graph.replay

    def _stream(self) -> th.cuda.Stream:
        """:return: The stream of warm-ups and captures: one, because the gradients of a parameter belong to a stream."""
        if self._side_stream is None:
            self._side_stream = th.cuda.Stream()
        return self._side_stream

    @contextmanager
    def _as_before_on_failure(self) -> Iterator[None]:
        """A capture that fails leaves PyTorch on the stream of the capture, and its generator waiting for one to end."""
        stream = th.cuda.current_stream()
        generator = th.cuda.default_generators[th.cuda.current_device()]
        state = generator.clone_state()
        try:
            yield
        except BaseException:
            th.cuda.set_stream(stream)
            generator.graphsafe_set_state(state)
            raise
