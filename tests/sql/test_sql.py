"""What is SQL's own; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from tests.sql.helpers import make_model


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_density_of_the_proposal_integrates_to_one(proposal):
    """Importance weights of a constant against the volume: the mean of 1 / density is the volume of the square."""
    model = make_model(gym.make("MultiGoal-v0"), value_particles=4_000, proposal=proposal)
    actions, log_density = model._propose(th.zeros(3, 2))
    assert actions.shape == (3, 4_000, 2) and actions.abs().max() <= 1
    assert (-log_density).exp().mean(dim=1).detach().numpy() == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(kernel_particles=3), "kernel_particles must be an integer, at least 4"),
        (dict(value_particles=1), "value_particles must be an integer, at least 2"),
        (dict(proposal="gaussian"), "proposal must be 'mixture' or 'uniform'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,))])
def test_spaces_that_a_sampler_cannot_fill(space):
    env = gym.make("Pendulum-v1")
    env.action_space = space
    with pytest.raises(AssertionError, match=r"DiscreteSAC|finite bounds"):
        make_model(env)
