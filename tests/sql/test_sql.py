"""What is SQL's own; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

import gymnasium as gym
import pytest
import torch as th

from tests.sql.helpers import make_model


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_density_of_the_proposal_integrates_to_one(proposal):
    """Importance weights of a constant against the volume: the mean of 1 / density is the volume of the square."""
    model = make_model(gym.make("MultiGoal-v0"), value_particles=4_000, proposal=proposal)
    actions, log_density = model._propose(th.zeros(3, 2))
    assert actions.shape == (3, 4_000, 2) and actions.abs().max() <= 1
    assert (-log_density).exp().mean(dim=1).detach().numpy() == pytest.approx(4.0, rel=0.1)
