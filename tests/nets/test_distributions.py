"""Policies with several modes: density, samples, gradients and the deterministic action against quadrature."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.stats import wasserstein_distance
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_softac.nets.flow import SquashedFlowActor
from sb3_softac.nets.gaussian import SquashedGaussianActor
from sb3_softac.nets.mixture import SquashedMixtureActor
from sb3_softac.tabular.oracles import quadrature

OBS = spaces.Box(-1, 1, (2,), np.float32)
KINDS = {
    "mixture": (SquashedMixtureActor, dict(n_components=3, separation=0.0)),
    "flow": (SquashedFlowActor, dict(coupling_width=8)),
}
ACTORS = [(name, dim) for name in KINDS for dim in (1, 2, 3)]
IN_THE_PLANE = [(name, dim) for name, dim in ACTORS if dim < 3]


class DoubleExtractor(FlattenExtractor):
    """SB3 turns observations into single precision; the layers of these tests compute in double."""

    def forward(self, observations):
        return super().forward(observations).double()


def make(name, action_dim, seed=3, scale=0.6, cls=None, **kwargs):
    """An actor with random layers, far from its start: its densities have several modes."""
    th.manual_seed(seed)
    cls, own = (cls, {}) if cls else KINDS[name]
    # Layers without kinks, which a rule for integrals would see
    layers = dict(net_arch=[8], activation_fn=th.nn.Tanh, features_extractor=DoubleExtractor(OBS), features_dim=2)
    box = spaces.Box(-1, 1, (action_dim,), np.float32)
    actor = cls(observation_space=OBS, action_space=box, **layers, **{**own, **kwargs}).double()
    with th.no_grad():
        for parameter in actor.parameters():
            parameter.add_(scale * th.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        # Narrow enough for all of the density to lie where tanh still has digits
        if cls is SquashedMixtureActor:
            actor.components.bias.view(actor.n_components, -1)[:, 1 + action_dim :] -= 2.0
        elif cls is SquashedFlowActor:
            actor.log_std.bias -= 1.5
    return actor


def row(n):
    return th.tensor([[0.3, -0.8]], dtype=th.float64).expand(n, -1)


def grid(dim):
    """Nodes and weights over the actions, by a rule over what is squashed: densities may be steep at the walls."""
    nodes, weights = quadrature(dim, 400 if dim == 1 else 40, 16 if dim == 1 else 12)
    u = th.as_tensor(12.0 * nodes)
    return u, th.as_tensor(weights) * 12.0**dim * (1.0 - th.tanh(u).square()).prod(dim=1)


@th.no_grad()
def mass(actor, dim):
    u, weights = grid(dim)
    return u, weights * actor.log_prob(row(len(u)), th.tanh(u)).exp()


@pytest.mark.parametrize(("name", "dim"), IN_THE_PLANE)
def test_density_integrates_to_one(name, dim):
    assert mass(make(name, dim, scale=0.4), dim)[1].sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("name", "dim"), ACTORS)
@th.no_grad()
def test_log_density_of_samples_is_that_of_the_actions(name, dim):
    actor = make(name, dim)
    actions, log_pi = actor.action_log_prob(row(2_000))
    inside = actions.abs().amax(dim=1) < 1.0 - 1e-9  # atanh keeps no digits at the walls
    assert inside.sum() > 1_500
    th.testing.assert_close(actor.log_prob(row(2_000), actions)[inside], log_pi[inside], rtol=0, atol=1e-4)
    single = make(name, dim).float()
    single.features_extractor = FlattenExtractor(OBS)
    actions, log_pi = single.action_log_prob(row(500).float())
    far_in = actions.abs().amax(dim=1) < 0.99
    exact = actor.log_prob(row(500), actions.double())
    th.testing.assert_close(log_pi.double()[far_in], exact[far_in], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", KINDS)
@th.no_grad()
def test_samples_have_the_density_in_one_dimension(name):
    actor, n = make(name, 1), 20_000
    u, parts = mass(actor, 1)
    cdf = np.concatenate([[0.0], parts.cumsum(0).numpy()])
    edges = np.concatenate([[-12.0], 0.5 * (u[1:] + u[:-1]).squeeze().numpy(), [12.0]])
    for actions in (actor(row(n)), actor.action_log_prob(row(n))[0], actor.sample(row(n), reparameterize=False).actions):
        ordered = np.sort(th.atanh(actions.squeeze(1).clamp(-1 + 1e-12, 1 - 1e-12)).numpy())
        distance = np.abs(np.interp(ordered, edges, cdf) - (np.arange(n) + 0.5) / n).max()
        assert distance < 1.95 / n**0.5  # exceeded by exact samples once in a thousand times


@pytest.mark.parametrize("name", KINDS)
@th.no_grad()
def test_samples_have_the_density_in_the_plane(name):
    actor, n = make(name, 2), 20_000
    u, parts = mass(actor, 2)
    exact, actions = th.tanh(u), actor(row(n))
    for angle in np.linspace(0, np.pi, 8, endpoint=False):
        direction = th.tensor([np.cos(angle), np.sin(angle)])
        distance = wasserstein_distance(actions @ direction, exact @ direction, v_weights=parts)
        assert distance < 0.03


def values(a):
    """A Q-function with two peaks and a slope."""
    return (1.5 * th.cos(5.0 * a) + 0.4 * a).sum(dim=-1)


def objective(actor, alpha):
    u, weights = grid(1)
    log_pi = actor.log_prob(row(len(u)), th.tanh(u))
    return (weights * log_pi.exp() * (alpha * log_pi - values(th.tanh(u)))).sum()


@pytest.mark.parametrize("reparameterize", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_gradient_is_that_of_the_exact_objective(name, reparameterize):
    """Along random directions, against finite differences of the objective by quadrature."""
    actor, alpha, n, rounds = make(name, 1, scale=0.5), 0.3, 4_000, 40
    parameters = list(actor.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    directions = [[th.randn_like(parameter) for parameter in parameters] for _ in range(4)]
    exact = []
    for direction in directions:
        ends = []
        for step in (1e-4, -1e-4):
            with th.no_grad():
                for parameter, origin, part in zip(parameters, start, direction, strict=True):
                    parameter.copy_(origin + step * part)
                ends.append(objective(actor, alpha).item())
        exact.append((ends[0] - ends[1]) / 2e-4)
    with th.no_grad():
        for parameter, origin in zip(parameters, start, strict=True):
            parameter.copy_(origin)
    found = []
    for _ in range(rounds):
        sample = actor.sample(row(n), reparameterize)
        q = values(sample.actions)
        assert sample.actions.requires_grad is reparameterize
        loss = sample.policy_loss(q, th.full_like(q, 0.7), alpha)
        gradient = th.autograd.grad(loss, parameters)
        found.append([sum((g * d).sum() for g, d in zip(gradient, each, strict=True)).item() for each in directions])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / rounds**0.5
    assert (np.abs(mean - exact) < 4.5 * error + 1e-6).all(), (mean, exact, error)
    assert (error < 0.1 * np.abs(exact).max()).all()  # or the test above would see nothing


def test_gradient_of_the_gaussian_by_the_likelihood_ratio():
    actor = make("gaussian", 1, scale=0.3, cls=SquashedGaussianActor)
    both = []
    for reparameterize in (True, False):
        gradients = []
        for _ in range(30):
            sample = actor.sample(row(4_000), reparameterize)
            q = values(sample.actions)
            loss = sample.policy_loss(q, q.mean().expand_as(q), 0.3)
            gradients.append(th.cat([part.flatten() for part in th.autograd.grad(loss, list(actor.parameters()))]))
        both.append(th.stack(gradients))
    difference = both[0].mean(0) - both[1].mean(0)
    error = (both[0].var(0) + both[1].var(0)).div(30).sqrt()
    assert (difference.abs() < 5 * error + 1e-9).all()


@pytest.mark.parametrize(("name", "dim"), ACTORS)
@th.no_grad()
def test_deterministic_action_is_dense_and_always_the_same(name, dim):
    """Denser, before the squash, than three of four samples."""
    for seed in range(4):
        actor = make(name, dim, seed=seed)
        action = actor(row(3), deterministic=True)
        th.manual_seed(1)
        assert (actor(row(3), deterministic=True) == action).all() and (action == action[0]).all()

        def log_mu(actions, actor=actor):
            return actor.log_prob(row(len(actions)), actions) + (1.0 - actions.square()).log().sum(dim=1)

        samples = actor(row(2_000)).clamp(-1 + 1e-12, 1 - 1e-12)
        assert (log_mu(action)[0] > log_mu(samples)).double().mean() > 0.75


def test_a_mixture_of_one_is_the_gaussian():
    gaussian, mixture = make("", 2, cls=SquashedGaussianActor), make("mixture", 2, n_components=1)
    with th.no_grad():
        mixture.latent_pi.load_state_dict(gaussian.latent_pi.state_dict())
        for name in ("weight", "bias"):
            parts = [getattr(layer, name) for layer in (gaussian.mu, gaussian.log_std)]
            getattr(mixture.components, name).copy_(th.cat([th.zeros_like(parts[0][:1]), *parts]))
        th.testing.assert_close(mixture(row(1), True), gaussian(row(1), True))
        th.manual_seed(0)
        expected = gaussian.action_log_prob(row(50))
        th.manual_seed(0)
        sample = mixture.sample(row(50))
    th.testing.assert_close(sample.actions[0], expected[0])
    th.testing.assert_close(sample.log_pi[0], expected[1])


def test_a_flow_starts_as_the_gaussian():
    flow = make("flow", 2, scale=0.0)
    latent, noise = flow.latent_pi(flow.features(row(50))), th.randn(50, 2, dtype=th.float64)
    mean, std = flow.mu(latent), flow.log_std(latent).exp()
    u, log_mu = flow.transform(latent, noise)
    th.testing.assert_close(u, mean + std * noise)
    th.testing.assert_close(log_mu, th.distributions.Normal(mean, std).log_prob(u).sum(dim=1))
    th.testing.assert_close(flow.noise_of(latent, u), noise)


GAUSSIANS = {"gaussian": {}, "gSDE": dict(use_sde=True)}


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("name", [*KINDS, *GAUSSIANS])
def test_log_density_at_the_ends(name, dtype):
    """Single precision returns actions of exactly 1. Their density is that of the number next to them, with a gradient."""
    actor = make(name, 2) if name in KINDS else make(name, 2, cls=SquashedGaussianActor, **GAUSSIANS[name])
    actor.to(dtype)
    obs = row(3).to(dtype)
    if dtype == th.float32:
        actor.features_extractor = FlattenExtractor(OBS)
    below = th.nextafter(th.ones((), dtype=dtype), th.zeros((), dtype=dtype)).item()
    ends, near = (th.tensor([[end, 0.2], [-end, end], [0.1, -end]], dtype=dtype) for end in (1.0, below))
    log_pi = actor.log_prob(obs, ends.requires_grad_())
    assert log_pi.isfinite().all()
    th.testing.assert_close(log_pi, actor.log_prob(obs, near), rtol=0, atol=0)
    several = actor.log_prob(obs, th.stack([near, ends]))
    th.testing.assert_close(several, th.stack([log_pi, log_pi]))
    log_pi.sum().backward()
    gradients = {each: p.grad for each, p in actor.named_parameters() if p.grad is not None}
    assert ends.grad.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients.values())
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())
    with pytest.raises(ValueError, match=r"scaled to \[-1, 1\]"):
        actor.log_prob(obs, 2.0 * ends)
    for wrong in (ends[:, :1], ends[:1], ends[0]):
        with pytest.raises(ValueError, match="Expected tensors of one shape"):
            actor.log_prob(obs, wrong)


@pytest.mark.parametrize("name", GAUSSIANS)
@th.no_grad()
def test_log_density_of_a_gaussian_is_that_of_its_samples(name):
    actor = make(name, 2, cls=SquashedGaussianActor, **GAUSSIANS[name])
    if actor.use_sde:
        actor.reset_noise(50)  # in double precision
    actions, log_pi = actor.action_log_prob(row(50))
    th.testing.assert_close(actor.log_prob(row(50), actions), log_pi, rtol=0, atol=1e-6)
