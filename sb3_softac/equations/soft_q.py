"""
Soft Q-learning, arXiv:1702.08165v2: the soft value as an integral over actions, estimated by importance sampling.

The paper proposes actions uniformly, and the Q-values of sixteen random actions say little about an integral in six
dimensions. Any proposal of known density will do; here it is a mixture, weighted by the balance heuristic, that is, every
action by the density of the mixture as a whole. Actions are scaled to [-1, 1].

The largest Q-value of a state is subtracted before the division by alpha: in float32 a million divided by a hundredth has no
correct digit left of what tells two such Q-values apart, while their difference is exact.
"""

import math

import torch as th

from sb3_softac.equations.shapes import require_same_shape


def advantages_over_alpha(q: th.Tensor, alpha: th.Tensor | float) -> tuple[th.Tensor, th.Tensor]:
    r"""
    Eq. 10 (exponent), arXiv:1702.08165v2. :math:`(Q_j - \max_i Q_i) / \alpha`, the same weights up to a common factor.

    :param q: Soft Q-values of the proposed actions ``[..., m]``, in units of reward.
    :param alpha: Temperature, greater than 0.
    :return: Exponents ``[..., m]``, at most 0, and the largest Q-values ``[..., 1]``, through which no gradient flows.
    """
    largest = q.detach().amax(dim=-1, keepdim=True)
    return (q - largest) / alpha, largest


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
    exponents, largest = advantages_over_alpha(q, alpha)
    return largest.squeeze(-1) + alpha * (th.logsumexp(exponents - log_proposal, dim=-1) - math.log(q.shape[-1]))


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
    exponents, _ = advantages_over_alpha(q, alpha)
    return 1.0 / (exponents - log_proposal).softmax(dim=-1).square().sum(dim=-1)


def soft_policy_entropy(q: th.Tensor, log_proposal: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 6 (entropy), arXiv:1702.08165v2. Entropy of :math:`\pi(a|s) = \exp((Q(s, a) - V(s)) / \alpha)`.

    The value particles carry it along: :math:`H = -E_\pi[\log \pi] \approx (V - \sum_j \bar w_j Q_j) / \alpha` with weights
    that sum to 1, both measured from the largest Q-value. No density of the sampler is needed.

    :param q: Soft Q-values of the proposed actions ``[..., m]``.
    :param log_proposal: Log-densities of the proposal at these actions ``[..., m]``, in nats.
    :param alpha: Temperature, greater than 0.
    :return: Entropies in nats ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q=q, log_proposal=log_proposal)
    exponents, _ = advantages_over_alpha(q, alpha)
    log_w = exponents - log_proposal
    log_normalizer = th.logsumexp(log_w, dim=-1) - math.log(q.shape[-1])
    return log_normalizer - (log_w.softmax(dim=-1) * exponents).sum(dim=-1)


def mean_of_continuing(values: th.Tensor, dones: th.Tensor) -> th.Tensor:
    """
    Eq. 11 (diagnostic), arXiv:1702.08165v2. Mean over the next states that the Bellman target reads: those not terminal.

    The soft Q-function of a terminal state is never trained, and what is computed from it says nothing.

    :param values: One value per next state ``[batch]``.
    :param dones: 1 where the next state is terminal, else 0 ``[batch]``.
    :return: Mean over the other next states, a scalar; 0 if there are none.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(values=values, dones=dones)
    weights = 1.0 - dones
    return (weights * values).sum() / weights.sum().clamp(min=1.0)
