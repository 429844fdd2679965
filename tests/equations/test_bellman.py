import pytest
import torch as th

from sb3_softac.equations.bellman import q_loss, soft_bellman_target


def test_hand_computed():
    rewards, dones, v_next = th.tensor([1.0, 2.0, -3.0]), th.tensor([0.0, 1.0, 0.0]), th.tensor([10.0, 10.0, -4.0])
    target = soft_bellman_target(rewards, dones, v_next, 0.9)
    th.testing.assert_close(target, th.tensor([1 + 0.9 * 10, 2.0, -3 - 0.9 * 4]))


def test_discount_per_transition():
    # the second transition spans three steps at gamma = 0.5
    target = soft_bellman_target(th.tensor([1.0, 1.0]), th.zeros(2), th.tensor([8.0, 8.0]), th.tensor([0.5, 0.125]))
    th.testing.assert_close(target, th.tensor([5.0, 2.0]))


def test_q_loss_is_the_sum_over_critics():
    q = th.tensor([[1.0, 2.0], [0.0, 5.0]])
    target = th.tensor([2.0, 2.0])
    # first critic: (1 + 0) / 2 / 2, second: (4 + 9) / 2 / 2
    assert q_loss(q, target).item() == pytest.approx(0.25 + 3.25)


def test_q_loss_against_finite_differences():
    target = th.randn(5, dtype=th.float64)
    assert th.autograd.gradcheck(lambda q: q_loss(q, target), [th.randn(3, 5, dtype=th.float64, requires_grad=True)])


def test_the_target_of_q_loss_receives_no_gradient():
    target = th.zeros(5, requires_grad=True)
    q_loss(th.ones(2, 5, requires_grad=True), target).backward()
    assert target.grad is None
