import math

import pytest
import torch as th

from sb3_softac.equations.temperature import continuous_target_entropy, temperature_loss


def test_hand_computed():
    # log alpha = log 0.5, entropies 1 and 3 around a target of 1: -log 0.5 * mean(-1 + 1, -3 + 1)
    loss = temperature_loss(th.tensor([math.log(0.5)]), th.tensor([-1.0, -3.0]), 1.0)
    assert loss.item() == pytest.approx(-math.log(0.5) * -1.0)


@pytest.mark.parametrize(("entropy", "direction"), [(3.0, -1), (0.5, 1)])
def test_a_step_moves_the_temperature_towards_the_target(entropy, direction):
    log_alpha = th.zeros(1, requires_grad=True)
    (gradient,) = th.autograd.grad(temperature_loss(log_alpha, th.full((8, 1), -entropy), 1.0), log_alpha)
    assert -gradient.item() * direction > 0


def test_policy_receives_no_gradient():
    log_pi = th.zeros(4, 1, requires_grad=True)
    temperature_loss(th.zeros(1, requires_grad=True), log_pi, -1.0).backward()
    assert log_pi.grad is None


def test_gradcheck():
    log_alpha = th.tensor([0.3], dtype=th.float64, requires_grad=True)
    assert th.autograd.gradcheck(lambda x: temperature_loss(x, th.linspace(-2, 1, 5, dtype=th.float64), 0.7), [log_alpha])


def test_continuous_target():
    assert continuous_target_entropy((6,)) == -6.0
    assert continuous_target_entropy((2, 3)) == -6.0
