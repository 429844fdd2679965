"""An ensemble of MLPs as one module, with weights ``[n_members, in, out]``: one batched matrix product per layer."""

import math
from itertools import pairwise

import torch as th
from torch import nn


class StackedLinear(nn.Module):
    """``n_members`` independent linear layers, each initialised as PyTorch's ``nn.Linear``."""

    def __init__(self, n_members: int, in_features: int, out_features: int):
        super().__init__()
        bound = 1.0 / math.sqrt(in_features)
        self.weight = nn.Parameter(th.empty(n_members, in_features, out_features))
        self.bias = nn.Parameter(th.empty(n_members, 1, out_features))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """:return: Outputs ``[n_members, batch, out_features]`` of inputs ``[n_members, batch, in_features]``."""
        return th.baddbmm(self.bias, x, self.weight)


class StackedMLP(nn.Module):
    """``n_members`` independent MLPs of the same shape that read the same input."""

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

    def forward(self, x: th.Tensor) -> th.Tensor:
        """:return: Outputs ``[n_members, batch, output_dim]`` of inputs common to all members ``[batch, input_dim]``."""
        x = x.expand(self.n_members, -1, -1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)
