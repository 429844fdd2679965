"""What is SQL's own; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_softac.sql.policies import CnnPolicy
from tests.sql.helpers import make_model


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_density_of_the_proposal_integrates_to_one(proposal):
    """Importance weights of a constant against the volume: the mean of 1 / density is the volume of the square."""
    model = make_model(gym.make("MultiGoal-v0"), value_particles=4_000, proposal=proposal)
    actions, log_density = model._propose(th.zeros(3, 2))
    assert actions.shape == (3, 4_000, 2) and actions.abs().max() <= 1
    assert (-log_density).exp().mean(dim=1).detach().numpy() == pytest.approx(4.0, rel=0.1)


def test_from_images_the_preferred_actions_depend_on_the_state():
    space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    policy = CnnPolicy(space, spaces.Box(-1, 1, (1,)), lambda _: 1e-3, net_arch=None)
    observations = th.as_tensor(np.stack([np.zeros(space.shape), np.full(space.shape, 255.0)]))
    actions = th.linspace(-1, 1, 5).reshape(1, 5, 1).expand(2, 5, 1)
    with th.no_grad():
        q = policy.critic.q_particles(policy.critic.features(observations), actions)
    dark, bright = (q - q[..., :1])[0]
    assert not th.allclose(dark, bright, rtol=0.01)
