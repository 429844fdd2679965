"""The finite check on the device: which values it checks, and how it skips a step."""

from collections.abc import Iterator

import torch as th
from torch import nn

from sb3_softac.replay.batch import Batch


def is_fused(optimizer: th.optim.Optimizer) -> bool:
    """:return: Whether all its parameters are stepped by a fused kernel; a loaded state may change that."""
    return all(group.get("fused") for group in optimizer.param_groups)


def step_if(optimizer: th.optim.Optimizer, finite: th.Tensor) -> None:
    """
    Step the optimizer if and only if a flag on the device is 1.

    A fused optimizer reads the flag in its kernel (the mechanism of gradient scaling), so the host does not wait. For any
    other optimizer the host reads the flag.
    """
    if is_fused(optimizer):
        optimizer.grad_scale, optimizer.found_inf = None, 1.0 - finite  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.found_inf = None  # type: ignore[attr-defined]  # a step that is not fused refuses it
    elif finite:
        optimizer.step()


def largest_norms(tensors: dict[str, list[th.Tensor]]) -> dict[str, th.Tensor]:
    """
    The largest norm of the tensors of each name. It is not finite if an element is not, or if one exceeds 1e19, because its
    square, and with it Adam's second moment, overflows.
    """
    if not tensors:
        return {}
    norms = th.stack(th._foreach_norm([tensor for each in tensors.values() for tensor in each]))  # all in one operation
    parts = norms.split([len(each) for each in tensors.values()])
    return {name: part.amax() for name, part in zip(tensors, parts, strict=True)}


def find_faults(policy: nn.Module, batch: Batch | None) -> list[str]:
    """Names of the parts of the batch, and of the parameters and buffers, that are not finite; called after a failed step."""
    named = [*_parts(batch), *policy.state_dict().items()]  # a module may keep more than tensors in its state
    return [name for name, tensor in named if isinstance(tensor, th.Tensor) and not tensor.isfinite().all()]


def _parts(batch: Batch | None) -> Iterator[tuple[str, th.Tensor]]:
    for name, part in ({} if batch is None else batch._asdict()).items():
        for key, tensor in part.items() if isinstance(part, dict) else [("", part)]:
            yield f"{name} of the batch{key and f' ({key})'}", tensor
