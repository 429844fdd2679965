"""
Soft Actor-Critic with a state-value network, arXiv:1801.01290v2 (ICML 2018).

The paper divides rewards by the temperature (its reward scale is 1 / alpha). Here the rewards stay as they are and alpha
multiplies the log-density instead: the same policy, with values in the units of the rewards.
"""

import torch as th
from torch.nn import functional as F

from sb3_softac.equations.shapes import require_same_shape


def soft_value_target(q_min: th.Tensor, log_pi: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 3, arXiv:1801.01290v2. One-sample soft state value, :math:`Q(s, a) - \alpha \log \pi(a|s)` with :math:`a \sim \pi`.

    :param q_min: Smallest soft Q-value of the sampled action over the critics ``[...]``.
    :param log_pi: Log-density of the sampled action ``[...]``, in nats.
    :param alpha: Temperature; 0 for the deterministic variant.
    :return: Target of the value network ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q_min=q_min, log_pi=log_pi)
    return q_min - alpha * log_pi


def value_loss(v: th.Tensor, v_target: th.Tensor) -> th.Tensor:
    r"""
    Eq. 5, arXiv:1801.01290v2. :math:`J_V = E[\frac12 (V(s) - \hat V(s))^2]`.

    :param v: Predicted soft state values ``[...]``.
    :param v_target: Their targets ``[...]`` (:func:`soft_value_target`); no gradient flows into them.
    :return: Mean loss, a scalar.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(v=v, v_target=v_target)
    return 0.5 * F.mse_loss(v, v_target.detach())


def policy_loss(log_pi: th.Tensor, q: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 12, arXiv:1801.01290v2. :math:`J_\pi = E[\alpha \log \pi(f(\epsilon; s)|s) - Q(s, f(\epsilon; s))]`.

    :param log_pi: Log-density of the reparameterised action ``[...]``, in nats.
    :param q: Soft Q-value of that action ``[...]``, differentiable with respect to the action only.
    :param alpha: Temperature, greater than 0; 0 if the policy is deterministic.
    :return: Mean loss, a scalar.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(log_pi=log_pi, q=q)
    return (alpha * log_pi - q).mean()


def likelihood_ratio_loss(log_pi: th.Tensor, q: th.Tensor, v: th.Tensor, alpha: th.Tensor | float) -> th.Tensor:
    r"""
    Algorithm 1 (policy gradient), arXiv:1801.01290v1. A loss with that gradient,
    :math:`E[\nabla \log \pi(a|s) \, (\alpha \log \pi(a|s) - Q(s, a) + V(s))]`, at actions that are fixed.

    V(s) is a baseline: without it the expectation would be the same, and the variance larger. The gradient of the log-density
    in the bracket has expectation 0 and is left out.

    :param log_pi: Log-density of sampled actions ``[...]``, in nats, differentiable in the policy but not in the actions.
    :param q: Soft Q-values of these actions ``[...]``; no gradient flows into them.
    :param v: Soft state values ``[...]``; no gradient flows into them.
    :param alpha: Temperature, greater than 0.
    :return: Scalar; its value means nothing.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(log_pi=log_pi, q=q, v=v)
    return (log_pi * (alpha * log_pi - q + v).detach()).mean()
