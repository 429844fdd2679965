"""The proposals draw from the densities that they state."""

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_softac.sql.proposal import fit_gaussians, mixture_actions, mixture_proposal


def particles(n_samplers, batch):
    """Of samplers with known means, all of them spread the same."""
    spread = th.linspace(-1.0, 1.0, 16).reshape(1, 16, 1).expand(batch, -1, -1)
    return [0.3 * spread + 0.4 * number - 0.2 for number in range(n_samplers)]


@pytest.mark.parametrize(("n_samplers", "m"), [(1, 8), (1, 9), (2, 9), (3, 9)])
def test_integrals_by_importance_sampling(n_samplers, m):
    """Also where the actions cannot be split into halves."""
    actions, log_density = mixture_proposal(particles(n_samplers, 20_000), m)
    assert actions.shape == (20_000, m, 1) and actions.abs().max() < 1
    weights = (-log_density).exp()
    for power, integral in ((0, 2.0), (1, 0.0), (2, 2 / 3), (4, 2 / 5)):
        assert (weights * actions[..., 0] ** power).mean().item() == pytest.approx(integral, abs=0.02)


def test_uniform_and_gaussian_actions():
    noise = th.randn(1, 4_000, 1, generator=th.Generator().manual_seed(0))
    gaussians = fit_gaussians(particles(1, 1))
    u = mixture_actions(gaussians, 4_000, noise)[0, :, 0].double().numpy()
    assert stats.kstest(np.tanh(u[:2_000]), stats.uniform(-1, 2).cdf).statistic < 0.03
    mean, std = (x.item() for x in gaussians[0])
    assert mean == pytest.approx(-0.2, abs=1e-6) and std == pytest.approx(1.2 * 0.3 * th.linspace(-1, 1, 16).std().item())
    assert stats.kstest(u[2_000:], stats.norm(mean, std).cdf).statistic < 0.03
