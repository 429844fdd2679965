import math

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_softac.equations.soft_q import (
    advantages_over_alpha,
    effective_sample_size,
    importance_sampled_soft_value,
    mean_of_continuing,
    mixture_log_density,
    soft_policy_entropy,
    uniform_log_density,
)
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob

CENTRE, CURVATURE = 0.3, 30.0


def exact_value(dim):
    """log of the integral of exp(-k / 2 |a - c|^2) over [-1, 1]^dim: a product of normal probabilities."""
    scale = CURVATURE**-0.5
    mass = stats.norm.cdf(1, CENTRE, scale) - stats.norm.cdf(-1, CENTRE, scale)
    return dim * math.log(math.sqrt(2 * math.pi) * scale * mass)


def quadratic(actions):
    return -0.5 * CURVATURE * (actions - CENTRE).square().sum(dim=-1)


def mixture_of_uniform_and_fitted(dim, states=4_000, m=64, particles=32):
    """Half of the actions uniform, half from a tanh-Gaussian fitted to samples of the true policy: the notes' proposal."""
    generator = th.Generator().manual_seed(dim)
    scale = CURVATURE**-0.5
    lower, upper = ((x - CENTRE) / scale for x in (-1.0, 1.0))
    draws = stats.truncnorm.rvs(lower, upper, CENTRE, scale, (states, particles, dim), random_state=np.random.default_rng(dim))
    fitted = th.as_tensor(draws).atanh()
    mean, std = fitted.mean(dim=1, keepdim=True), 1.2 * fitted.std(dim=1, keepdim=True)
    uniform = 2 * th.rand(states, m // 2, dim, generator=generator, dtype=th.float64) - 1
    noise = th.randn(states, m // 2, dim, generator=generator, dtype=th.float64)
    u = th.cat([uniform.atanh(), mean + std * noise], dim=1)
    std = std.expand_as(u)
    gaussian = squashed_log_prob(gaussian_log_prob((u - mean) / std, std), u)
    log_densities = th.stack([th.full_like(gaussian, uniform_log_density(dim)), gaussian])
    return u.tanh(), mixture_log_density(log_densities, th.tensor([0.5, 0.5], dtype=th.float64))


def test_importance_sampled_soft_value_hand_computed():
    # two actions, density 1/2 each, alpha 2: 2 log((e^(1/2) / 0.5 + e^(3/2) / 0.5) / 2)
    value = importance_sampled_soft_value(th.tensor([1.0, 3.0]), th.full((2,), math.log(0.5)), 2.0)
    assert value.item() == pytest.approx(2 * math.log((math.exp(0.5) + math.exp(1.5)) / 0.5 / 2))


def test_constant_q_is_exact_with_any_number_of_actions():
    """V = c + alpha log volume: neither the volume nor the number of actions may be forgotten."""
    for m, dim in ((1, 1), (4, 3), (16, 6)):
        log_proposal = th.full((5, m), uniform_log_density(dim))
        value = importance_sampled_soft_value(th.full((5, m), 0.7), log_proposal, 0.5)
        assert value.numpy() == pytest.approx(0.7 + 0.5 * dim * math.log(2), rel=1e-5)


@pytest.mark.parametrize(("dim", "bound"), [(1, 0.1), (3, 0.1), (6, 0.3), (17, 1.0)])
def test_bias_with_a_fitted_proposal(dim, bound):
    actions, log_proposal = mixture_of_uniform_and_fitted(dim)
    value = importance_sampled_soft_value(quadratic(actions), log_proposal, 1.0)
    bias = value.mean().item() - exact_value(dim)
    error = 3 * value.std().item() / math.sqrt(len(value))
    assert abs(bias) < bound
    assert bias < error  # log of a mean is too low on average, never too high


@pytest.mark.parametrize(("dim", "bias"), [(3, -1.2), (6, -6.6), (17, -39.0)])
def test_bias_of_the_papers_uniform_proposal(dim, bias):
    """The test of the test: sixteen uniform actions miss by what the notes computed."""
    actions = 2 * th.rand(4_000, 16, dim, generator=th.Generator().manual_seed(0), dtype=th.float64) - 1
    value = importance_sampled_soft_value(quadratic(actions), th.full((4_000, 16), uniform_log_density(dim)), 1.0)
    assert value.mean().item() - exact_value(dim) == pytest.approx(bias, rel=0.1)


def test_mixture_log_density_against_the_sum():
    densities = th.tensor([[0.2, 1.0], [3.0, 0.5]])
    expected = (0.25 * densities[0] + 0.75 * densities[1]).log()
    assert th.allclose(mixture_log_density(densities.log(), th.tensor([0.25, 0.75])), expected)


def test_effective_sample_size_between_one_and_m():
    log_proposal = th.zeros(8)
    assert effective_sample_size(th.zeros(8), log_proposal, 1.0).item() == pytest.approx(8.0)
    assert effective_sample_size(th.tensor([50.0, *[0.0] * 7]), log_proposal, 1.0).item() == pytest.approx(1.0)
    # weights 1 and 3: 16 / 10
    assert effective_sample_size(th.tensor([0.0, 2 * math.log(3.0)]), th.zeros(2), 2.0).item() == pytest.approx(1.6)
    # a density twice as high halves the weight
    assert effective_sample_size(th.zeros(2), th.tensor([0.0, math.log(3.0)]), 1.0).item() == pytest.approx(1.6)


def test_entropy_of_the_quadratic_policy():
    """Against the entropy of the truncated normal, at two temperatures of the same policy."""
    actions, log_proposal = mixture_of_uniform_and_fitted(1, m=256)
    scale = CURVATURE**-0.5
    exact = stats.truncnorm((-1 - CENTRE) / scale, (1 - CENTRE) / scale, CENTRE, scale).entropy()
    for alpha in (1.0, 0.2):
        q = alpha * quadratic(actions)
        entropy = soft_policy_entropy(q, log_proposal, alpha).mean().item()
        assert entropy == pytest.approx(exact, abs=0.01)


def test_gradcheck():
    q, log_proposal = th.randn(3, 5, dtype=th.float64, requires_grad=True), th.randn(3, 5, dtype=th.float64)
    for function in (effective_sample_size, importance_sampled_soft_value, soft_policy_entropy):
        assert th.autograd.gradcheck(lambda x, f=function: f(x, log_proposal, 0.3), [q])


def test_entropy_hand_computed():
    # weights 1/3 and 2/3 of two uniform actions, density 1/2 each: pi = 2/3 and 4/3 with respect to the volume 2
    q = 0.5 * th.tensor([0.0, math.log(2.0)]) + 7.0
    entropy = soft_policy_entropy(q, th.full((2,), math.log(0.5)), 0.5)
    pi = [2 / 3, 4 / 3]
    assert entropy.item() == pytest.approx(-sum(p / 2 * math.log(p / 2) for p in pi), rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e7, 1e8])
def test_large_q_values_keep_their_digits(offset):
    """float32 against the formulas as the paper writes them in float64; 1e8 / 0.01 leaves float32 steps of a thousand nats."""
    generator = th.Generator().manual_seed(0)
    spacing = max(abs(offset) * 2.0**-22, 0.01)
    q = (offset + spacing * th.randint(0, 3, (50, 64), generator=generator)).float()
    log_proposal = th.randn(50, 64, generator=generator)
    alpha, exact, log_p = 0.01, q.double(), log_proposal.double()
    log_w = exact / alpha - log_p
    value = alpha * (th.logsumexp(log_w, dim=-1) - math.log(64))
    w = log_w.softmax(dim=-1)
    entropy = (w * (value[:, None] - exact) / alpha).sum(dim=-1)
    assert effective_sample_size(q, log_proposal, alpha).numpy() == pytest.approx(1 / w.square().sum(dim=-1).numpy(), rel=1e-4)
    assert soft_policy_entropy(q, log_proposal, alpha).numpy() == pytest.approx(entropy.numpy(), abs=1e-3)
    assert importance_sampled_soft_value(q, log_proposal, alpha).numpy() == pytest.approx(value.numpy(), rel=2e-7, abs=1e-6)


def test_advantages_over_alpha():
    exponents, largest = advantages_over_alpha(th.tensor([[1.0, 4.0], [2.0, -1.0]]), 0.5)
    assert exponents.tolist() == [[-6.0, 0.0], [0.0, -6.0]] and largest.tolist() == [[4.0], [2.0]]


def test_gradient_passes_by_the_largest_q():
    q, log_proposal = th.tensor([1e6, 1e6 + 1.0], requires_grad=True), th.zeros(2)
    importance_sampled_soft_value(q, log_proposal, 1.0).backward()
    assert q.grad.numpy() == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)], rel=1e-5)


def test_mean_of_continuing_leaves_terminal_states_out():
    values = th.tensor([1.0, 100.0, 4.0])
    assert mean_of_continuing(values, th.tensor([0.0, 1.0, 0.0])).item() == 2.5
    assert mean_of_continuing(values, th.ones(3)).item() == 0.0
