"""
One agent on several processes: each has its own environments and replay buffer, and their gradients are averaged.

Nothing here has an effect unless the program has joined a process group, ``torch.distributed.init_process_group``.
"""

from collections.abc import Sequence
from typing import Any

import torch as th
from torch import distributed


def is_distributed() -> bool:
    """:return: Whether this is one of several processes that train one agent."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """:return: Rank of this process; 0 if it is alone."""
    return distributed.get_rank() if is_distributed() else 0


@th.no_grad()
def average(tensors: Sequence[th.Tensor]) -> None:
    """Replace tensors by their means over all processes, which are bit-identical in all of them."""
    flat = th.cat([tensor.flatten() for tensor in tensors])
    _sum(flat)
    flat /= distributed.get_world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def all_agree(agrees: bool, device: th.device) -> bool:
    """Whether all processes agree."""
    objections = th.tensor(float(not agrees), device=device)
    _sum(objections)
    return not objections


def _sum(tensor: th.Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    try:
        distributed.all_reduce(tensor)
    except RuntimeError as error:
        raise RuntimeError(
            f"Process {rank()} has lost the other processes that train this agent: one of them has ended because of an "
            "error, see its output. If checkpoints were kept, resume the training from the last one"
        ) from error


@th.no_grad()
def broadcast(tensors: Sequence[th.Tensor]) -> None:
    """Give the tensors the values that they have in the first process."""
    for tensor in tensors:
        distributed.broadcast(tensor, src=0)


def common(values: Sequence[Any]) -> set[Any]:
    """The values that all processes have."""
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, list(values))
    return set.intersection(*map(set, gathered))


def broadcast_object(value: Any) -> Any:
    """The value in the first process."""
    holder = [value]
    distributed.broadcast_object_list(holder, src=0)
    return holder[0]
