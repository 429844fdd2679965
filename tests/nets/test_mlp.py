"""Linear layers by oneDNN against PyTorch's."""

import pytest
import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn
from torch.nn import functional as F

from sb3_softac.nets import mlp as module
from sb3_softac.nets.mlp import Linear, MLPFunction, ReluMLP, by_onednn, linear, quicken
from sb3_softac.nets.stacked import StackedMLP

pytestmark = pytest.mark.skipif(not module.AVAILABLE, reason="PyTorch without oneDNN")


@pytest.fixture
def everything_by_onednn(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0)


def gradients(function, *tensors):
    leaves = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors]
    result = function(*leaves)
    (result * th.linspace(-1, 1, result.numel()).reshape(result.shape)).sum().backward()
    return result.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize(("batch", "n_in", "n_out"), [(256, 256, 256), (7, 5, 3), (64, 1, 20), (1, 30, 1)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("wanted", [(True, True, True), (True, False, False), (False, True, True), (False, False, True)])
def test_outputs_and_gradients(batch, n_in, n_out, transposed, wanted):
    weight = th.randn(n_in, n_out).t() if transposed else th.randn(n_out, n_in)
    tensors = [th.randn(batch, n_in), weight, th.randn(n_out)]
    for tensor, want in zip(tensors, wanted, strict=True):
        tensor.requires_grad_(want)
    ours, our_gradients = gradients(
        lambda x, w, b: MLPFunction.apply(x, None, 0, w.t().contiguous().t() if transposed else w, b), *tensors
    )
    theirs, their_gradients = gradients(F.linear, *tensors)
    scale = 1e-5 * (n_in + batch)
    th.testing.assert_close(ours, theirs, rtol=1e-5, atol=scale)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            th.testing.assert_close(mine, other, rtol=1e-4, atol=scale)


def test_only_large_products_on_a_cpu_in_single_precision():
    assert by_onednn(th.zeros(256, 256), 256 * 256)
    assert not by_onednn(th.zeros(1, 256), 256 * 256)
    assert not by_onednn(th.zeros(256, 256, dtype=th.float64), 256 * 256)
    assert not by_onednn(th.zeros(256, 2, 256), 256 * 256)
    assert not by_onednn(th.zeros(256, 256, device="meta"), 256 * 256)


def test_double_precision_still_works(everything_by_onednn):
    tensors = [th.randn(*shape, dtype=th.float64, requires_grad=True) for shape in ((4, 3), (2, 3), (2,))]
    assert th.autograd.gradcheck(linear, tensors)


def test_quickened_network(everything_by_onednn):
    """Same parameters, same outputs and gradients; a user's own activation is left alone."""
    th.manual_seed(0)
    plain = nn.Sequential(*create_mlp(5, 2, [16, 8], nn.ReLU))
    quick = quicken(nn.Sequential(*create_mlp(5, 2, [16, 8], nn.ReLU)))
    assert type(quick) is ReluMLP and [type(layer) for layer in quick] == [Linear, nn.ReLU, Linear, nn.ReLU, Linear]
    quick.load_state_dict(plain.state_dict())
    x = th.randn(6, 5)
    outputs = [network(x).sum() for network in (plain, quick)]
    th.testing.assert_close(*outputs)
    for output in outputs:
        output.backward()
    for mine, other in zip(quick.parameters(), plain.parameters(), strict=True):
        th.testing.assert_close(mine.grad, other.grad)
    assert not isinstance(quicken(nn.Sequential(nn.Tanh()))[0], nn.ReLU)


@pytest.mark.parametrize("modules", [[nn.Linear(3, 3), nn.Tanh()], [nn.Linear(3, 3)] * 2, [nn.ReLU(), nn.Linear(3, 3)], []])
def test_other_networks_stay_what_they_are(modules):
    assert type(quicken(nn.Sequential(*modules))) is nn.Sequential


def test_heads(monkeypatch):
    """Two layers on top of a network, as one product or as two."""
    network, heads = quicken(nn.Sequential(*create_mlp(5, -1, [16, 8], nn.ReLU))), [nn.Linear(8, 2), nn.Linear(8, 3)]
    parameters = [*network.parameters(), *(parameter for head in heads for parameter in head.parameters())]
    x, results = th.randn(6, 5, requires_grad=True), []
    for large in (0, 1 << 62):
        monkeypatch.setattr(module, "LARGE", large)
        first, second = network.heads(x, *heads)
        assert first.shape == (6, 2) and second.shape == (6, 3)
        results.append([first, second, *th.autograd.grad(first.square().sum() - second.exp().sum(), [x, *parameters])])
    for joint, separate in zip(*results, strict=True):
        th.testing.assert_close(joint, separate)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.ELU])
@pytest.mark.parametrize("net_arch", [[], [8], [8, 6]])
@pytest.mark.parametrize("frozen", [False, True])
def test_stacked_mlps_member_by_member(monkeypatch, activation, net_arch, frozen):
    network = StackedMLP(2, 5, 3, net_arch, activation)
    results = []
    for large in (0, 1 << 62):
        monkeypatch.setattr(module, "LARGE", large)
        x = th.linspace(-1, 1, 35).reshape(7, 5).requires_grad_()
        y = network(x, frozen)
        network.zero_grad()
        y.square().sum().backward()
        results.append((y.detach(), x.grad, *[parameter.grad for parameter in network.parameters()]))
    for by_members, stacked in zip(*results, strict=True):
        assert (by_members is None) == (stacked is None)
        if by_members is not None:
            th.testing.assert_close(by_members, stacked)
            assert by_members.stride() == stacked.stride()


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("wanted", ["nothing", "x", "frozen_x", "x and frozen_x"])
def test_two_passes_at_the_price_of_one(everything_by_onednn, n_members, wanted):
    """The parameters learn from the first pass only, the inputs from both."""
    network = StackedMLP(n_members, 5, 1, [8, 6])
    x, frozen_x = th.randn(7, 5), th.randn(4, 5)
    inputs = [tensor.requires_grad_() for name, tensor in (("x", x), ("frozen_x", frozen_x)) if name in wanted.split(" and ")]

    def gradients_of(y, frozen_y):
        loss = y.square().sum() + frozen_y.exp().sum()
        return th.autograd.grad(loss, [*inputs, *network.parameters()])

    both, separate = network.forward_both(x, frozen_x), (network(x), network(frozen_x, frozen=True))
    for ours, plain in zip([*both, *gradients_of(*both)], [*separate, *gradients_of(*separate)], strict=True):
        th.testing.assert_close(ours, plain)


def test_nan_comes_through(everything_by_onednn):
    """A ReLU that turned it into 0 would hide a broken environment from the check of the losses."""
    x = th.zeros(3, 5)
    x[1, 2] = float("nan")
    for network in (quicken(nn.Sequential(*create_mlp(5, 1, [8, 6], nn.ReLU))), StackedMLP(2, 5, 1, [8, 6])):
        assert network(x).isnan().reshape(-1, 3).all(dim=0).tolist() == [False, True, False]


def test_small_networks_are_passed_twice():
    network = StackedMLP(2, 5, 1, [8, 6])
    x, frozen_x = th.randn(7, 5), th.randn(4, 5, requires_grad=True)
    y, frozen_y = network.forward_both(x, frozen_x)
    th.testing.assert_close((y, frozen_y), (network(x), network(frozen_x)))
    frozen_y.sum().backward()
    assert frozen_x.grad is not None and all(parameter.grad is None for parameter in network.parameters())
