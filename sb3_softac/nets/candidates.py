"""The choice of one among several candidates, for policies that have no mean to act by."""

import torch as th


def fixed_noise(*shape: int) -> th.Tensor:
    """
    :param shape: Shape of the result.
    :return: Standard Gaussian noise, the same at every call; no random number generator of the program is moved.
    """
    return th.randn(*shape, generator=th.Generator().manual_seed(0))


def take(candidates: th.Tensor, index: th.Tensor) -> th.Tensor:
    """
    :param candidates: K vectors per state ``[batch, K, dim]``.
    :param index: Number of one of them ``[batch]``.
    :return: That vector of each state ``[batch, dim]``.
    """
    return candidates.gather(1, index[:, None, None].expand(-1, 1, candidates.shape[2])).squeeze(1)
