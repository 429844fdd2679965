"""The learned temperature, arXiv:1812.05905v2."""

import math

import torch as th


def temperature_loss(log_alpha: th.Tensor, log_pi: th.Tensor, target_entropy: th.Tensor | float) -> th.Tensor:
    r"""
    Eq. 18, arXiv:1812.05905v2. :math:`J(\alpha) = E[-\alpha (\log \pi(a|s) + \bar H)]`, with log alpha in place of alpha.

    Deviation: the factor alpha is replaced by log alpha, as the authors' code and SB3 do. The sign of the gradient, hence
    the fixed point, is the same, and the step no longer shrinks with alpha.

    For discrete actions the expectation of log pi is exact, minus the entropy (Eq. 11, arXiv:1910.07207v2).

    :param log_alpha: Logarithm of the temperature, a tensor with one element.
    :param log_pi: Log-densities of sampled actions, or minus the entropies ``[...]``, in nats; no gradient flows into them.
    :param target_entropy: Entropy to hold the policy at, in nats, a number or one per state ``[...]``.
    :return: Mean loss, a scalar.
    """
    return -(log_alpha * (log_pi.detach() + target_entropy)).mean()


def continuous_target_entropy(action_shape: tuple[int, ...]) -> float:
    """
    Table 1 (appendix D), arXiv:1812.05905v2. Minus the number of action dimensions.

    :param action_shape: Shape of the continuous action space, e.g. ``(6,)``.
    :return: Target entropy in nats.
    """
    return -float(math.prod(action_shape))
