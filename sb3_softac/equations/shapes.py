"""The one shape check of the equations."""

import torch as th


def require_same_shape(**tensors: th.Tensor) -> None:
    """Refuse tensors of different shapes, by name, before broadcasting can mix up the batch."""
    # Where a program is recorded, the numbers of a shape are tensors or symbols, and cannot be compared
    if th.jit.is_tracing() or th.compiler.is_compiling():
        return
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"Expected tensors of one shape, got {shapes}: reshape them; otherwise they would be broadcast")
