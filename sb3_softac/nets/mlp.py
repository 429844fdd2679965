"""
Multilayer perceptrons on a CPU by oneDNN, where their matrix products are large.

PyTorch calls MKL for products in single precision, which does without AVX-512 on processors of AMD; oneDNN, which comes with
PyTorch too, takes half the time there (``benchmarks/products.py``). A small product is over before oneDNN has been set up.
"""

from collections.abc import Iterable, Sequence
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
    :return: Whether their product is left to oneDNN.
    """
    return AVAILABLE and x.dim() == 2 and x.shape[0] * n_weights >= LARGE and x.dtype == th.float32 and x.device.type == "cpu"


def onednn_linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """
    :param x: Inputs ``[batch, in_features]``.
    :param weight: Weights ``[out_features, in_features]``.
    :param bias: Biases ``[out_features]``.
    :return: ``x @ weight.T + bias`` by oneDNN ``[batch, out_features]``.
    """
    return th.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def product(a: th.Tensor, b: th.Tensor) -> th.Tensor:
    """
    :param a: Matrix ``[m, k]``.
    :param b: Matrix ``[k, n]``.
    :return: ``a @ b`` ``[m, n]``.
    """
    return onednn_linear(a, b.t()) if by_onednn(a, b.numel()) else a @ b


def affine(x: th.Tensor, weight: th.Tensor, bias: th.Tensor, relu: bool) -> th.Tensor:
    """
    :param x: Inputs ``[batch, in_features]``.
    :param weight: Weights ``[in_features, out_features]``.
    :param bias: Biases ``[out_features]``.
    :param relu: Whether a ReLU follows.
    :return: Outputs of a layer ``[batch, out_features]``.
    """
    y = onednn_linear(x, weight.t(), bias) if by_onednn(x, weight.numel()) else th.addmm(bias, x, weight)
    return y.relu_() if relu else y  # oneDNN has a product with a ReLU, which turns NaN into 0


class MLPFunction(th.autograd.Function):
    """
    MLPs with ReLUs as one operation, forward and backward.

    As one operation they need fewer others, and a pass that trains the parameters and one that does not can share products.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: th.Tensor, frozen_x: th.Tensor | None, n_relu: int, *parameters: th.Tensor
    ) -> th.Tensor | tuple[th.Tensor, th.Tensor]:
        """
        :param ctx: Context.
        :param x: Inputs ``[batch, in_features]``, the same for all members.
        :param frozen_x: Further inputs, whose gradients do not reach the parameters ``[frozen_batch, in_features]``.
        :param n_relu: Number of layers, the first ones, with a ReLU.
        :param parameters: Weights of all layers and then biases: ``[out, in]`` and ``[out]`` for one MLP, or
            ``[n_members, in, out]`` and ``[n_members, 1, out]``.
        :return: Outputs ``[batch, out_features]``, or ``[n_members, batch, out_features]``; with ``frozen_x`` a pair of them.
        """
        ctx.n_rows, ctx.n_layers, ctx.n_relu = len(x), len(parameters) // 2, n_relu
        rows = x if frozen_x is None else th.cat([x, frozen_x])
        weights, biases = parameters[: ctx.n_layers], parameters[ctx.n_layers :]
        hidden, outputs = [], []
        for member in zip(*map(_matrices, weights), *map(_vectors, biases), strict=True):
            y = rows
            for layer in range(ctx.n_layers):
                y = affine(y, member[layer], member[ctx.n_layers + layer], relu=layer < n_relu)
                if layer < n_relu:
                    hidden.append(y)
            outputs.append(y)
        ctx.save_for_backward(rows, *weights, *hidden)
        ctx.stacked = weights[0].dim() == 3
        output = th.stack(outputs) if ctx.stacked else outputs[0]
        return output if frozen_x is None else output.split([len(x), len(frozen_x)], dim=-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *output_grads: th.Tensor) -> tuple[th.Tensor | None, ...]:
        """
        :param ctx: Context.
        :param output_grads: Gradients of the outputs, of their shapes.
        :return: Gradients of all arguments of :meth:`forward`.
        """
        rows, *tensors = ctx.saved_tensors
        weights, hidden = tensors[: ctx.n_layers], tensors[ctx.n_layers :]
        needs_x, needs_frozen_x, _, *needs_parameter = ctx.needs_input_grad
        needs_parameters = any(needs_parameter)
        grads: list[list[th.Tensor]] = [[] for _ in needs_parameter]
        x_grads, frozen_x_grads = [], []
        grad = output_grads[0] if len(output_grads) == 1 else th.cat(output_grads, dim=-2)
        for member, (g, *matrices) in enumerate(zip(_members(grad, ctx.stacked), *map(_matrices, weights), strict=True)):
            activations = hidden[member * ctx.n_relu : (member + 1) * ctx.n_relu]
            for layer in reversed(range(ctx.n_layers)):
                if layer < ctx.n_relu:
                    g = th.ops.aten.threshold_backward(g, activations[layer], 0)
                if needs_parameters:
                    inputs, trained = activations[layer - 1] if layer else rows, g[: ctx.n_rows]
                    grads[layer].append(_weight_grad(inputs[: ctx.n_rows], trained, matrices[layer]))
                    grads[ctx.n_layers + layer].append(trained.sum(dim=0, keepdim=ctx.stacked))
                if layer:
                    g = product(g, matrices[layer].t())
            if needs_x:
                x_grads.append(product(g[: ctx.n_rows], matrices[0].t()))
            if needs_frozen_x:
                frozen_x_grads.append(product(g[ctx.n_rows :], matrices[0].t()))
        parameter_grads: Iterable[th.Tensor | None] = [None] * len(grads)
        if needs_parameters:
            matrix_grads, vector_grads = grads[: ctx.n_layers], grads[ctx.n_layers :]
            both = [*matrix_grads, *vector_grads]
            parameter_grads = (
                map(th.stack, both) if ctx.stacked else [*[m.t() for (m,) in matrix_grads], *[v for (v,) in vector_grads]]
            )
        return _sum(x_grads), _sum(frozen_x_grads), None, *parameter_grads


