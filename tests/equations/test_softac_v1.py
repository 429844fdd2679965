import pytest
import torch as th

from sb3_softac.equations.softac_v1 import likelihood_ratio_loss, policy_loss, soft_value_target, value_loss


def test_soft_value_target_hand_computed():
    target = soft_value_target(th.tensor([[1.0], [-2.0]]), th.tensor([[-0.5], [2.0]]), 0.2)
    th.testing.assert_close(target, th.tensor([[1.1], [-2.4]]))


def test_value_loss_hand_computed():
    assert value_loss(th.tensor([[1.0], [4.0]]), th.tensor([[3.0], [3.0]])).item() == pytest.approx(0.5 * (4 + 1) / 2)


def test_policy_loss_hand_computed():
    loss = policy_loss(th.tensor([[-1.0], [2.0]]), th.tensor([[3.0], [5.0]]), 0.5)
    assert loss.item() == pytest.approx(((-0.5 - 3) + (1.0 - 5)) / 2)


def test_gradients_against_finite_differences():
    def leaf(*shape):
        return th.randn(*shape, dtype=th.float64, requires_grad=True)

    th.manual_seed(0)
    target = th.randn(5, 1, dtype=th.float64)
    assert th.autograd.gradcheck(lambda v: value_loss(v, target), [leaf(5, 1)])
    assert th.autograd.gradcheck(lambda log_pi, q: policy_loss(log_pi, q, 0.2), [leaf(5, 1), leaf(5, 1)])
    assert th.autograd.gradcheck(lambda q, log_pi: soft_value_target(q, log_pi, 0.2), [leaf(5, 1), leaf(5, 1)])


def test_targets_receive_no_gradient():
    target = th.zeros(5, 1, requires_grad=True)
    value_loss(th.ones(5, 1, requires_grad=True), target).backward()
    assert target.grad is None


def test_likelihood_ratio_loss_gradient_hand_computed():
    # d/d log_pi_i = (alpha log_pi_i - q_i + v_i) / n, and nothing for q and v
    log_pi, q, v = (th.tensor(part, requires_grad=True) for part in ([2.0, -4.0], [3.0, 1.0], [1.0, 0.5]))
    likelihood_ratio_loss(log_pi, q, v, 0.5).backward()
    th.testing.assert_close(log_pi.grad, th.tensor([-0.5, -1.25]))
    assert q.grad is None and v.grad is None
