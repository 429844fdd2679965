import math

import pytest
import torch as th
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sb3_softac.equations.mixture import mean_over_components, mixture_log_prob


def random_mixture(k=3, batch=5, dim=2):
    th.manual_seed(0)
    log_weights = th.randn(k, batch, dtype=th.float64).log_softmax(dim=0)
    return log_weights, th.randn(k, batch, dim).double(), th.rand(k, batch, dim).double() + 0.2


def test_mixture_log_prob_hand_computed():
    # 1/4 N(0; 0, 1) + 3/4 N(0; 2, 0.5^2) = (0.25 + 0.75 * 2 * exp(-8)) / sqrt(2 pi)
    log_weights = th.tensor([[0.25], [0.75]]).log()
    mean, std = th.tensor([[[0.0]], [[2.0]]]), th.tensor([[[1.0]], [[0.5]]])
    expected = math.log((0.25 + 1.5 * math.exp(-8)) / math.sqrt(2 * math.pi))
    assert mixture_log_prob(th.zeros(1, 1), log_weights, mean, std).item() == pytest.approx(expected, abs=1e-6)


def test_mixture_log_prob_against_torch():
    log_weights, mean, std = random_mixture()
    components = Independent(Normal(mean.transpose(0, 1), std.transpose(0, 1)), 1)
    expected = MixtureSameFamily(Categorical(logits=log_weights.T), components)
    u = th.randn(7, 5, 2, dtype=th.float64)
    th.testing.assert_close(mixture_log_prob(u, log_weights, mean, std), expected.log_prob(u))
    th.testing.assert_close(mixture_log_prob(u[0], log_weights, mean, std), expected.log_prob(u[0]))


def test_mixture_log_prob_is_finite_far_out():
    log_weights, mean, std = random_mixture()
    assert mixture_log_prob(mean[0] + 1e4, log_weights, mean, std).isfinite().all()


def test_gradcheck():
    arguments = [part.requires_grad_() for part in random_mixture()]
    u = th.randn(5, 2, dtype=th.float64, requires_grad=True)
    assert th.autograd.gradcheck(mixture_log_prob, [u, *arguments])


def test_mean_over_components_hand_computed():
    log_weights = th.tensor([[0.25, 1.0], [0.75, 0.0]]).log()
    values = th.tensor([[4.0, 2.0], [8.0, 5.0]])
    th.testing.assert_close(mean_over_components(values, log_weights), th.tensor([7.0, 2.0]))
