import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac.policies import Actor

from sb3_softac.nets.gaussian import SquashedGaussianActor

OBS = spaces.Box(-1, 1, (3,), np.float32)
ACT = spaces.Box(-1, 1, (2,), np.float32)


def make(cls, **kwargs):
    return cls(OBS, ACT, net_arch=[16], features_extractor=FlattenExtractor(OBS), features_dim=3, **kwargs)


@pytest.mark.parametrize("use_sde", [False, True])
def test_log_prob_agrees_with_sb3_where_sb3_is_accurate(use_sde):
    th.manual_seed(0)
    ours, sb3 = make(SquashedGaussianActor, use_sde=use_sde), make(Actor, use_sde=use_sde)
    sb3.load_state_dict(ours.state_dict())
    obs = th.randn(64, 3)
    actions, log_pi = ours.action_log_prob(obs)
    mean, log_std, kwargs = sb3.get_action_dist_params(obs)
    distribution = sb3.action_dist.proba_distribution(mean, log_std, **kwargs)
    moderate = (actions.abs() < 0.99).all(dim=1)
    th.testing.assert_close(log_pi[moderate], distribution.log_prob(actions)[moderate], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("use_sde", [False, True])
def test_sample_and_log_prob_belong_together(use_sde):
    """Same seed: the sampled action of forward() is the one that action_log_prob() rates; the mean is deterministic."""
    actor = make(SquashedGaussianActor, use_sde=use_sde)
    obs = th.randn(5, 3)
    th.manual_seed(1)
    actions = actor(obs)
    th.manual_seed(1)
    th.testing.assert_close(actor.action_log_prob(obs)[0], actions)
    th.testing.assert_close(actor(obs, deterministic=True), th.tanh(actor.get_action_dist_params(obs)[0]))


def test_entropy_by_quadrature():
    """-E[log pi] over samples meets the exact entropy of a tanh-Gaussian."""
    th.manual_seed(0)
    actor = make(SquashedGaussianActor)
    for layer in (actor.mu, actor.log_std):
        layer.weight.data.zero_()
    actor.mu.bias.data.fill_(0.3)
    actor.log_std.bias.data.fill_(math.log(0.6))
    log_pi = actor.action_log_prob(th.zeros(100_000, 3))[1].detach()
    x, weights = np.polynomial.hermite_e.hermegauss(80)
    weights /= weights.sum()
    u = 0.3 + 0.6 * x
    per_dimension = 0.5 * math.log(2 * math.pi * math.e * 0.36) + (weights * np.log(1 - np.tanh(u) ** 2)).sum()
    standard_error = log_pi.std().item() / math.sqrt(len(log_pi))
    assert abs(-log_pi.mean().item() - 2 * per_dimension) < 3 * standard_error


def test_parameters_of_the_density_are_those_of_sb3():
    """Its bounds on the standard deviation included."""
    ours, sb3 = make(SquashedGaussianActor), make(Actor)
    for bias in (-50.0, 0.0, 50.0):
        ours.log_std.bias.data.fill_(bias)
        sb3.load_state_dict(ours.state_dict())
        obs = th.randn(8, 3)
        th.testing.assert_close(ours.get_action_dist_params(obs), sb3.get_action_dist_params(obs))


@pytest.mark.parametrize("shift", [20.0, -50.0])
def test_gradients_far_out(shift):
    """Where tanh is 1 in single precision, the density still has the gradient 2 and the action none."""
    actor = make(SquashedGaussianActor)
    for layer, bias in ((actor.mu, shift), (actor.log_std, -5.0)):
        layer.weight.data.zero_()
        layer.bias.data.fill_(bias)
    actions, log_prob = actor.action_log_prob(th.zeros(1, 3))
    th.testing.assert_close(
        th.autograd.grad(log_prob, actor.mu.bias, retain_graph=True)[0], th.full((2,), math.copysign(2.0, shift))
    )
    assert not th.autograd.grad(actions.sum(), actor.mu.bias)[0].any()
