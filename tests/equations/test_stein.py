import math

import numpy as np
import pytest
import torch as th

from sb3_softac.equations.stein import MIN_BANDWIDTH, median_bandwidth, sampler_loss, svgd_direction, unsquashed_score
from sb3_softac.tabular import BoltzmannOracle, ks_distance, sliced_wasserstein_distance

TARGETS = {
    "uniform": lambda a: 0.0 * a[..., 0],
    "unimodal": lambda a: -4.0 * (a[..., 0] - 0.4) ** 2,
    "bimodal": lambda a: -20.0 * (a[..., 0] ** 2 - 0.3) ** 2,
    "at the edge": lambda a: 3.0 * a[..., 0],
}


def gradient(q, actions):
    actions = actions.clone().requires_grad_(True)
    values = q(actions).sum()
    return th.autograd.grad(values, actions)[0] if values.requires_grad else th.zeros_like(actions)


def published_score(q_gradient, actions, alpha):
    """The authors': on the squashed actions, the Jacobian added to Q before differentiating with respect to them."""
    return q_gradient / alpha - 2 * actions / (1 - actions.square() + 1e-6)


def run(q, alpha, dim=1, particles=100, steps=500, published=False):
    """SVGD with all particles fixed and updated at once, Adam's step in between; the actions it ends with."""
    x = 0.5 * th.randn(particles, dim, generator=th.Generator().manual_seed(0), dtype=th.float64)
    optimizer = th.optim.Adam([x], lr=0.05)
    schedule = th.optim.lr_scheduler.ExponentialLR(optimizer, 0.996)
    for _ in range(steps):
        actions = x if published else x.tanh()
        q_gradient = gradient(q, actions)
        score = published_score(q_gradient, x, alpha) if published else unsquashed_score(q_gradient, x, alpha)
        x.grad = -svgd_direction(x, x, score)
        optimizer.step()
        schedule.step()
        if published:
            x.clamp_(-0.999, 0.999)
    return (x if published else x.tanh()).numpy()


def distance(q, alpha, **kwargs):
    samples = run(q, alpha, **kwargs)
    oracle = BoltzmannOracle(lambda a: q(th.as_tensor(a)).numpy(), alpha)
    return ks_distance(oracle, samples[:, 0])


@pytest.mark.parametrize(("name", "alpha"), [*((name, 1.0) for name in TARGETS), ("unimodal", 0.5)])
def test_particles_end_in_the_boltzmann_density(name, alpha):
    assert distance(TARGETS[name], alpha) < 0.05


@pytest.mark.parametrize("name", ["uniform", "at the edge"])
def test_the_published_variant_misses(name):
    """The test of the test: its fixed point carries the Jacobian of tanh once too often."""
    assert distance(TARGETS[name], 1.0, published=True) > 0.08


def test_two_correlated_dimensions():
    def q(a):
        x, y = a[..., 0], a[..., 1]
        return -15.0 * (x - 0.8 * y) ** 2 - 1.0 * (x + y - 0.3) ** 2

    samples = run(q, 1.0, dim=2, particles=200, steps=600)
    oracle = BoltzmannOracle(lambda a: q(th.as_tensor(a)).numpy(), 1.0, dim=2)
    distance = sliced_wasserstein_distance(oracle, samples, np.random.default_rng(0))
    assert distance < 0.06
    shuffled = samples[np.random.default_rng(1).permutation(len(samples)), 1]
    without_correlation = np.stack([samples[:, 0], shuffled], axis=1)
    assert sliced_wasserstein_distance(oracle, without_correlation, np.random.default_rng(0)) > 2 * distance


def test_unsquashed_score_is_the_gradient_of_the_log_density():
    u = th.linspace(-4, 4, 9, dtype=th.float64).unsqueeze(-1).requires_grad_(True)
    a = u.tanh()
    log_density = (3.0 * a - a**2).sum() / 0.7 + (1 - a.square()).log().sum()
    (expected,) = th.autograd.grad(log_density, u)
    score = unsquashed_score((3.0 - 2.0 * a).detach(), u.detach(), 0.7)
    assert th.allclose(score, expected)


def test_direction_hand_computed():
    # one updated particle at 0, fixed ones at 1 and 2: squared distances 1 and 4, lower median 1, h = 1 / log 2
    fixed, updated = th.tensor([[1.0], [2.0]]), th.tensor([[0.0]])
    h = 1 / math.log(2)
    k1, k2 = math.exp(-1 / h), math.exp(-4 / h)
    attraction, repulsion = k1 * 0.5 + k2 * -1.0, -2 / h * (1.0 * k1 + 2.0 * k2)
    direction = svgd_direction(fixed, updated, th.tensor([[0.5], [-1.0]]))
    assert direction.item() == pytest.approx((attraction + repulsion) / 2)


def test_direction_per_state():
    fixed, updated, score = th.randn(5, 6, 3), th.randn(5, 4, 3), th.randn(5, 6, 3)
    together = svgd_direction(fixed, updated, score)
    assert together.shape == (5, 4, 3)
    for i in range(5):
        assert th.allclose(together[i], svgd_direction(fixed[i], updated[i], score[i]), atol=1e-6)


def test_median_bandwidth():
    distances = th.tensor([[[4.0, 1.0], [9.0, 2.0], [3.0, 8.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    bandwidth = median_bandwidth(distances)
    assert bandwidth.shape == (2, 1, 1)
    assert bandwidth[0].item() == pytest.approx(3.0 / math.log(3))
    assert bandwidth[1].item() == pytest.approx(MIN_BANDWIDTH)


def test_sampler_loss_moves_particles_along_the_direction():
    updated = th.randn(4, 3, 2, requires_grad=True)
    direction = th.randn(4, 3, 2, requires_grad=True)
    sampler_loss(updated, direction).backward()
    assert th.allclose(updated.grad, -direction / 12) and direction.grad is None


def test_direction_carries_no_gradient():
    fixed, updated, score = (th.randn(4, 2, requires_grad=True) for _ in range(3))
    assert not svgd_direction(fixed, updated, score).requires_grad
