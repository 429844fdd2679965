"""The critics of continuous actions read every action of a state with the same networks."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_softac.nets import critics
from sb3_softac.nets.critics import StackedContinuousCritic

OBS, ACT = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)


def make(net_arch, **kwargs):
    given = dict(features_extractor=FlattenExtractor(OBS), features_dim=3, n_critics=3)
    return StackedContinuousCritic(observation_space=OBS, action_space=ACT, net_arch=net_arch, **{**given, **kwargs})


@pytest.mark.parametrize("net_arch", [[], [8, 7]])
def test_particles_are_actions_one_by_one(net_arch):
    critic, obs, actions = make(net_arch), th.randn(4, 3), th.randn(4, 6, 2)
    q = critic.q_particles(critic.features(obs), actions)
    assert q.shape == (3, 4, 6)
    for k in range(6):
        one_by_one = th.cat(critic(obs, actions[:, k]), dim=1).T
        th.testing.assert_close(q[:, :, k], one_by_one)
        th.testing.assert_close(critic.q_values(critic.features(obs), actions[:, k]), one_by_one)
        assert th.equal(critic.q1_forward(obs, actions[:, k]), critic(obs, actions[:, k])[0])


@pytest.mark.parametrize("rows", [1, 12, 13])
def test_many_particles_are_evaluated_in_blocks_of_states(rows, monkeypatch):
    critic, obs, actions, sizes = make([8]), th.randn(5, 3), th.randn(5, 6, 2), []
    at_once = critic.q_particles(obs, actions)  # with gradients
    monkeypatch.setattr(critics, "ROWS_IN_CACHE", rows)
    critic.q_networks.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    with th.no_grad():
        th.testing.assert_close(critic.q_particles(obs, actions), at_once)
    assert sizes == ([6] * 5 if rows == 1 else [12, 12, 6])
    critic.q_particles(obs, actions)
    assert sizes[-1] == 30
