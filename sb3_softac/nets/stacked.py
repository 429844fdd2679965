"""
An ensemble of MLPs as one module, with weights ``[n_members, in, out]``.

One batched matrix product per layer in place of one product per member: half the operations for twin critics. Where products
are large, they take the time, and the members go through one by one, by the faster library.
"""

import math
from collections.abc import Iterator
from itertools import chain, pairwise

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_softac.nets.mlp import MLPFunction, by_onednn, linear, quicken

# Numbers in a hidden layer of one chunk of particles: half a megabyte (benchmarks/sql_update.py).
CHUNK = 1 << 17


class StackedLinear(nn.Module):
    """
    ``n_members`` independent linear layers, each initialised as PyTorch's ``nn.Linear``.

    :param n_members: Number of layers.
    :param in_features: Size of each input.
    :param out_features: Size of each output.
    """

    def __init__(self, n_members: int, in_features: int, out_features: int):
        super().__init__()
        bound = 1.0 / math.sqrt(in_features)
        self.weight = nn.Parameter(th.empty(n_members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(th.empty(n_members, 1, out_features).uniform_(-bound, bound))

    def weight_and_bias(self, frozen: bool) -> tuple[th.Tensor, th.Tensor]:
        """:return: ``[n_members, in_features, out_features]`` and ``[n_members, 1, out_features]``; no gradient if frozen."""
        return (self.weight.detach(), self.bias.detach()) if frozen else (self.weight, self.bias)

    def forward(self, x: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param x: Inputs ``[n_members, batch, in_features]``.
        :param frozen: Let gradients pass to ``x`` but not to the parameters.
        :return: Outputs ``[n_members, batch, out_features]``.
        """
        weight, bias = self.weight_and_bias(frozen)
        if weight.shape[2] == 1:
            # A batched product with a single column takes five times as long as the same sum written out.
            return (x * weight.transpose(1, 2)).sum(dim=2, keepdim=True) + bias
        return th.baddbmm(bias, x, weight)


class StackedMLP(nn.Module):
    """
    ``n_members`` independent MLPs of the same shape that read the same input.

    :param n_members: Number of MLPs, at least 1.
    :param input_dim: Size of the input.
    :param output_dim: Size of each output.
    :param net_arch: Sizes of the hidden layers; may be empty.
    :param activation_fn: Activation after each hidden layer.
    """

    def __init__(
        self,
        n_members: int,
        input_dim: int,
        output_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.n_members = n_members
        sizes = [input_dim, *net_arch, output_dim]
        self.widest = max(sizes[1:])
        self.largest = max(n_in * n_out for n_in, n_out in pairwise(sizes))
        self.layers = nn.ModuleList(StackedLinear(n_members, *shape) for shape in pairwise(sizes))
        self.activation = quicken(activation_fn())

    def forward(self, x: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param x: Inputs common to all members ``[batch, input_dim]``.
        :param frozen: Let gradients pass to ``x`` but not to the parameters.
        :return: Outputs ``[n_members, batch, output_dim]``.
        """
        if self._is_one_function(x):
            return MLPFunction.apply(x, None, len(self.layers) - 1, *self._parameters_of_layers(frozen))
        if by_onednn(x, self.largest):
            return th.stack([self._member(x, *layers) for layers in self._members(frozen)])
        x = x.expand(self.n_members, *x.shape)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x, frozen))
        return self.layers[-1](x, frozen)

    def forward_both(self, x: th.Tensor, frozen_x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Two forward passes at the price of one.

        :param x: Inputs whose gradients reach the parameters ``[batch, input_dim]``.
        :param frozen_x: Inputs whose gradients do not ``[frozen_batch, input_dim]``.
        :return: Outputs ``[n_members, batch, output_dim]`` and ``[n_members, frozen_batch, output_dim]``.
        """
        if self._is_one_function(x):
            return MLPFunction.apply(x, frozen_x, len(self.layers) - 1, *self._parameters_of_layers(frozen=False))
        return self(x), self(frozen_x, frozen=True)

    def _is_one_function(self, x: th.Tensor) -> bool:
        return by_onednn(x, self.largest) and isinstance(self.activation, nn.ReLU)

    def _parameters_of_layers(self, frozen: bool) -> Iterator[th.Tensor]:
        """:return: The weights of all layers, then their biases."""
        return chain(*zip(*[layer.weight_and_bias(frozen) for layer in self.layers], strict=True))  # type: ignore[operator]

    def _members(self, frozen: bool) -> Iterator[tuple[tuple[th.Tensor, th.Tensor], ...]]:
        """:return: For each member the weights ``[out, in]`` and biases ``[out]`` of its layers."""
        layers = []
        for layer in self.layers:
            weight, bias = layer.weight_and_bias(frozen)  # type: ignore[operator]
            layers.append([(w.t(), b) for w, b in zip(weight.unbind(0), bias.squeeze(1).unbind(0), strict=True)])
        return zip(*layers, strict=True)

    def _member(self, x: th.Tensor, *layers: tuple[th.Tensor, th.Tensor]) -> th.Tensor:
        """:return: Outputs of one member ``[batch, output_dim]``."""
        for weight, bias in layers[:-1]:
            x = self.activation(linear(x, weight, bias))
        return linear(x, *layers[-1])

    def particles(self, common: th.Tensor, particles: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        The same MLPs on inputs that share their first part: K particles per row of the batch.

        The first layer is linear, so the shared part goes through it once per row instead of once per particle. Without
        gradient a CPU goes through the rows in chunks whose hidden layers stay in its cache.

        :param common: First part of the inputs ``[batch, common_dim]``.
        :param particles: Second part ``[batch, K, input_dim - common_dim]``.
        :param frozen: Let gradients pass to the inputs but not to the parameters.
        :return: Outputs ``[n_members, batch, K, output_dim]``.
        """
        rows = max(CHUNK // (particles.shape[1] * self.widest), 1)
        if th.is_grad_enabled() or common.device.type != "cpu" or rows >= len(common):
            return self._particles(common, particles, frozen)
        chunks = zip(common.split(rows), particles.split(rows), strict=True)
        return th.cat([self._particles(*chunk, frozen) for chunk in chunks], dim=1)

    def _particles(self, common: th.Tensor, particles: th.Tensor, frozen: bool) -> th.Tensor:
        """:meth:`particles`, member by member: a product with so many rows gains nothing from a batch of two weights."""
        batch, k, _ = particles.shape
        n_common, flat, outputs = common.shape[1], particles.flatten(0, 1), []
        for (weight, bias), *others in self._members(frozen):
            rows = linear(common, weight[:, :n_common], bias)
            own = F.linear(flat, weight[:, n_common:])
            x = (rows.unsqueeze(1) + own.unflatten(0, (batch, k))).flatten(0, 1)
            outputs.append(self._member(self.activation(x), *others) if others else x)
        return th.stack(outputs).unflatten(1, (batch, k))
