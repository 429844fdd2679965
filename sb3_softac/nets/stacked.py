"""
An ensemble of MLPs as one module, with weights ``[n_members, in, out]``.

One batched matrix product per layer in place of one product per member: half the operations for twin critics, and one
whole product per core instead of a split one (measured in ``benchmarks/update.py``).
"""

import math
from itertools import pairwise

import torch as th
from torch import nn


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

    def forward(self, x: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param x: Inputs ``[n_members, batch, in_features]``.
        :param frozen: Let gradients pass to ``x`` but not to the parameters.
        :return: Outputs ``[n_members, batch, out_features]``.
        """
        weight, bias = (self.weight.detach(), self.bias.detach()) if frozen else (self.weight, self.bias)
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
        self.layers = nn.ModuleList(StackedLinear(n_members, *shape) for shape in pairwise(sizes))
        self.activation = activation_fn()

    def forward(self, x: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param x: Inputs common to all members ``[batch, input_dim]``.
        :param frozen: Let gradients pass to ``x`` but not to the parameters.
        :return: Outputs ``[n_members, batch, output_dim]``.
        """
        x = x.expand(self.n_members, *x.shape)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x, frozen))
        return self.layers[-1](x, frozen)

    def particles(self, common: th.Tensor, particles: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        The same MLPs on inputs that share their first part: K particles per row of the batch.

        The first layer is linear, so the shared part goes through it once per row instead of once per particle.

        :param common: First part of the inputs ``[batch, common_dim]``.
        :param particles: Second part ``[batch, K, input_dim - common_dim]``.
        :param frozen: Let gradients pass to the inputs but not to the parameters.
        :return: Outputs ``[n_members, batch, K, output_dim]``.
        """
        batch, k, _ = particles.shape
        first = self.layers[0]
        assert isinstance(first, StackedLinear)
        weight, bias = (first.weight.detach(), first.bias.detach()) if frozen else (first.weight, first.bias)
        n_common = common.shape[1]
        rows = th.baddbmm(bias, common.expand(self.n_members, *common.shape), weight[:, :n_common])
        own = particles.flatten(0, 1).expand(self.n_members, batch * k, -1) @ weight[:, n_common:]
        x = (rows.unsqueeze(2) + own.unflatten(1, (batch, k))).flatten(1, 2)
        for layer in self.layers[1:]:
            x = layer(self.activation(x), frozen)
        return x.unflatten(1, (batch, k))
