"""Actions of known density for integrals over a soft Q-function: uniform ones, and some around the particles of samplers."""

import torch as th

from sb3_softac.equations.soft_q import mixture_log_density, uniform_log_density
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob

# A Gaussian is fitted to this many particles and widened: a proposal that is too wide wastes actions, one that is too narrow
# misses part of the integral. The floor keeps a collapsed sampler from proposing one action only.
FITTED_PARTICLES, WIDENING, MIN_STD = 16, 1.2, 0.05


def uniform_proposal(batch: int, m: int, action_dim: int, device: th.device) -> tuple[th.Tensor, th.Tensor]:
    """
    The paper's proposal.

    :param batch: Number of states.
    :param m: Number of actions per state.
    :param action_dim: Number of action dimensions.
    :param device: Device of the networks.
    :return: Actions in (-1, 1) ``[batch, m, action_dim]`` and their log-densities in nats ``[batch, m]``.
    """
    # short of the ends, whose atanh is infinite
    actions = (th.rand(batch, m, action_dim, device=device) * 2.0 - 1.0).clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    return actions, th.full((batch, m), uniform_log_density(action_dim), device=device)


def mixture_proposal(particles: list[th.Tensor], m: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Half uniform actions, half from tanh-Gaussians fitted to the particles of one or several samplers.

    :param particles: Actions before the squash, one tensor ``[batch, n_particles, action_dim]`` per sampler.
    :param m: Number of actions per state, at least one per sampler and one more.
    :return: Actions in (-1, 1) ``[batch, m, action_dim]`` and their log-densities in nats ``[batch, m]``.
    """
    batch, _, dim = particles[0].shape
    share = max(m // (2 * len(particles)), 1)
    uniform, _ = uniform_proposal(batch, m - share * len(particles), dim, particles[0].device)
    means = [sampled.mean(dim=1, keepdim=True) for sampled in particles]
    stds = [(WIDENING * sampled.std(dim=1, keepdim=True)).clamp(min=MIN_STD) for sampled in particles]
    drawn = [mean + std * th.randn(batch, share, dim, device=mean.device) for mean, std in zip(means, stds, strict=True)]
    u = th.cat([uniform.atanh(), *drawn], dim=1)
    log_densities = [th.full_like(u[..., 0], uniform_log_density(dim))]
    for mean, std in zip(means, stds, strict=True):
        log_densities.append(squashed_log_prob(gaussian_log_prob((u - mean) / std, std.expand_as(u)), u))
    fractions = th.full((1 + len(particles),), share / m, device=u.device)
    fractions[:1] += (uniform.shape[1] - share) / m
    return u.tanh(), mixture_log_density(th.stack(log_densities), fractions)
