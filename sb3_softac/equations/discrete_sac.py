"""
Soft Actor-Critic for discrete actions, arXiv:1910.07207v2.

Policies and Q-values come as vectors over all actions, ``[..., n]``, so that expectations over actions are sums. Where an
action has several branches (MultiDiscrete, MultiBinary), the vectors of the branches are concatenated, the policy is the
product of its branches and the Q-value of an action the sum of one utility per branch. The expectation of such a Q-value and
the entropy of such a policy are sums over branches as well, so the same sums stay exact, at a cost of the sum of the branch
sizes. (The policy that is optimal for such a Q-value, softmax(Q / alpha), is itself a product of branches.)
"""

import torch as th

from sb3_softac.equations.shapes import require_same_shape


def soft_state_value(q: th.Tensor, log_pi: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 10, arXiv:1910.07207v2. Exact soft state value, :math:`V(s) = \pi(s)^T [Q(s) - \alpha \log \pi(s)]`.

    For the policy softmax(Q / alpha) it is :math:`\alpha \log \sum_a \exp(Q(s, a) / \alpha)`, Eq. 5 of arXiv:1702.08165v2.

    :param q: Soft Q-values of all actions ``[..., n]``, in units of reward.
    :param log_pi: Log-probabilities of all actions ``[..., n]``, in nats.
    :param alpha: Weight of the entropy, at least 0: the temperature, or less where critic and actor are decoupled.
    :return: Soft state values ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q=q, log_pi=log_pi)
    return (log_pi.exp() * (q - alpha * log_pi)).sum(dim=-1)


def policy_entropy(log_pi: th.Tensor) -> th.Tensor:
    r"""
    Eq. 10 (entropy term), arXiv:1910.07207v2. :math:`H(\pi(s)) = -\pi(s)^T \log \pi(s)`.

    :param log_pi: Log-probabilities of all actions ``[..., n]``, in nats.
    :return: Entropies in nats ``[...]``.
    """
    return -(log_pi.exp() * log_pi).sum(dim=-1)


def policy_loss(log_pi: th.Tensor, q: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 12, arXiv:1910.07207v2. :math:`J_\pi = E_s[\pi(s)^T [\alpha \log \pi(s) - Q(s)]]`.

    :param log_pi: Log-probabilities of all actions ``[..., n]``, in nats.
    :param q: Soft Q-values of all actions ``[..., n]``; no gradient flows into them.
    :param alpha: Temperature, at least 0.
    :return: Mean loss, a scalar.
    :raises ValueError: if the shapes differ.
    """
    return -soft_state_value(q.detach(), log_pi, alpha).mean()
