"""
Soft Q-learning, arXiv:1702.08165v2: the soft value as an integral over actions, estimated by importance sampling.

The paper proposes actions uniformly, and the Q-values of sixteen random actions say little about an integral in six
dimensions. Any proposal of known density will do; here it is a mixture, weighted by the balance heuristic, that is, every
action by the density of the mixture as a whole. Actions are scaled to [-1, 1].
"""

import math

import torch as th

from sb3_softac.equations.shapes import require_same_shape


def importance_sampled_soft_value(q: th.Tensor, log_proposal: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 10, arXiv:1702.08165v2. :math:`V(s) = \alpha \log \frac1m \sum_j \exp(Q(s, a_j) / \alpha) / q(a_j)`, a_j from q.

    :param q: Soft Q-values of the proposed actions ``[..., m]``, in units of reward.
    :param log_proposal: Log-densities of the proposal at these actions ``[..., m]``, in nats.
    :param alpha: Temperature, greater than 0.
    :return: Soft state values ``[...]``, in units of reward; too low on average, the less so the better the proposal.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q=q, log_proposal=log_proposal)
    return alpha * (th.logsumexp(q / alpha - log_proposal, dim=-1) - math.log(q.shape[-1]))


def uniform_log_density(action_dim: int) -> float:
    """
    Eq. 10 (uniform proposal), arXiv:1702.08165v2. Log-density of uniform actions in [-1, 1]^action_dim.

    :param action_dim: Number of action dimensions.
    :return: Log-density in nats.
    """
    return -action_dim * math.log(2.0)


def mixture_log_density(log_densities: th.Tensor, weights: th.Tensor) -> th.Tensor:
    """
    Eq. 10 (mixture proposal), arXiv:1702.08165v2. Log-density of a mixture: the balance heuristic's denominator.

    :param log_densities: Log-densities of the components at the actions ``[n_components, ...]``, in nats.
    :param weights: Fraction of actions drawn from each component ``[n_components]``, greater than 0, sum 1.
    :return: Log-densities of the mixture ``[...]``, in nats.
    """
    return th.logsumexp(log_densities + weights.log().reshape(-1, *[1] * (log_densities.dim() - 1)), dim=0)


def effective_sample_size(q: th.Tensor, log_proposal: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 10 (diagnostic), arXiv:1702.08165v2. :math:`(\sum_j w_j)^2 / \sum_j w_j^2`, w_j = exp(Q_j / alpha) / q(a_j).

    :param q: Soft Q-values of the proposed actions ``[..., m]``.
    :param log_proposal: Log-densities of the proposal at these actions ``[..., m]``, in nats.
    :param alpha: Temperature, greater than 0.
    :return: Effective sample sizes ``[...]``, from 1 (one action carries the estimate) to m.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q=q, log_proposal=log_proposal)
    log_w = q / alpha - log_proposal
    return (2.0 * th.logsumexp(log_w, dim=-1) - th.logsumexp(2.0 * log_w, dim=-1)).exp()


def soft_policy_entropy(q: th.Tensor, v: th.Tensor, log_proposal: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 6 (entropy), arXiv:1702.08165v2. Entropy of :math:`\pi(a|s) = \exp((Q(s, a) - V(s)) / \alpha)`.

    The value particles carry it along: :math:`H = -E_\pi[\log \pi] \approx \sum_j \bar w_j (V - Q_j) / \alpha` with weights
    that sum to 1. No density of the sampler is needed.

    :param q: Soft Q-values of the proposed actions ``[..., m]``.
    :param v: Their soft state values ``[...]``, :func:`importance_sampled_soft_value`.
    :param log_proposal: Log-densities of the proposal at these actions ``[..., m]``, in nats.
    :param alpha: Temperature, greater than 0.
    :return: Entropies in nats ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q=q, log_proposal=log_proposal)
    weights = (q / alpha - log_proposal).softmax(dim=-1)
    return (weights * (v.unsqueeze(-1) - q) / alpha).sum(dim=-1)
