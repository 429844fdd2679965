"""
Linear layers on a CPU by oneDNN, where their matrix products are large.

PyTorch calls MKL for products in single precision, which does without AVX-512 on processors of AMD; oneDNN, which comes with
PyTorch too, takes half the time there (``benchmarks/products.py``). A small product is over before oneDNN has been set up.
"""

from typing import Any, TypeVar

import torch as th
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Multiplications from which on oneDNN is faster: a batch of 64 and 256 x 256 weights.
LARGE = 1 << 22
AVAILABLE = th.backends.mkldnn.is_available() and hasattr(th.ops.mkldnn, "_linear_pointwise")
Network = TypeVar("Network", bound=nn.Module)


def by_onednn(x: th.Tensor, n_weights: int) -> bool:
    """
    :param x: Inputs ``[batch, in_features]``.
    :param n_weights: Number of weights that each of them is multiplied with.
    :return: Whether :func:`linear` leaves their product to oneDNN.
    """
    return AVAILABLE and x.dim() == 2 and x.shape[0] * n_weights >= LARGE and x.dtype == th.float32 and x.device.type == "cpu"


def linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    """
    PyTorch's ``linear``.

    :param x: Inputs ``[batch, in_features]``.
    :param weight: Weights ``[out_features, in_features]``.
    :param bias: Biases ``[out_features]``.
    :return: Outputs ``[batch, out_features]``.
    """
    return OneDnnLinear.apply(x, weight, bias) if by_onednn(x, weight.numel()) else F.linear(x, weight, bias)


def product(a: th.Tensor, b: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """
    :param a: Matrix ``[m, k]``.
    :param b: Matrix ``[n, k]``.
    :param bias: Added to every row of the result ``[n]``.
    :return: ``a @ b.T`` by oneDNN ``[m, n]``.
    """
    return th.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


class OneDnnLinear(th.autograd.Function):
    """A linear layer whose three products are oneDNN's."""

    @staticmethod
    def forward(ctx: Any, x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
        """
        :param ctx: Context.
        :param x: Inputs ``[batch, in_features]``.
        :param weight: Weights ``[out_features, in_features]``.
        :param bias: Biases ``[out_features]``.
        :return: Outputs ``[batch, out_features]``.
        """
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        """
        :param ctx: Context.
        :param grad: Gradient of the outputs ``[batch, out_features]``.
        :return: Gradients of inputs, weights and biases.
        """
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        weight_grad = None
        if needs_weight:  # in memory as the weights are, else PyTorch copies it
            weight_grad = product(grad.t(), x.t()) if weight.is_contiguous() else product(x.t(), grad.t()).t()
        return product(grad, weight.t()) if needs_x else None, weight_grad, grad.sum(dim=0) if needs_bias else None


class Linear(nn.Linear):
    """PyTorch's ``nn.Linear`` by :func:`linear`; its constructor's parameters."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: Inputs ``[batch, in_features]``.
        :return: Outputs ``[batch, out_features]``.
        """
        return linear(x, self.weight, self.bias)


def quicken(network: Network) -> Network:
    """
    Leave the linear layers of a network to :func:`linear` and let each ReLU write over its input, which nobody reads again.

    New memory for the same numbers takes longer than the comparison. Parameters and their names stay as they are.

    :param network: Network whose activations follow linear layers.
    :return: The same network.
    """
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
        elif type(layer) is nn.ReLU:
            layer.inplace = True
    return network
