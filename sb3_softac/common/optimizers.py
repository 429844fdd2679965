"""Optimizers whose step can be withheld on the device, without asking the host, and an Adam that is quicker on a CPU."""

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
        groups = [self._tensors(group) for group in self.param_groups]
        if closure is not None or None in groups:
            return super().step(closure)
        found_inf = getattr(self, "found_inf", None)
        for group, tensors in zip(self.param_groups, groups, strict=True):
            assert tensors is not None
            parameters, gradients, exp_avgs, exp_avg_sqs, steps = tensors
            th._foreach_add_(steps, 1.0 if found_inf is None else [1.0 - found_inf] * len(steps))
            beta1, beta2 = group["betas"]
            th._fused_adam_(
                parameters,
                gradients,
                exp_avgs,
                exp_avg_sqs,
                [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
                found_inf=found_inf,
            )
        return None

    def _tensors(self, group: dict[str, Any]) -> tuple[list[Any], ...] | None:
        """
        :return: Parameters with gradients, their gradients, first and second moments and numbers of steps; None if the group
            is not on a CPU, has not taken a step or asks for something special.
        """
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        special = group["amsgrad"] or group["decoupled_weight_decay"] or isinstance(group["lr"], th.Tensor)
        if special or not group["fused"] or getattr(self, "grad_scale", None) is not None:
            return None
        if not states or not all(states) or not all(parameter.is_cpu for parameter in parameters):
            return None
        moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
        return parameters, [parameter.grad for parameter in parameters], *moments, [state["step"] for state in states]


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
