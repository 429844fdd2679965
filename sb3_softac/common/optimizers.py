"""Optimizers whose step can be withheld on the device, without asking the host."""

from collections.abc import Callable, Iterable
from typing import Any

import torch as th


class QuickAdam(th.optim.Adam):
    """
    PyTorch's fused Adam without its bookkeeping, which on a CPU takes longer than the kernel.

    The parameters of its constructor, its state and its results are those of ``th.optim.Adam``.
    """

    def zero_grad(self, set_to_none: bool = True) -> None:
        """
        :param set_to_none: True to forget the gradients, False to fill them with zeros.
        """
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @th.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """
        :param closure: Function that computes the loss and its gradients anew.
        :return: The loss if there is a closure.
        """
        trained = [[parameter for parameter in group["params"] if parameter.grad is not None] for group in self.param_groups]
        if closure is not None or not all(map(self._is_plain, self.param_groups, trained)):
            return super().step(closure)
        found_inf = getattr(self, "found_inf", None)
        for group, parameters in zip(self.param_groups, trained, strict=True):
            states = [self.state[parameter] for parameter in parameters]
            steps = [state["step"] for state in states]
            th._foreach_add_(steps, 1.0 if found_inf is None else [1.0 - found_inf] * len(steps))
            th._fused_adam_(
                parameters,
                [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
                found_inf=found_inf,
            )
        return None

    def _is_plain(self, group: dict[str, Any], parameters: list[th.Tensor]) -> bool:
        """:return: Whether a group is on a CPU, has taken a step and asks for nothing special."""
        if group["amsgrad"] or group["decoupled_weight_decay"] or not group["fused"] or isinstance(group["lr"], th.Tensor):
            return False
        if getattr(self, "grad_scale", None) is not None:
            return False
        return bool(parameters) and all(p.device.type == "cpu" and self.state[p] for p in parameters)


def make_optimizer(
    optimizer_class: type[th.optim.Optimizer], params: Iterable[th.nn.Parameter], lr: float, kwargs: dict[str, Any]
) -> th.optim.Optimizer:
    """
    Make an optimizer, with the fused kernel where PyTorch's Adam or AdamW has not been told otherwise.

    PyTorch's default on a CPU is a loop over the parameters, about 1 ms of an 8 ms update. :class:`QuickAdam` stands in for
    Adam.

    :param optimizer_class: Class of the optimizer.
    :param params: Parameters to optimise.
    :param lr: Initial learning rate.
    :param kwargs: Further keyword arguments; they win over the default.
    :return: The optimizer.
    """
    plain = not {"fused", "foreach", "capturable", "differentiable"} & kwargs.keys()
    if optimizer_class in (th.optim.Adam, th.optim.AdamW) and plain:
        kwargs = {"fused": True, **kwargs}
        optimizer_class = QuickAdam if optimizer_class is th.optim.Adam else optimizer_class
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
