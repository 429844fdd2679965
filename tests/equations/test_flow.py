import math

import numpy as np
import pytest
import torch as th

from sb3_softac.equations.flow import affine, inverse_affine, stretch


def test_affine_hand_computed_and_inverted():
    x, log_scale, shift = th.tensor([2.0, -1.0]), th.tensor([math.log(3.0), 0.0]), th.tensor([1.0, -0.5])
    y, log_derivative = affine(x, log_scale, shift)
    th.testing.assert_close(y, th.tensor([7.0, -1.5]))
    th.testing.assert_close(log_derivative, log_scale)
    th.testing.assert_close(inverse_affine(y, log_scale, shift), x)


def test_stretch_hand_computed():
    # sinh y = e^s sinh x; at x = arsinh 1 with e^s = 2 this is arsinh 2 = log(2 + sqrt 5)
    x, log_slope = th.tensor([math.asinh(1.0), 0.0, -math.asinh(1.0)]), th.full((3,), math.log(2.0))
    y, log_derivative = stretch(x, log_slope)
    th.testing.assert_close(y, th.tensor([math.log(2 + math.sqrt(5)), 0.0, -math.log(2 + math.sqrt(5))]))
    # e^s cosh x / cosh y, with cosh = sqrt(1 + sinh^2): 2 sqrt 2 / sqrt 5 outside, 2 in the middle
    outside = math.log(2 * math.sqrt(2) / math.sqrt(5))
    th.testing.assert_close(log_derivative, th.tensor([outside, math.log(2.0), outside]))


@pytest.mark.parametrize("log_slope", [-5.0, -0.5, 0.0, 1.0, 5.0])
def test_stretch_is_exact_where_the_plain_form_overflows(log_slope):
    x = th.linspace(-200, 200, 4001)
    y, log_derivative = stretch(x, th.full_like(x, log_slope))
    plain = np.arcsinh(np.exp(log_slope) * np.sinh(x.double().numpy()))
    np.testing.assert_allclose(y.numpy(), plain, rtol=2e-6, atol=2e-5)
    slope = np.exp(log_slope) * np.cosh(x.double().numpy()) / np.cosh(plain)
    np.testing.assert_allclose(log_derivative.numpy(), np.log(slope), atol=5e-5)
    back, log_of_inverse = stretch(y, th.full_like(x, -log_slope))
    th.testing.assert_close(back, x, rtol=1e-5, atol=1e-3)
    th.testing.assert_close(log_of_inverse, -log_derivative, rtol=0, atol=1e-3)


def test_derivatives():
    th.manual_seed(0)
    x, s = th.randn(50, dtype=th.float64, requires_grad=True), th.randn(50, dtype=th.float64, requires_grad=True)
    y, log_derivative = stretch(x, s)
    (derivative,) = th.autograd.grad(y.sum(), x)
    th.testing.assert_close(derivative.log(), log_derivative)
    assert th.autograd.gradcheck(stretch, [x[:5].detach().requires_grad_(), s[:5].detach().requires_grad_()])


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("log_slope", [-5.0, -0.5, 0.0, 1.0, 5.0])
def test_derivatives_at_zero(log_slope, dtype):
    x = th.tensor([0.0, -0.0], dtype=dtype, requires_grad=True)
    s = th.full_like(x, log_slope).detach().requires_grad_()
    y, log_derivative = stretch(x, s)
    assert (y == 0.0).all()
    by_x, by_s = th.autograd.grad(y.sum(), [x, s], retain_graph=True)
    th.testing.assert_close(by_x, s.detach().exp())
    assert (by_s == 0.0).all()
    by_x, by_s = th.autograd.grad(log_derivative.sum(), [x, s])
    assert (by_x == 0.0).all() and (by_s == 1.0).all()
