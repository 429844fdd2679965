"""
Amortized Stein variational gradient descent, arXiv:1702.08165v2, in the space before the squash.

Actions are a = tanh(u). A sampler that is to draw a from exp(Q / alpha) must draw u from the density that carries the Jacobian
of tanh as well, and SVGD has to run on u: there the density falls to zero at infinity, as Stein's identity requires. The
authors' code runs on a, with the Jacobian added to Q, and converges to exp(Q / alpha) times that Jacobian.
"""

import math

import torch as th

from sb3_softac.equations.shapes import require_same_shape

# The authors' code has the same floor; it keeps the kernel defined where all particles coincide.
MIN_BANDWIDTH = 1e-3


def unsquashed_score(q_gradient: th.Tensor, u: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 13 (score), arXiv:1702.08165v2. :math:`\nabla_u [Q(s, \tanh u) / \alpha + \sum_d \log(1 - \tanh^2 u_d)]`.

    :param q_gradient: Gradient of the soft Q-value with respect to the action, at a = tanh(u) ``[..., action_dim]``.
    :param u: Pre-activations ``[..., action_dim]``.
    :param alpha: Temperature, greater than 0.
    :return: Score of the density of u ``[..., action_dim]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q_gradient=q_gradient, u=u)
    a = th.tanh(u)
    return q_gradient / alpha * (1.0 - a.square()) - 2.0 * a


def median_bandwidth(square_distances: th.Tensor) -> th.Tensor:
    r"""
    Eq. 13 (bandwidth), arXiv:1702.08165v2. Median heuristic :math:`h = \mathrm{med} / \log n`, one per state.

    :param square_distances: Squared distances of the n fixed to the updated particles ``[..., n, n_updated]``, n at least 2.
    :return: Bandwidths ``[..., 1, 1]``, at least ``MIN_BANDWIDTH``; the lower median where their number is even.
    """
    median = square_distances.flatten(-2).median(dim=-1).values[..., None, None]
    return (median / math.log(square_distances.shape[-2])).clamp(min=MIN_BANDWIDTH)


def svgd_direction(fixed: th.Tensor, updated: th.Tensor, score: th.Tensor) -> th.Tensor:
    r"""
    Eq. 13, arXiv:1702.08165v2. :math:`\phi(u) = \frac1n \sum_j [\kappa(u_j, u) \nabla \log p(u_j) + \nabla_{u_j} \kappa]`.

    With the kernel :math:`\kappa(x, y) = \exp(-\|x - y\|^2 / h)`. Divided by the temperature in comparison to the paper, which
    puts it in front of the second term. No gradient flows through the result.

    :param fixed: Particles that stand for the sampler's density ``[..., n, action_dim]``.
    :param updated: Particles to be moved ``[..., n_updated, action_dim]``.
    :param score: Gradient of the log-density at the fixed particles ``[..., n, action_dim]``.
    :return: Direction of steepest descent of the Kullback-Leibler divergence at the updated particles
        ``[..., n_updated, action_dim]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(fixed=fixed, score=score)
    require_same_shape(fixed=fixed[..., :1, :], updated=updated[..., :1, :])
    fixed, updated, score = fixed.detach(), updated.detach(), score.detach()
    difference = fixed.unsqueeze(-2) - updated.unsqueeze(-3)
    square_distances = difference.square().sum(dim=-1)
    bandwidth = median_bandwidth(square_distances)
    kernel = (-square_distances / bandwidth).exp()
    repulsion = (-2.0 / bandwidth.unsqueeze(-1) * difference * kernel.unsqueeze(-1)).sum(dim=-3)
    return (kernel.transpose(-1, -2) @ score + repulsion) / fixed.shape[-2]


def sampler_loss(updated: th.Tensor, direction: th.Tensor) -> th.Tensor:
    r"""
    Eq. 14, arXiv:1702.08165v2. A loss whose gradient moves the sampler's particles along the SVGD direction.

    :param updated: Particles, differentiable in the sampler's parameters ``[..., action_dim]``.
    :param direction: :func:`svgd_direction` at these particles ``[..., action_dim]``; no gradient flows into it.
    :return: Scalar; its value means nothing.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(updated=updated, direction=direction)
    return -(updated * direction.detach()).sum(dim=-1).mean()
