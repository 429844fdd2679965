"""Actions of known density for integrals over a soft Q-function: uniform ones, and some around the particles of samplers."""

import math

import torch as th

from sb3_softac.equations.soft_q import mixture_log_density, uniform_log_density
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob

# A Gaussian is fitted to this many particles and widened: a proposal that is too wide wastes actions, one that is too narrow
# misses part of the integral. The floor keeps a collapsed sampler from proposing one action only.
FITTED_PARTICLES, WIDENING, MIN_STD = 16, 1.2, 0.05


def uniform_proposal(batch: int, m: int, action_dim: int, device: th.device) -> tuple[th.Tensor, th.Tensor]:
    """The paper's proposal: actions in (-1, 1) ``[batch, m, action_dim]`` and their log-densities ``[batch, m]``."""
    actions = away_from_ends(th.rand(batch, m, action_dim, device=device) * 2.0 - 1.0)
    return actions, th.full((batch, m), uniform_log_density(action_dim), device=device)


def mixture_proposal(particles: list[th.Tensor], m: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Actions in (-1, 1) ``[batch, m, action_dim]`` and their log-densities in nats: half are uniform, half come from
    tanh-Gaussians fitted to the particles ``[batch, n_particles, action_dim]`` of one or several samplers.
    """
    batch, _, dim = particles[0].shape
    gaussians = fit_gaussians(particles)
    u = mixture_actions(gaussians, m, th.randn(batch, m, dim, device=particles[0].device, dtype=particles[0].dtype))
    log_densities = [th.full_like(u[..., 0], uniform_log_density(dim))]
    for mean, std in gaussians:
        log_densities.append(squashed_log_prob(gaussian_log_prob((u - mean) / std, std.expand_as(u)), u))
    share = gaussian_share(m, len(particles))
    fractions = th.full((1 + len(particles),), share / m, device=u.device)
    fractions[:1] += (m - share * (1 + len(particles))) / m
    return u.tanh(), mixture_log_density(th.stack(log_densities), fractions)


def fit_gaussians(particles: list[th.Tensor]) -> list[tuple[th.Tensor, th.Tensor]]:
    """:return: Means and widened standard deviations of the particles, each ``[batch, 1, action_dim]``, per sampler."""
    return [
        (sampled.mean(dim=1, keepdim=True), (WIDENING * sampled.std(dim=1, keepdim=True)).clamp(min=MIN_STD))
        for sampled in particles
    ]


def gaussian_share(m: int, n_gaussians: int) -> int:
    """:return: How many of m actions come from each of the Gaussians; the others are uniform."""
    return max(m // (2 * n_gaussians), 1)


def mixture_actions(gaussians: list[tuple[th.Tensor, th.Tensor]], m: int, noise: th.Tensor) -> th.Tensor:
    """:return: Actions before the squash, made of Gaussian noise of this shape, uniform ones first ``[batch, m, dim]``."""
    share = gaussian_share(m, len(gaussians))
    sizes = [m - share * len(gaussians), *[share] * len(gaussians)]
    uniform, *parts = noise.split(sizes, dim=1)
    # The error function turns Gaussian noise into uniform numbers
    drawn = [mean + std * part for (mean, std), part in zip(gaussians, parts, strict=True)]
    return th.cat([away_from_ends(th.erf(uniform / math.sqrt(2.0))).atanh(), *drawn], dim=1)


def away_from_ends(actions: th.Tensor) -> th.Tensor:
    """:return: Actions in [-1, 1], moved away from the ends, whose atanh is infinite."""
    return actions.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
