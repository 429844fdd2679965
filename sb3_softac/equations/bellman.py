"""The soft Bellman equation, shared by all algorithms of the package: its target and its residual."""

import torch as th
from torch.nn import functional as F

from sb3_softac.equations.shapes import require_same_shape


def soft_bellman_target(rewards: th.Tensor, dones: th.Tensor, v_next: th.Tensor, discounts: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 8, arXiv:1801.01290v2. Target of the soft Q-functions, :math:`\hat Q = r + \gamma (1 - d) \bar V(s')`.

    An n-step target is the same formula: ``rewards`` is then the discounted sum of n rewards, ``v_next`` belongs to the
    state n steps ahead and ``discounts`` is :math:`\gamma^n`.

    :param rewards: Rewards ``[...]``, in the units of the environment.
    :param dones: 1 where the next state is terminal, else 0, ``[...]``. A time limit is not a terminal state.
    :param v_next: Soft state value of the next state ``[...]``.
    :param discounts: Discount of ``v_next``, a number in [0, 1] or one per transition ``[...]``.
    :return: Targets ``[...]``; gradients flow into ``v_next`` unless the caller holds them back.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(rewards=rewards, dones=dones, v_next=v_next)
    if isinstance(discounts, th.Tensor):
        require_same_shape(rewards=rewards, discounts=discounts)
    return rewards + discounts * (1.0 - dones) * v_next


def q_loss(q: th.Tensor, q_target: th.Tensor) -> th.Tensor:
    r"""
    Eq. 7, arXiv:1801.01290v2. :math:`\sum_i J_Q(\theta_i)` with :math:`J_Q = E[\frac12 (Q_{\theta_i}(s, a) - \hat Q)^2]`.

    :param q: Predicted soft Q-values ``[n_critics, ...]``.
    :param q_target: Target common to all critics ``[...]``; no gradient flows into it.
    :return: Sum over the critics of the mean loss, a scalar.
    :raises ValueError: if the shape of a critic's prediction is not that of the target.
    """
    require_same_shape(q=q[0], q_target=q_target)
    return 0.5 * q.shape[0] * F.mse_loss(q, q_target.detach().expand_as(q))
