import math

import numpy as np
import pytest
import torch as th

from sb3_softac.equations.squashing import gaussian_log_prob, log_tanh_jacobian, squashed_log_prob, unsquash


def test_jacobian_hand_computed():
    # tanh(atanh 0.6) = 0.6, so the derivative is 1 - 0.36
    u = th.tensor([0.0, math.atanh(0.6), -math.atanh(0.6)], dtype=th.float64)
    th.testing.assert_close(log_tanh_jacobian(u), th.tensor([0.0, math.log(0.64), math.log(0.64)], dtype=th.float64))


def test_jacobian_is_exact_where_the_naive_form_is_not():
    # log(1 - tanh^2 u) = log 4 - 2|u| - 2 log(1 + exp(-2|u|)), evaluated in float64
    u = th.linspace(-50, 50, 2001)
    x = u.double().abs().numpy()
    exact = math.log(4) - 2 * x - 2 * np.log1p(np.exp(-2 * x))
    np.testing.assert_allclose(log_tanh_jacobian(u).double().numpy(), exact, rtol=2e-6, atol=3e-7)


def test_jacobian_gradient_is_finite_and_right_everywhere():
    u = th.tensor([-50.0, -9.0, -0.5, 0.0, 0.5, 9.0, 50.0], requires_grad=True)
    (gradient,) = th.autograd.grad(log_tanh_jacobian(u).sum(), u)
    th.testing.assert_close(gradient, -2 * th.tanh(u.detach()))


def test_gaussian_log_prob_against_torch():
    th.manual_seed(0)
    noise, std, mean = th.randn(7, 3, dtype=th.float64), th.rand(7, 3, dtype=th.float64) + 0.1, th.randn(7, 3).double()
    expected = th.distributions.Normal(mean, std).log_prob(mean + std * noise).sum(-1)
    th.testing.assert_close(gaussian_log_prob(noise, std), expected)


def test_squashed_density_integrates_to_one_and_has_the_right_mean():
    # arXiv:1801.01290 gives the density of a = tanh(u); a change of variables checks it by quadrature over the box
    nodes, weights = np.polynomial.legendre.leggauss(400)
    a, weights = th.tensor(nodes).unsqueeze(1), th.tensor(weights)
    mean, std = 0.4, 0.7
    u = th.atanh(a)
    density = squashed_log_prob(gaussian_log_prob((u - mean) / std, th.full_like(u, std)), u).exp()
    assert (density * weights).sum().item() == pytest.approx(1.0, abs=1e-9)
    hermite, hermite_weights = np.polynomial.hermite_e.hermegauss(60)
    expected = (np.tanh(mean + std * hermite) * hermite_weights).sum() / hermite_weights.sum()
    assert (density * weights * a.squeeze(1)).sum().item() == pytest.approx(expected, abs=1e-8)


def test_gradcheck():
    th.manual_seed(0)
    noise, std = th.randn(4, 2, dtype=th.float64, requires_grad=True), (th.rand(4, 2).double() + 0.2).requires_grad_()
    assert th.autograd.gradcheck(lambda n, s: squashed_log_prob(gaussian_log_prob(n, s), 0.3 + s * n), [noise, std])


@pytest.mark.parametrize("u", [50.0, -50.0])
def test_finite_far_out(u):
    pre = th.full((2, 6), u)
    log_prob = squashed_log_prob(gaussian_log_prob(th.zeros(2, 6), th.ones(2, 6)), pre)
    # per dimension: -log sqrt(2 pi) + 2 |u| - log 4
    th.testing.assert_close(log_prob, th.full((2,), 6 * (-0.5 * math.log(2 * math.pi) + 100 - math.log(4))))


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_unsquash_is_finite_at_the_ends_and_exact_between_them(dtype):
    below = th.nextafter(th.ones((), dtype=dtype), th.zeros((), dtype=dtype))
    actions = th.tensor([1.0, below, 1.0 + th.finfo(dtype).eps, 0.5, 0.0], dtype=dtype)  # rounding may pass an end
    actions = th.cat([actions, -actions]).requires_grad_()
    u = unsquash(actions)
    end = 0.5 * math.log((1.0 + below.item()) / th.finfo(dtype).eps * 2.0)
    expected = th.tensor([end, end, end, math.atanh(0.5), 0.0], dtype=dtype)
    th.testing.assert_close(u, th.cat([expected, -expected]), rtol=1e-6, atol=0)
    (gradient,) = th.autograd.grad(u.sum(), actions)
    assert gradient.isfinite().all() and gradient[0] == 0.0 and gradient[1] > 0.0
    # Vector instructions may round the last digit differently
    assert th.allclose(u[3:5], actions[3:5].atanh(), rtol=2.0 * th.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("wrong", [1.001, -2.0, math.nan, math.inf])
def test_unsquash_refuses_what_is_no_scaled_action(wrong):
    with pytest.raises(ValueError, match=r"scaled to \[-1, 1\].*policy.scale_action"):
        unsquash(th.tensor([[0.3, wrong]]))
