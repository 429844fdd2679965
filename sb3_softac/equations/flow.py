"""
Real NVP, arXiv:1605.08803: invertible maps of noise whose Jacobians are products.

Its affine couplings can do no more to a single action dimension than to shift and scale it, so that a Gaussian stays one. Each
coupling here is followed by :func:`stretch`, which can pull the middle of a density apart.
"""

import torch as th

from sb3_softac.equations.shapes import require_same_shape
from sb3_softac.equations.squashing import log_tanh_jacobian


def affine(x: th.Tensor, log_scale: th.Tensor, shift: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    r"""
    Eq. 5, arXiv:1605.08803v3. The moved half of a coupling, :math:`y = x \exp(s) + t`; s and t depend on the other half.

    :param x: Coordinates ``[...]``.
    :param log_scale: s ``[...]``.
    :param shift: t ``[...]``.
    :return: y and log dy/dx, elementwise ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(x=x, log_scale=log_scale, shift=shift)
    return x * log_scale.exp() + shift, log_scale


def inverse_affine(y: th.Tensor, log_scale: th.Tensor, shift: th.Tensor) -> th.Tensor:
    r"""
    Eq. 8, arXiv:1605.08803v3. The inverse of :func:`affine`, :math:`x = (y - t) \exp(-s)`.

    :param y: Coordinates ``[...]``.
    :param log_scale: s ``[...]``.
    :param shift: t ``[...]``.
    :return: x ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(y=y, log_scale=log_scale, shift=shift)
    return (y - shift) * (-log_scale).exp()


def stretch(x: th.Tensor, log_slope: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    r"""
    This package's, in no paper. :math:`y = \mathrm{arsinh}(e^s \sinh x)`: slope exp(s) at 0, slope 1 far away.

    The two sides of 0 are moved apart by 2 s. The inverse is the same function with -s, and because
    :math:`\sinh y = e^s \sinh x`, the derivative is :math:`\log y' = s + \log \cosh x - \log \cosh y`.

    :param x: Coordinates ``[...]``.
    :param log_slope: s, the logarithm of the slope at 0 ``[...]``.
    :return: y and log dy/dx, elementwise ``[...]``.
    :raises ValueError: if the shapes differ.
    """
    require_same_shape(x=x, log_slope=log_slope)
    # With exp(|x|) taken out of sinh and cosh nothing overflows, however large x is. PyTorch's sign and abs have derivative 0
    # at 0, so 0 counts as positive here
    side = th.where(x < 0.0, -1.0, 1.0)
    size = side * x
    decay = (-2.0 * size).exp()
    half = 0.5 * log_slope.exp() * (1.0 - decay)
    y = side * (size + (half + (half.square() + decay).sqrt()).log())
    # log cosh x is -1/2 log(1 - tanh^2 x)
    return y, log_slope + 0.5 * (log_tanh_jacobian(y) - log_tanh_jacobian(x))
