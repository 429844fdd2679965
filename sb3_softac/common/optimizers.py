"""Optimizers whose step can be withheld on the device, without asking the host."""

from collections.abc import Iterable
from typing import Any

import torch as th


def make_optimizer(
    optimizer_class: type[th.optim.Optimizer], params: Iterable[th.nn.Parameter], lr: float, kwargs: dict[str, Any]
) -> th.optim.Optimizer:
    """
    Make an optimizer, with the fused kernel where PyTorch's Adam or AdamW has not been told otherwise.

    PyTorch's default on a CPU is a loop over the parameters, about 1 ms of an 8 ms update.

    :param optimizer_class: Class of the optimizer.
    :param params: Parameters to optimise.
    :param lr: Initial learning rate.
    :param kwargs: Further keyword arguments; they win over the default.
    :return: The optimizer.
    """
    plain = not {"fused", "foreach", "capturable", "differentiable"} & kwargs.keys()
    if optimizer_class in (th.optim.Adam, th.optim.AdamW) and plain:
        kwargs = {"fused": True, **kwargs}
    return optimizer_class(params, lr=lr, **kwargs)  # type: ignore[call-arg]


def step_if(optimizer: th.optim.Optimizer, ok: th.Tensor) -> None:
    """
    Step the optimizer if, and only if, a flag on the device is 1.

    A fused optimizer reads the flag in its kernel (the mechanism of gradient scaling), so the host does not wait. Any other
    optimizer has to ask the device.

    :param optimizer: The optimizer, with gradients in place.
    :param ok: 1.0 to step, 0.0 to leave parameters and optimizer state as they are; no dimensions, on their device.
    """
    if optimizer.defaults.get("fused"):
        optimizer.grad_scale, optimizer.found_inf = None, 1.0 - ok  # type: ignore[attr-defined]
        optimizer.step()
    elif ok:
        optimizer.step()
