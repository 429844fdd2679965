"""What SB3's users expect, bad input, and where gradients go."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_softac import SQL
from sb3_softac.replay.batch import make_batch
from tests.sql.helpers import make_model


def flat(parameters):
    return th.cat([parameter.detach().flatten() for parameter in parameters]).clone()


@pytest.mark.parametrize("ent_coef", [0.5, "auto_0.1", lambda progress: 0.1 + progress])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_learn_save_load_continue(ent_coef, n_steps, tmp_path):
    model = make_model(ent_coef=ent_coef, n_steps=n_steps)
    model.learn(60)
    model.save(tmp_path / "model")
    loaded = SQL.load(tmp_path / "model", env=model.get_env(), device="cpu")
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = [each.predict(obs, deterministic=True)[0] for each in (model, loaded)]
    assert (actions[0] == actions[1]).all() and actions[0].shape == (5, 1)
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps == 90 and loaded._n_updates == model._n_updates + 30


def test_several_environments_with_normalization():
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 3))
    model = make_model(env, gradient_steps=-1)
    model.learn(60)
    assert model._n_updates == 51  # 17 of 20 rounds, three steps each
    actions, _ = model.predict(env.reset())
    assert actions.shape == (3, 1) and (np.abs(actions) <= 2).all()


def test_images_and_dictionaries():
    image = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=False)
    multi = SimpleMultiObsEnv(discrete_actions=False)
    for env, policy in ((image, "CnnPolicy"), (multi, "MultiInputPolicy")):
        model = make_model(env, policy, buffer_size=50, batch_size=4)
        encoder = flat(model.critic.features_extractor.parameters())
        model.learn(14)
        assert model._n_updates == 4 and env.action_space.contains(model.predict(env.reset()[0])[0])
        assert (flat(model.critic.features_extractor.parameters()) != encoder).any()


def test_a_buffer_that_ignores_n_steps_is_still_pointed_out():
    with pytest.warns(UserWarning, match="`n_steps=5` is ignored"):
        make_model(n_steps=5, replay_buffer_class=NStepReplayBuffer)


def test_hindsight():
    model = make_model(BitFlippingEnv(n_bits=3, continuous=True), "MultiInputPolicy", replay_buffer_class=HerReplayBuffer)
    model.learn(40)
    assert model._n_updates > 0


def test_same_seed_same_result():
    first, second = (make_model().learn(40) for _ in range(2))
    assert (flat(first.policy.parameters()) == flat(second.policy.parameters())).all()


@pytest.mark.parametrize("name", ["actor_loss", "critic_loss"])
def test_each_loss_trains_its_own_network_alone(name):
    model = make_model()
    model.learn(20)
    batch = make_batch(model.replay_buffer.sample(8), model.gamma)
    losses, minimize = {}, model._minimize
    model._minimize = lambda given: losses.update(given) or {}
    model._update(batch)
    minimize({name: losses[name]})
    trained, other = (model.actor, model.critic) if name == "actor_loss" else (model.critic, model.actor)
    assert all(parameter.grad is not None for parameter in trained.parameters())
    assert all(parameter.grad is None for parameter in other.parameters())
    assert all(parameter.grad is None for parameter in model.critic_target.parameters())


def test_hard_target_is_copied_at_its_interval():
    model = make_model(tau=1.0, target_update_interval=7)
    model.learn(12)
    model.set_logger(Logger(None, []))
    copies = []
    for _ in range(21):
        before = flat(model.critic_target.parameters())
        model.train(1, batch_size=8)
        if not (flat(model.critic_target.parameters()) == before).all():
            copies.append(model._n_updates)
            assert (flat(model.critic_target.parameters()) == flat(model.critic.parameters())).all()
    assert copies and all(count % 7 == 0 for count in copies) and len(copies) == 3


@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_density_of_the_proposal_integrates_to_one(proposal):
    """Importance weights of a constant against the volume: the mean of 1 / density is the volume of the square."""
    env = gym.make("MultiGoal-v0")
    model = make_model(env, value_particles=4_000, proposal=proposal)
    actions, log_density = model._propose(th.zeros(3, 2))
    assert actions.shape == (3, 4_000, 2) and actions.abs().max() <= 1
    volume = (-log_density).exp().mean(dim=1)
    assert volume.detach().numpy() == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(kernel_particles=3), "kernel_particles must be an integer, at least 4"),
        (dict(value_particles=1), "value_particles must be an integer, at least 2"),
        (dict(proposal="gaussian"), "proposal must be 'mixture' or 'uniform'"),
        (dict(ent_coef=-1.0), "greater than 0"),
        (dict(target_entropy="low"), "number of nats or 'auto'"),
        (dict(tau=-0.1), "tau must be a number in"),
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
