"""What is SQL's own; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.logger import Logger

from sb3_softac.replay.batch import make_batch
from tests.sql.helpers import make_model
from tests.toys import flat


def test_images():
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=False)
    model = make_model(env, "CnnPolicy", buffer_size=50, batch_size=4)
    encoder = flat(model.critic.features_extractor)
    model.learn(14)
    assert model._n_updates == 4 and env.action_space.contains(model.predict(env.reset()[0])[0])
    assert (flat(model.critic.features_extractor) != encoder).any()


def test_a_buffer_that_ignores_n_steps_is_still_pointed_out():
    with pytest.warns(UserWarning, match="`n_steps=5` is ignored"):
        make_model(n_steps=5, replay_buffer_class=NStepReplayBuffer)


def test_hindsight():
    env = BitFlippingEnv(n_bits=3, continuous=True)
    assert make_model(env, "MultiInputPolicy", replay_buffer_class=HerReplayBuffer).learn(40)._n_updates > 0


@pytest.mark.parametrize("name", ["actor_loss", "critic_loss"])
def test_each_loss_trains_its_own_network_alone(name, monkeypatch):
    model = make_model().learn(20)
    losses = {}
    with monkeypatch.context() as patch:
        patch.setattr(model, "_minimize", losses.update)
        model._update(make_batch(model.replay_buffer.sample(8), model.gamma))
    model._minimize({name: losses[name]})
    for network in (model.actor, model.critic, model.critic_target):
        trained = network is getattr(model, model.trains[name])
        assert all((parameter.grad is not None) is trained for parameter in network.parameters())


def test_hard_target_is_copied_at_its_interval():
    model = make_model(tau=1.0, target_update_interval=7).learn(12)
    model.set_logger(Logger(None, []))
    copies = []
    for _ in range(21):
        before = flat(model.critic_target)
        model.train(1, batch_size=8)
        if not th.equal(flat(model.critic_target), before):
            copies.append(model._n_updates)
            assert th.equal(flat(model.critic_target), flat(model.critic))
    assert copies == [7, 14, 21]


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
