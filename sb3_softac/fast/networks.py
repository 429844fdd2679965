"""Reads networks and optimizers into the structures of the C library."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_softac.fast.library import Layer, Network, Slot
from sb3_softac.fast.unsuitable import require
from sb3_softac.nets.stacked import StackedLinear, StackedMLP

if TYPE_CHECKING:
    from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm

NOT_YET = "the optimizer has not made a step yet"
ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 0, nn.Tanh: 1}


def check_extractor(network: Any) -> None:
    """
    :param network: A network of a policy.
    :raises Unsuitable: if it does more with observations than flatten them.
    """
    extractor = network.features_extractor
    name = type(extractor).__name__
    require(type(extractor) is FlattenExtractor and type(extractor.flatten) is nn.Flatten, f"{name} is not supported in C")


def check_sizes(network: Network, n_in: int, n_out: int) -> None:
    """
    :param network: A network.
    :param n_in: Size of its input.
    :param n_out: Size of all its outputs.
    :raises Unsuitable: if they are not, or if the layers do not match.
    """
    layers = network.layers[: network.n_hidden + network.n_heads]
    sizes = [n_in, *(layer.n_out for layer in layers[: network.n_hidden])]
    sizes += [sizes[-1]] * (network.n_heads - 1)
    fits = [layer.n_in for layer in layers] == sizes and sum(head.n_out for head in layers[network.n_hidden :]) == n_out
    require(fits, "the sizes of the layers do not match")


class Reader:
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
        """
        :param tensor: A tensor that is trained.
        :return: The position of its gradient.
        """
        require(tensor not in self.gradients, "networks share parameters")
        self.gradients[tensor] = self.n_gradients
        self.n_gradients += tensor.numel()
        return self.gradients[tensor]

    def sequential(self, modules: Sequence[nn.Module], heads: Sequence[nn.Module], trained: bool) -> Network:
        """
        :param modules: Alternating linear layers and activations.
        :param heads: Linear layers that read the last of them.
        :param trained: Whether the network is trained, as opposed to a target network.
        :return: The network.
        """
        linears, activations = list(modules[::2]), list(modules[1::2])
        require(len(linears) == len(activations), "the layers of a network are not alternating linear layers and activations")
        require(all(type(layer) is nn.Linear for layer in [*linears, *heads]), "a layer is not an nn.Linear")
        layers = [self._layer(layer, trained) for layer in [*linears, *heads]]
        return self._network(layers, len(heads), activations)

    def stacked(self, mlp: StackedMLP, trained: bool) -> "list[Network]":
        """
        :param mlp: Networks in one module.
        :param trained: Whether they are trained, as opposed to target networks.
        :return: The networks one by one.
        """
        require(type(mlp) is StackedMLP, "the critics are not a StackedMLP")
        require(all(type(layer) is StackedLinear for layer in mlp.layers), "a layer is not a StackedLinear")
        members: list[list[Layer]] = [[] for _ in range(mlp.n_members)]
        for layer in mlp.layers:
            first = self._layer(layer, trained)
            size = first.n_in * first.n_out
            for k, member in enumerate(members):
                copy = Layer.from_buffer_copy(first)
                copy.weight, copy.bias = first.weight + 4 * k * size, first.bias + 4 * k * first.n_out
                if trained:
                    copy.weight_gradient, copy.bias_gradient = (
                        first.weight_gradient + k * size,
                        first.bias_gradient + k * first.n_out,
                    )
                member.append(copy)
        return [self._network(member, 1, [mlp.activation] * (len(member) - 1)) for member in members]

    def _layer(self, layer: Any, trained: bool) -> Layer:
        require(layer.bias is not None, "a layer has no bias")
        for tensor in (layer.weight, layer.bias):
            self.address(tensor)
        n_in, n_out = layer.weight.shape[-2:] if (stacked := layer.weight.dim() == 3) else layer.weight.shape[::-1]
        where = [self.train(layer.weight), self.train(layer.bias)] if trained else [-1, -1]
        return Layer(layer.weight.data_ptr(), layer.bias.data_ptr(), *where, n_in, n_out, int(stacked))

    def _network(self, layers: list[Layer], n_heads: int, activations: Sequence[nn.Module]) -> Network:
        kinds = {type(activation) for activation in activations}
        require(len(kinds) <= 1 and kinds <= ACTIVATIONS.keys(), "activations other than ReLU and Tanh are not supported in C")
        array = (Layer * len(layers))(*layers)
        self._layers.append(array)  # ctypes keeps no reference to what a pointer was made from
        return Network(array, len(activations), n_heads, ACTIVATIONS[kinds.pop()] if kinds else 0)

    def address(self, tensor: th.Tensor) -> int:
        """
        :param tensor: A tensor that C reads or writes.
        :return: Its address.
        :raises Unsuitable: if it is not laid out as C expects.
        """
        as_expected = tensor.device.type == "cpu" and tensor.dtype == th.float32 and tensor.is_contiguous()
        require(as_expected and tensor.layout == th.strided, "a tensor is not dense, in single precision and on the CPU")
        self.tensors.append(tensor)
        return tensor.data_ptr()

    def follow(self, network: nn.Module, target: nn.Module) -> None:
        """
        :param network: A trained network.
        :param target: Its target network.
        """
        theirs = dict(target.named_parameters())
        for name, parameter in network.named_parameters():
            self.targets[parameter] = theirs[name]

    def slots(self, model: "SoftOffPolicyAlgorithm") -> list[Slot]:
        """
        :param model: The model whose networks were read.
        :return: What the optimizers keep of each trained tensor, in the order of their gradients.
        :raises Unsuitable: if the optimizers are not Adam or AdamW for exactly these tensors.
        """
        slots = {}
        for optimizer in model._optimizers:
            require(type(optimizer) in (th.optim.Adam, th.optim.AdamW), f"{type(optimizer).__name__} is not supported in C")
            for group in optimizer.param_groups:
                odd = any(group[name] for name in ("maximize", "capturable", "differentiable"))
                require(not odd, "Adam's options maximize, capturable and differentiable are not supported in C")
                for parameter in group["params"]:
                    require(parameter in self.gradients, "the optimizer has parameters that no loss trains")
                    slots[parameter] = self._slot(parameter, group, optimizer)
        require(len(slots) == len(self.gradients), "some parameters are not in an optimizer")
        spans = sorted((tensor.data_ptr(), tensor.data_ptr() + 4 * tensor.numel()) for tensor in self.tensors)
        require(all(end <= start for (_, end), (start, _) in pairwise(spans)), "tensors share memory")
        return [slots[tensor] for tensor in self.gradients]

    def _slot(self, parameter: th.Tensor, group: dict[str, Any], optimizer: th.optim.Optimizer) -> Slot:
        state = optimizer.state.get(parameter, {})
        require("step" in state, NOT_YET)
        names = ["exp_avg", "exp_avg_sq", "step", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        require(all(state[name].numel() == (1 if name == "step" else parameter.numel()) for name in names), "sizes differ")
        target = self.targets.get(parameter)
        return Slot(
            parameter.data_ptr(),
            *[self.address(state[name]) for name in names[:3]],
            self.address(state["max_exp_avg_sq"]) if group["amsgrad"] else None,
            None if target is None else target.data_ptr(),
            parameter.numel(),
            self.gradients[parameter],
            float(group["lr"]),
            *map(float, group["betas"]),
            group["eps"],
            group["weight_decay"],
            int(group["decoupled_weight_decay"]),
        )
