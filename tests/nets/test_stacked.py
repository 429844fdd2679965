import pytest
import torch as th
from torch import nn

from sb3_softac.nets.stacked import StackedLinear, StackedMLP


def separate_copies(stacked: StackedMLP) -> list[nn.Sequential]:
    """The members of the ensemble as ordinary networks."""
    members = []
    for index in range(stacked.n_members):
        modules: list[nn.Module] = []
        for layer in stacked.layers:
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2])
            linear.weight.data.copy_(layer.weight[index].t())
            linear.bias.data.copy_(layer.bias[index, 0])
            modules += [linear, nn.ReLU()]
        members.append(nn.Sequential(*modules[:-1]))
    return members


@pytest.mark.parametrize(("n_members", "net_arch"), [(1, [8]), (2, []), (3, [8, 5])])
def test_equals_separate_networks(n_members, net_arch):
    th.manual_seed(0)
    stacked = StackedMLP(n_members, 4, 2, net_arch)
    x = th.randn(6, 4, requires_grad=True)
    members = separate_copies(stacked)
    expected = th.stack([member(x) for member in members])
    actual = stacked(x)
    th.testing.assert_close(actual, expected)
    (gradient,) = th.autograd.grad(actual.square().sum(), x, retain_graph=True)
    (expected_gradient,) = th.autograd.grad(expected.square().sum(), x, retain_graph=True)
    th.testing.assert_close(gradient, expected_gradient)
    actual.square().sum().backward()
    expected.square().sum().backward()
    for index, member in enumerate(members):
        for layer, linear in zip(stacked.layers, (m for m in member if isinstance(m, nn.Linear)), strict=True):
            th.testing.assert_close(layer.weight.grad[index], linear.weight.grad.t())
            th.testing.assert_close(layer.bias.grad[index, 0], linear.bias.grad)


def test_initialised_as_nn_linear():
    th.manual_seed(0)
    stacked, reference = StackedLinear(2, 64, 500), nn.Linear(64, 500)
    assert not th.equal(*stacked.weight)
    for ours, theirs in ((stacked.weight, reference.weight), (stacked.bias, reference.bias)):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
