"""The critics of continuous actions read every action of a state with the same networks."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_softac.nets.critics import StackedContinuousCritic

OBS, ACT = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)


def make(net_arch, **kwargs):
    given = dict(features_extractor=FlattenExtractor(OBS), features_dim=3, n_critics=3)
    return StackedContinuousCritic(observation_space=OBS, action_space=ACT, net_arch=net_arch, **{**given, **kwargs})


@pytest.mark.parametrize("net_arch", [[], [8], [8, 7]])
def test_particles_are_actions_one_by_one(net_arch):
    critic, obs, actions = make(net_arch), th.randn(4, 3), th.randn(4, 6, 2)
    q = critic.q_particles(critic.features(obs), actions)
    assert q.shape == (3, 4, 6)
    for k in range(6):
        one_by_one = th.cat(critic(obs, actions[:, k]), dim=1).T
        th.testing.assert_close(q[:, :, k], one_by_one)
        th.testing.assert_close(critic.q_values(critic.features(obs), actions[:, k]), one_by_one)


def test_first_critic():
    critic, obs, actions = make([8]), th.randn(4, 3), th.randn(4, 2)
    first = critic.q1_forward(obs, actions)
    assert first.shape == (4, 1)
    th.testing.assert_close(first, critic(obs, actions)[0])
    assert not th.allclose(first, critic(obs, actions)[1])


@pytest.mark.parametrize("share", [False, True])
def test_a_shared_extractor_gets_no_gradient(share):
    extractor = FlattenExtractor(OBS)
    extractor.flatten = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    critic, obs = make([8], features_extractor=extractor, share_features_extractor=share), th.randn(4, 3)
    critic.q1_forward(obs, th.randn(4, 2)).sum().backward()
    assert (extractor.flatten[1].weight.grad is None) is share
    assert critic.q_networks.layers[0].weight.grad is not None
