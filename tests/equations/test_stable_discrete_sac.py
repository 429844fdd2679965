import pytest
import torch as th

from sb3_softac.equations.bellman import q_loss
from sb3_softac.equations.stable_discrete_sac import clipped_q_loss, entropy_penalty


def column(*values: float) -> th.Tensor:
    return th.tensor([values])


def test_clipped_q_loss_hand_computed():
    q = th.tensor([[1.0, 4.0, -3.0], [2.0, 0.0, 0.0]])
    q_old = th.tensor([[1.2, 1.0, 0.0], [2.0, 0.0, 5.0]])
    target = th.tensor([0.0, 4.0, -2.0])
    # c = 0.5; first critic: nothing clipped, max(1, 1); clipped to 1.5, max(0, 2.5^2); clipped to -0.5, max(1, 1.5^2)
    # second critic: no change, max(4, 4), max(16, 16); clipped to 4.5, max(4, 6.5^2)
    first, second = (1 + 6.25 + 2.25) / 3, (4 + 16 + 42.25) / 3
    assert clipped_q_loss(q, q_old, target, 0.5).item() == pytest.approx(0.5 * (first + second))
    assert clipped_q_loss(q, q_old, target, th.tensor(0.5)).item() == pytest.approx(0.5 * (first + second))


def test_the_larger_error_counts_element_by_element():
    """The clipped error is the larger one in the first place, the plain error in the second."""
    q, q_old, target = column(4.0, 9.0), column(1.0, 1.0), th.tensor([4.0, 1.0])
    # max(0, (2 - 4)^2) and max(64, (2 - 1)^2); of the means the larger would be 32
    assert clipped_q_loss(q, q_old, target, 1.0).item() == pytest.approx(0.5 * (4 + 64) / 2)


def test_a_wide_clip_gives_the_plain_loss():
    th.manual_seed(0)
    q, q_old, target = th.randn(3, 6), th.randn(3, 6), th.randn(6)
    assert clipped_q_loss(q, q_old, target, 1e6).item() == pytest.approx(q_loss(q, target).item())


def test_a_change_beyond_the_clip_gets_no_gradient_while_the_clipped_error_is_larger():
    q = th.tensor([[4.0, 2.5, 0.5, -2.0]], requires_grad=True)
    q_old, target = column(1.0, 1.0, 1.0, 1.0), th.tensor([5.0, 0.0, 5.0, -5.0])
    # c = 1: beyond it and below the target; beyond it, but wrong by more than the clipped one; within it; beyond it, downwards
    clipped_q_loss(q, q_old, target, 1.0).backward()
    th.testing.assert_close(q.grad, column(0.0, 2.5 / 4, -4.5 / 4, 0.0))


def test_entropy_penalty_hand_computed():
    # 1/2 mean((0.5 - 1)^2, (2 - 0)^2, 0)
    penalty = entropy_penalty(th.tensor([1.0, 0.0, 0.7]), th.tensor([0.5, 2.0, 0.7]))
    assert penalty.item() == pytest.approx(0.5 * (0.25 + 4.0) / 3)


def test_entropy_penalty_pulls_towards_the_old_entropy():
    entropy = th.tensor([1.0, 0.2], requires_grad=True)
    entropy_penalty(entropy, th.tensor([0.5, 0.9])).backward()
    th.testing.assert_close(entropy.grad, th.tensor([0.25, -0.35]))


def test_gradients_against_finite_differences():
    th.manual_seed(0)
    q, q_old = (th.randn(2, 5, dtype=th.float64, requires_grad=True) for _ in range(2))
    target = th.randn(5, dtype=th.float64)
    for clip_range in (0.3, 10.0):
        assert th.autograd.gradcheck(lambda x, c=clip_range: clipped_q_loss(x, q_old.detach(), target, c), [q])
    entropy = th.rand(5, dtype=th.float64, requires_grad=True)
    assert th.autograd.gradcheck(lambda x: entropy_penalty(x, target.abs()), [entropy])


def test_no_gradient_into_targets_and_old_values():
    q, q_old = th.randn(2, 5, requires_grad=True), th.randn(2, 5, requires_grad=True)
    target, entropy, entropy_old = (th.randn(5, requires_grad=True) for _ in range(3))
    (clipped_q_loss(q, q_old, target, 0.1) + entropy_penalty(entropy, entropy_old)).backward()
    assert q_old.grad is None and target.grad is None and entropy_old.grad is None
    assert q.grad.any() and entropy.grad.any()
