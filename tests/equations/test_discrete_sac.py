import math

import pytest
import torch as th

from sb3_softac.equations.discrete_sac import policy_entropy, policy_loss, soft_state_value

SIZES = [2, 3, 4]  # branches of a factored action space


def logs(*probabilities: float) -> th.Tensor:
    return th.tensor(probabilities, dtype=th.float64).log()


def random_branches(*leading: int) -> tuple[th.Tensor, th.Tensor]:
    """Utilities and log-probabilities of all branches, one behind the other ``[*leading, 9]``."""
    utilities = th.randn(*leading, sum(SIZES), dtype=th.float64)
    logits = 2.0 * th.randn(*leading, sum(SIZES), dtype=th.float64)
    return utilities, th.cat([branch.log_softmax(-1) for branch in logits.split(SIZES, dim=-1)], dim=-1)


def flattened(vector: th.Tensor) -> th.Tensor:
    """One entry per combination of options, the sum of theirs ``[..., 24]``."""
    first, second, third = vector.split(SIZES, dim=-1)
    return (first[..., :, None, None] + second[..., None, :, None] + third[..., None, None, :]).flatten(-3)


def test_soft_state_value_hand_computed():
    # 1/4 (2 + 1/2 log 4) + 3/4 (-4 + 1/2 log 4/3)
    value = soft_state_value(th.tensor([2.0, -4.0], dtype=th.float64), logs(0.25, 0.75), 0.5)
    assert value.item() == pytest.approx(-2.5 + 0.5 * (0.25 * math.log(4) + 0.75 * math.log(4 / 3)))
    # without entropy it is the mean of the Q-values
    assert soft_state_value(th.tensor([2.0, -4.0], dtype=th.float64), logs(0.25, 0.75), 0.0).item() == pytest.approx(-2.5)


def test_soft_state_value_of_the_boltzmann_policy_is_the_log_partition_function():
    th.manual_seed(0)
    q, alpha = th.randn(7, 5, dtype=th.float64), 0.3
    th.testing.assert_close(soft_state_value(q, (q / alpha).log_softmax(-1), alpha), alpha * (q / alpha).logsumexp(-1))


def test_policy_entropy_hand_computed():
    entropy = policy_entropy(th.stack([logs(0.5, 0.25, 0.25), logs(1 / 3, 1 / 3, 1 / 3)]))
    th.testing.assert_close(entropy, th.tensor([1.5 * math.log(2), math.log(3)], dtype=th.float64))


def test_policy_loss_hand_computed():
    log_pi = th.stack([logs(0.25, 0.75), logs(0.5, 0.5)])
    q = th.tensor([[2.0, -4.0], [1.0, 3.0]], dtype=th.float64)
    first = 0.25 * (-0.5 * math.log(4) - 2) + 0.75 * (-0.5 * math.log(4 / 3) + 4)
    second = 0.5 * (-0.5 * math.log(2) - 1) + 0.5 * (-0.5 * math.log(2) - 3)
    assert policy_loss(log_pi, q, 0.5).item() == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_gradients_against_finite_differences(alpha):
    th.manual_seed(0)
    q, logits = (th.randn(4, 3, dtype=th.float64, requires_grad=True) for _ in range(2))
    assert th.autograd.gradcheck(lambda q, x: soft_state_value(q, x.log_softmax(-1), alpha), [q, logits])
    assert th.autograd.gradcheck(lambda x: policy_entropy(x.log_softmax(-1)), [logits])
    assert th.autograd.gradcheck(lambda x: policy_loss(x.log_softmax(-1), q.detach(), alpha), [logits])


def test_gradients_stay_finite_with_forbidden_actions():
    """Their log-probability is a large negative number, as sb3_softac.discrete.branches makes it."""
    logits = th.tensor([[0.3, -1e8, -0.2]], requires_grad=True)
    log_pi, q = logits.log_softmax(-1), th.tensor([[1.0, 1e6, 2.0]])
    allowed = logits[:, [0, 2]].log_softmax(-1)
    for ours, reference in (
        (soft_state_value(q, log_pi, 0.5), soft_state_value(q[:, [0, 2]], allowed, 0.5)),
        (policy_entropy(log_pi), policy_entropy(allowed)),
        (policy_loss(log_pi, q, 0.5), policy_loss(allowed, q[:, [0, 2]], 0.5)),
    ):
        th.testing.assert_close(ours, reference)
        gradients = [th.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (ours, reference)]
        th.testing.assert_close(*gradients)


def test_policy_loss_gives_no_gradient_to_the_q_values():
    q, log_pi = th.randn(5, 3, requires_grad=True), th.randn(5, 3, requires_grad=True)
    policy_loss(log_pi, q, 0.2).backward()
    assert q.grad is None
    assert log_pi.grad is not None and log_pi.grad.any()
    # ... while the state value passes it on
    soft_state_value(q, log_pi, 0.2).sum().backward()
    assert q.grad is not None and q.grad.any()


def test_branches_equal_the_flattened_joint_distribution():
    """Also with several leading dimensions."""
    th.manual_seed(0)
    utilities, log_pi = random_branches(5, 2)
    joint_q, joint_log_pi = flattened(utilities), flattened(log_pi)
    th.testing.assert_close(joint_log_pi.exp().sum(-1), th.ones(5, 2, dtype=th.float64))
    th.testing.assert_close(policy_entropy(log_pi), policy_entropy(joint_log_pi))
    th.testing.assert_close(soft_state_value(utilities, log_pi, 0.3), soft_state_value(joint_q, joint_log_pi, 0.3))
    th.testing.assert_close(policy_loss(log_pi, utilities, 0.3), policy_loss(joint_log_pi, joint_q, 0.3))


@pytest.mark.parametrize("sizes", [[4], [2, 3]])
def test_gradient_descent_on_the_policy_loss_reaches_the_boltzmann_policy(sizes):
    th.manual_seed(0)
    alpha, n = 0.5, sum(sizes)
    q, logits = th.randn(3, n, dtype=th.float64), th.randn(3, n, dtype=th.float64, requires_grad=True)

    def log_pi(x):
        return th.cat([branch.log_softmax(-1) for branch in x.split(sizes, dim=-1)], dim=-1)

    optimizer = th.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = policy_loss(log_pi(logits), q, alpha)
        loss.backward()
        return loss

    optimizer.step(closure)
    th.testing.assert_close(log_pi(logits.detach()).exp(), log_pi(q / alpha).exp(), rtol=0.0, atol=1e-5)
