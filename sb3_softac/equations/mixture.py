"""Mixtures of diagonal Gaussians, the policies of the first version of arXiv:1801.01290."""

import torch as th

from sb3_softac.equations.shapes import require_same_shape
from sb3_softac.equations.squashing import gaussian_log_prob


def mixture_log_prob(u: th.Tensor, log_weights: th.Tensor, mean: th.Tensor, std: th.Tensor) -> th.Tensor:
    r"""
    Eq. 21 (first term, mixture), arXiv:1801.01290v2. Log-density :math:`\log \sum_k w_k N(u; m_k, \sigma_k^2)`, diagonal.

    :param u: Pre-activations ``[..., batch, action_dim]``.
    :param log_weights: Logarithms of the weights w_k ``[n_components, batch]``, each state's weights with sum 1.
    :param mean: Means ``[n_components, batch, action_dim]``.
    :param std: Standard deviations ``[n_components, batch, action_dim]``, greater than 0.
    :return: Log-densities in nats ``[..., batch]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(mean=mean, std=std)
    require_same_shape(log_weights=log_weights, mean=mean[..., 0])
    require_same_shape(mean=mean[0], u=u.reshape(-1, *u.shape[-2:])[0])
    noise = (u.unsqueeze(-3) - mean) / std
    return th.logsumexp(log_weights + gaussian_log_prob(noise, std.expand_as(noise)), dim=-2)


def mean_over_components(values: th.Tensor, log_weights: th.Tensor) -> th.Tensor:
    r"""
    Eq. 12 (expectation over the components), arXiv:1801.01290v2. :math:`\sum_k w_k f(a_k)`, one action a_k of each component.

    Its expectation over the actions is that of f under the mixture, whatever the components. The weights are in it as numbers,
    so its gradient reaches them without a likelihood ratio.

    :param values: f at one action of each component ``[n_components, ...]``.
    :param log_weights: Logarithms of the weights of the components ``[n_components, ...]``.
    :return: Unbiased estimates of the mean of f ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(values=values, log_weights=log_weights)
    return (log_weights.exp() * values).sum(dim=0)
