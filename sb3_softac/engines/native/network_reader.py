"""Reads networks and optimizers into the structures of the C library."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_softac.engines.native.library import Layer, Network, Slot
from sb3_softac.engines.native.unsupported import require
from sb3_softac.nets.stacked import StackedLinear, StackedMLP

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 0, nn.Tanh: 1}
OPTIMIZERS = (th.optim.Adam, th.optim.AdamW)


def check_extractor(network: Any) -> None:
    """Refuse a network that does more with observations than flatten them."""
    extractor = network.features_extractor
    name = type(extractor).__name__
    require(type(extractor) is FlattenExtractor and type(extractor.flatten) is nn.Flatten, f"{name} is not supported in C")
    require((extractor.flatten.start_dim, extractor.flatten.end_dim) == (1, -1), f"{name} is not supported in C")


def address(tensor: th.Tensor, *shape: int, dtype: th.dtype = th.float32) -> int:
    """
    The address of a tensor's first element; every address that C gets comes from here.

    :raises Unsupported: unless the memory there is what C assumes: elements of this type and shape, dense, on the CPU.
    """
    require(type(tensor) in (th.Tensor, nn.Parameter), f"{type(tensor).__name__} is not supported in C")
    require(tensor.shape == shape, "a tensor does not have the shape that the networks need")
    as_expected = tensor.device.type == "cpu" and tensor.dtype == dtype and tensor.layout == th.strided
    require(as_expected and tensor.is_contiguous(), f"a tensor is not dense, of {dtype} and on the CPU")
    return tensor.data_ptr()


def size_of(weight: Any, dimension: int) -> int:
    """:return: The size of a dimension of a weight."""
    require(isinstance(weight, th.Tensor) and weight.dim() > 0, "a layer has no weight")
    return weight.shape[dimension]


class NetworkReader:
    """Reads the networks of one model, and keeps references to the tensors whose addresses are in use."""

    def __init__(self) -> None:
        self.tensors: list[th.Tensor] = []
        self.gradients: dict[th.Tensor, int] = {}
        """Position of a trained tensor's gradient in a thread's gradient buffer."""
        self.targets: dict[th.Tensor, th.Tensor] = {}
        """The tensor of a target network that follows a trained tensor."""
        self.n_gradients = 0
        self._layers: list[object] = []

    def train(self, tensor: th.Tensor) -> int:
        """Give a trained tensor's gradient its position."""
        require(tensor not in self.gradients, "networks share parameters")
        self.gradients[tensor] = self.n_gradients
        self.n_gradients += tensor.numel()
        return self.gradients[tensor]

    def sequential(
        self, modules: Sequence[nn.Module], heads: Sequence[nn.Module], n_in: int, head_out: int, trained: bool
    ) -> Network:
        """
        A network of alternating linear layers and activations, whose last output all ``heads`` read, linear layers of
        ``head_out`` units each. ``trained`` is False for a target network.
        """
        linears, activations = list(modules[::2]), list(modules[1::2])
        require(len(linears) == len(activations), "the layers of a network are not alternating linear layers and activations")
        require(all(type(layer) is nn.Linear for layer in [*linears, *heads]), "a layer is not an nn.Linear")
        layers: list[Layer] = []
        for linear in linears:
            width = size_of(linear.weight, 0)
            layers.append(self._layer(linear, n_in, width, trained))
            n_in = width
        layers += [self._layer(head, n_in, head_out, trained) for head in heads]
        return self._network(layers, len(heads), activations)

    def stacked(self, mlp: StackedMLP, n_in: int, n_out: int, trained: bool) -> "list[Network]":
        """The networks of a stack one by one, each with ``n_in`` inputs and ``n_out`` outputs."""
        require(type(mlp) is StackedMLP and type(mlp.layers) is nn.ModuleList, "the critics are not a StackedMLP")
        require(all(type(layer) is StackedLinear for layer in mlp.layers), "a layer is not a StackedLinear")
        require(len(mlp.layers) > 0, "there are no layers")
        members: list[list[Layer]] = [[] for _ in range(mlp.n_members)]
        for layer in mlp.layers:
            width = n_out if layer is mlp.layers[-1] else size_of(layer.weight, -1)
            first = self._layer(layer, n_in, width, trained, mlp.n_members)
            for k, member in enumerate(members):
                copy = Layer.from_buffer_copy(first)
                copy.weight, copy.bias = first.weight + 4 * k * n_in * width, first.bias + 4 * k * width
                if trained:
                    copy.weight_gradient, copy.bias_gradient = (
                        first.weight_gradient + k * n_in * width,
                        first.bias_gradient + k * width,
                    )
                member.append(copy)
            n_in = width
        return [self._network(member, 1, [mlp.activation] * (len(member) - 1)) for member in members]

    def _layer(self, layer: Any, n_in: int, n_out: int, trained: bool, n_members: int | None = None) -> Layer:
        """Of ``n_members`` stacked layers, or of one ``nn.Linear``."""
        require(layer.bias is not None, "a layer has no bias")
        require(n_in > 0 and n_out > 0 and n_members != 0, "a layer is empty")
        if n_members is None:
            weight, bias = self.address(layer.weight, n_out, n_in), self.address(layer.bias, n_out)
        else:
            weight, bias = self.address(layer.weight, n_members, n_in, n_out), self.address(layer.bias, n_members, 1, n_out)
        where = [self.train(layer.weight), self.train(layer.bias)] if trained else [-1, -1]
        return Layer(weight, bias, *where, n_in, n_out, int(n_members is not None))

    def _network(self, layers: list[Layer], n_heads: int, activations: Sequence[nn.Module]) -> Network:
        kinds = {type(activation) for activation in activations}
        require(len(kinds) <= 1 and kinds <= ACTIVATIONS.keys(), "activations other than ReLU and Tanh are not supported in C")
        array = (Layer * len(layers))(*layers)
        self._layers.append(array)  # ctypes keeps no reference to what a pointer was made from
        return Network(array, len(layers) - n_heads, n_heads, ACTIVATIONS[kinds.pop()] if kinds else 0)

    def address(self, tensor: th.Tensor, *shape: int) -> int:
        """:return: See :func:`address`; the tensor is kept."""
        self.tensors.append(tensor)
        return address(tensor, *shape)

    def follow(self, network: nn.Module, target: nn.Module) -> None:
        """Note which parameters of a target follow those of its network, by their names."""
        theirs = dict(target.named_parameters())
        for name, parameter in network.named_parameters():
            self.targets[parameter] = theirs[name]

    def slots(self, model: "SoftOffPolicyAlgorithm") -> list[Slot]:
        """What Adam or AdamW keeps for each trained tensor, in the order of the gradients; Unsupported for others."""
        slots = {}
        for optimizer in model.optimizers:
            require(type(optimizer) in OPTIMIZERS, f"{type(optimizer).__name__} is not supported in C")
            for group in optimizer.param_groups:
                odd = any(group[name] for name in ("maximize", "capturable", "differentiable"))
                require(not odd, "Adam's options maximize, capturable and differentiable are not supported in C")
                for parameter in group["params"]:
                    if parameter not in self.gradients:  # no loss trains it, so PyTorch leaves it alone
                        continue
                    require(parameter not in slots, "the optimizer holds a parameter twice")
                    slots[parameter] = self._slot(parameter, group, optimizer)
        require(len(slots) == len(self.gradients), "some parameters are not in an optimizer")
        spans = sorted((tensor.data_ptr(), tensor.data_ptr() + 4 * tensor.numel()) for tensor in self.tensors)
        require(all(end <= start for (_, end), (start, _) in pairwise(spans)), "tensors share memory")
        return [slots[tensor] for tensor in self.gradients]

    def _slot(self, parameter: th.Tensor, group: dict[str, Any], optimizer: th.optim.Optimizer) -> Slot:
        state = optimizer.state.get(parameter, {})
        require("step" in state, "the optimizer has not made a step yet")
        target, shape = self.targets.get(parameter), parameter.shape
        return Slot(
            address(parameter, *shape),
            *[self.address(state[name], *shape) for name in ("exp_avg", "exp_avg_sq")],
            self.address(state["step"]),
            self.address(state["max_exp_avg_sq"], *shape) if group["amsgrad"] else None,
            None if target is None else address(target, *shape),
            parameter.numel(),
            self.gradients[parameter],
            float(group["lr"]),
            *map(float, group["betas"]),
            group["eps"],
            group["weight_decay"],
            int(group["decoupled_weight_decay"]),
        )
