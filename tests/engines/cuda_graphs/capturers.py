"""Capturers that count: CUDA graphs, and their substitute on a CPU."""

import torch as th
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sb3_softac.engines.cuda_graphs.capture import CudaCapturer

# What a capture does not allow: to read a tensor's value, and to send a number from the host.
FORBIDDEN = (th.ops.aten._local_scalar_dense.default, th.ops.aten.lift_fresh.default, th.ops.aten.nonzero.default)


class Recording(TorchDispatchMode):
    """Runs operations and notes them; :meth:`undo` gives all memory back what it held before."""

    def __init__(self):
        super().__init__()
        self.operations, self.before = [], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in FORBIDDEN:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        for tensor in tensors_in((args, kwargs or {})):
            storage = tensor.untyped_storage()
            self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = function(*args, **(kwargs or {}))
        # Aliases keep the memory of now, even if a tensor is given other memory later
        self.operations.append((function, *alias((args, kwargs or {}, result))))
        return result

    def undo(self):
        for storage, content in self.before.values():
            storage.copy_(content)

    @th.no_grad()
    def replay(self):
        for function, args, kwargs, result in self.operations:
            known = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, kwargs))}
            again = function(*args, **kwargs)
            for old, new in zip(tensors_in(result), tensors_in(again), strict=True):
                if old.untyped_storage().data_ptr() not in known:  # else a view, or changed in place
                    old.copy_(new)


def alias(tree):
    return tree_map_only(th.Tensor, lambda tensor: tensor.detach(), tree)


def tensors_in(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, th.Tensor)]


class Recorder:
    """
    CUDA graphs on a CPU: notes the operations of a function, and repeats them on the same memory with the same numbers. As on
    a GPU, nothing has been done there after a capture.
    """

    def warm_up(self, function):
        return function()

    def capture(self, function):
        recording, random_state = Recording(), th.get_rng_state()
        try:
            with recording:
                result = function()
        finally:
            recording.undo()
            th.set_rng_state(random_state)

        return result, recording.replay


DEVICE = "cuda" if th.cuda.is_available() else "cpu"


class CountingCapturer:
    """Counts captures and replays; of the first GPU if there is one, so that all tests of this folder run there."""

    device_type = DEVICE

    def __init__(self, memory=1 << 40):
        self.captures = self.replays = 0
        self.memory = memory
        self.inner = CudaCapturer(th.device("cuda", 0)) if DEVICE == "cuda" else Recorder()

    def free_memory(self):
        return self.memory

    def warm_up(self, function):
        return self.inner.warm_up(function)

    def capture(self, function):
        self.captures += 1
        result, replay = self.inner.capture(function)

        def counted():
            self.replays += 1
            replay()

        return result, counted