def _sum(tensors: list[th.Tensor]) -> th.Tensor | None:
    return sum(tensors[1:], tensors[0]) if tensors else None


def _members(tensor: th.Tensor, stacked: bool) -> Sequence[th.Tensor]:
    return tensor.unbind(0) if stacked else (tensor,)


def _matrices(weight: th.Tensor) -> Sequence[th.Tensor]:
    """:return: The weights of each member ``[in, out]``."""
    return weight.unbind(0) if weight.dim() == 3 else (weight.t(),)


def _vectors(bias: th.Tensor) -> Sequence[th.Tensor]:
    """:return: The biases of each member ``[out]``."""
    return bias.squeeze(1).unbind(0) if bias.dim() == 3 else (bias,)


def _weight_grad(x: th.Tensor, grad: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """:return: The gradient of the weights ``[in, out]``."""
    if by_onednn(x, weight.numel()) and not weight.is_contiguous():
        return product(grad.t(), x).t()  # in memory as the weights are, else PyTorch copies it
    return product(x.t(), grad)


def linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    """
    PyTorch's ``linear``.

    :param x: Inputs ``[batch, in_features]``.
    :param weight: Weights ``[out_features, in_features]``.
    :param bias: Biases ``[out_features]``.
    :return: Outputs ``[batch, out_features]``.
    """
    return MLPFunction.apply(x, None, 0, weight, bias) if by_onednn(x, weight.numel()) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """PyTorch's ``nn.Linear`` by :func:`linear`; its constructor's parameters."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: Inputs ``[batch, in_features]``.
        :return: Outputs ``[batch, out_features]``.
        """
        return linear(x, self.weight, self.bias)


class ReluMLP(nn.Sequential):
    """Linear layers with a ReLU after each, but for the last if the number of modules is odd, by :class:`MLPFunction`."""

    largest: int
    """Number of weights of the largest layer."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: Inputs ``[batch, in_features]``.
        :return: Outputs ``[batch, out_features]``.
        """
        if not by_onednn(x, self.largest):
            return super().forward(x)
        weights, biases = self._parameters_of_layers()
        return MLPFunction.apply(x, None, len(self) // 2, *weights, *biases)

    def heads(self, x: th.Tensor, *layers: nn.Linear) -> Sequence[th.Tensor]:
        """
        :param x: Inputs ``[batch, in_features]``.
        :param layers: Linear layers on top of this network, which ends with a ReLU.
        :return: Outputs of each of them ``[batch, out_features]``.
        """
        if not by_onednn(x, self.largest):
            latent = super().forward(x)
            return [layer(latent) for layer in layers]
        weights, biases = self._parameters_of_layers()
        weights.append(th.cat([layer.weight for layer in layers]))
        biases.append(th.cat([layer.bias for layer in layers]))
        outputs = MLPFunction.apply(x, None, len(self) // 2, *weights, *biases)
        return outputs.split([layer.out_features for layer in layers], dim=1)

    def _parameters_of_layers(self) -> tuple[list[th.Tensor], list[th.Tensor]]:
        layers = list(self.children())[::2]
        return [layer.weight for layer in layers], [layer.bias for layer in layers]  # type: ignore[misc]


def quicken(network: Network) -> Network:
    """
    Leave a network to the functions above and let each ReLU write over its input, which nobody reads again.

    New memory for the same numbers takes longer than the comparison. Parameters and their names stay as they are.

    :param network: Network whose activations follow linear layers.
    :return: The same network.
    """
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear
        elif type(layer) is nn.ReLU:
            layer.inplace = True
    if type(network) is nn.Sequential:
        kinds = [type(layer) for layer in network.children()]
        if len(kinds) > 1 and kinds == ([Linear, nn.ReLU] * len(kinds))[: len(kinds)]:
            network.__class__ = ReluMLP  # type: ignore[assignment]
            network.largest = max(parameter.numel() for parameter in network.parameters())  # type: ignore[assignment]
    return network
