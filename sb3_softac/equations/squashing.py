"""Densities of actions that are squashed into [-1, 1] by tanh."""

import math

import torch as th
from torch.nn import functional as F

from sb3_softac.equations.shapes import require_same_shape


def log_tanh_jacobian(u: th.Tensor) -> th.Tensor:
    r"""
    Eq. 21 (summand), arXiv:1801.01290v2. :math:`\log(1 - \tanh^2 u)`, written as :math:`2 (\log 2 - u - \log(1 + e^{-2u}))`.

    The direct form rounds to log 0 from abs(u) = 9 on in float32; this one is exact to rounding, because the
    softplus saturates into the linear function that it must become. In float64 PyTorch's softplus does so too early, which
    leaves an error of up to 4e-9 below u = -10.

    :param u: Pre-activations ``[...]``.
    :return: Elementwise log-derivative of tanh ``[...]``, at most 0.
    """
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


def unsquash(actions: th.Tensor) -> th.Tensor:
    r"""
    Eq. 21 (inverse of the squash), arXiv:1801.01290v2. :math:`u = \mathrm{artanh}(a)`, finite at the ends too.

    In single precision tanh rounds to 1 from u = 9.01 on. The ends therefore count as the largest number below 1, whose u is
    8.66 in single and 18.71 in double precision; there the gradient with respect to the action is 0.

    :param actions: Squashed actions in [-1, 1] ``[...]``.
    :return: Pre-activations ``[...]``.
    :raises ValueError: if an action is NaN, or outside [-1, 1] by more than rounding.
    """
    if not (actions.abs() <= 1.0 + 4.0 * th.finfo(actions.dtype).eps).all():
        raise ValueError(
            "Densities need actions scaled to [-1, 1], got at least one that is outside or NaN: policy.scale_action() scales "
            "actions of the environment"
        )
    end = 1.0 - 0.5 * th.finfo(actions.dtype).eps
    return actions.clamp(-end, end).atanh()


def gaussian_log_prob(noise: th.Tensor, std: th.Tensor) -> th.Tensor:
    r"""
    Eq. 21 (first term), arXiv:1801.01290v2. Log-density :math:`\log \mu(u|s)` of :math:`u = m + \sigma \epsilon`, diagonal.

    It takes the standardised noise instead of u, because (u - m) / sigma has no correct digit left for a tiny sigma.

    :param noise: Standardised noise epsilon ``[..., action_dim]``.
    :param std: Standard deviations ``[..., action_dim]``, greater than 0.
    :return: Log-densities in nats ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(noise=noise, std=std)
    return (-0.5 * noise.square() - std.log() - 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)


def squashed_log_prob(log_mu: th.Tensor, u: th.Tensor) -> th.Tensor:
    r"""
    Eq. 21, arXiv:1801.01290v2. Log-density of tanh(u), :math:`\log \pi(a|s) = \log \mu(u|s) - \sum_d \log(1 - \tanh^2 u_d)`.

    :param log_mu: Log-density of u before squashing ``[...]``, in nats.
    :param u: Pre-activations ``[..., action_dim]``.
    :return: Log-densities with respect to the volume of [-1, 1]^action_dim, in nats ``[...]``.
    :raises ValueError: if the leading dimensions differ.
    """
    correction = log_tanh_jacobian(u).sum(dim=-1)
    require_same_shape(log_mu=log_mu, correction=correction)
    return log_mu - correction
