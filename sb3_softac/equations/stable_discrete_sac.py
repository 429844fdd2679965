"""
The two stabilisers of Stable Discrete SAC, arXiv:2209.10081v4.

Its third part, the mean of the critics in place of their minimum, needs no equation of its own.
"""

import torch as th

from sb3_softac.equations.shapes import require_same_shape


def clipped_q_loss(q: th.Tensor, q_old: th.Tensor, q_target: th.Tensor, clip_range: th.Tensor | float) -> th.Tensor:
    r"""
    Algorithm 1 (Q-clip), arXiv:2209.10081v4. :math:`\max((Q - y)^2, (Q' + \mathrm{clip}(Q - Q', -c, c) - y)^2)`.

    The larger of the two counts element by element, as the paper writes it; the authors' code compares the means of the batch.
    The factor 1/2 is that of the loss without a clip, :func:`sb3_softac.equations.bellman.q_loss`.

    :param q: Predicted soft Q-values ``[n_critics, ...]``.
    :param q_old: Those of the target networks for the same actions ``[n_critics, ...]``; no gradient flows into them.
    :param q_target: Target common to all critics ``[...]``; no gradient flows into it.
    :param clip_range: Largest change c that counts, in units of reward, greater than 0.
    :return: Sum over the critics of the mean loss, a scalar.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(q=q, q_old=q_old)
    require_same_shape(q=q[0], q_target=q_target)
    q_old, q_target = q_old.detach(), q_target.detach()
    change = th.minimum(th.maximum(q - q_old, -th.as_tensor(clip_range)), th.as_tensor(clip_range))
    errors = th.maximum((q - q_target).square(), (q_old + change - q_target).square())
    return 0.5 * errors.mean() * q.shape[0]


def entropy_penalty(entropy: th.Tensor, entropy_old: th.Tensor) -> th.Tensor:
    r"""
    Algorithm 1 (entropy penalty), arXiv:2209.10081v4. :math:`E[\frac12 (H_{\pi_{old}}(s) - H_\pi(s))^2]`.

    :param entropy: Entropies of the policy ``[...]``, in nats.
    :param entropy_old: Those of the policy that collected the transitions ``[...]``; no gradient flows into them.
    :return: Mean penalty, a scalar, to be weighted by beta.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(entropy=entropy, entropy_old=entropy_old)
    return 0.5 * (entropy_old.detach() - entropy).square().mean()
