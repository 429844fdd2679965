"""Action and observation spaces, and the features of SB3 around them."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_softac import DiscreteSAC
from sb3_softac.replay.batch import make_batch
from sb3_softac.replay.buffer import SoftReplayBuffer

SMALL = dict(policy_kwargs=dict(net_arch=[16]), batch_size=16, learning_starts=20, buffer_size=600, seed=0, device="cpu")
CNN = dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=8))
COMBINED = dict(net_arch=[8], features_extractor_kwargs=dict(cnn_output_dim=8))

IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
DOUBLE = spaces.Box(-1, 1, (3,), np.float64)
DICT = spaces.Dict(image=IMAGE, vector=spaces.Box(-1, 1, (2,), np.float32))
# Space of the actions, and the largest index of each branch
ACTIONS = [
    (spaces.Discrete(3, start=3), [2]),
    (spaces.Discrete(4), [3]),
    (spaces.MultiDiscrete([2, 4, 3], start=[5, -2, 0]), [1, 3, 2]),
    (spaces.MultiDiscrete([3, 3]), [2, 2]),
    (spaces.MultiBinary(3), [1, 1, 1]),
]


class AnySpaces(gym.Env):
    """Random observations; the reward is the sum of the action, and the action must lie in its space."""

    def __init__(self, action_space, observation_space=DOUBLE):
        self.action_space, self.observation_space = action_space, observation_space
        self.taken, self.steps = [], 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        # SB3 hands over a row of the actions: a NumPy integer for Discrete
        assert self.action_space.contains(action) and action.dtype == self.action_space.dtype, action
        self.taken.append(np.atleast_1d(action).copy())
        self.steps += 1
        return self.observation_space.sample(), float(np.sum(action)), self.steps == 7, self.steps == 5, {}


def make_model(env, policy="MlpPolicy", **kwargs) -> DiscreteSAC:
    return DiscreteSAC(policy, env, **{**SMALL, **kwargs})


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(("space", "largest"), ACTIONS, ids=str)
def test_actions(space, largest, n_envs):
    envs = [AnySpaces(space) for _ in range(n_envs)]
    model = make_model(DummyVecEnv([lambda env=env: env for env in envs])).learn(150)
    assert model._n_updates >= 40
    taken = np.stack([env.taken for env in envs], axis=1)
    stored = model.replay_buffer.actions[: model.replay_buffer.pos]
    np.testing.assert_array_equal(stored + model.branches.start, taken)
    np.testing.assert_array_equal(stored.min(axis=(0, 1)), np.zeros(len(largest)))  # counted from 0
    np.testing.assert_array_equal(stored.max(axis=(0, 1)), largest)
    for deterministic in (False, True):
        action, _ = model.predict(np.zeros(3), deterministic=deterministic)
        assert space.contains(action) and action.shape == space.shape
        batch, _ = model.predict(np.zeros((5, 3)), deterministic=deterministic)
        assert batch.shape == (5, *space.shape) and all(space.contains(action) for action in batch)


def test_warm_up_actions_are_uniform_and_not_the_policys():
    env = AnySpaces(spaces.MultiDiscrete([2, 4], start=[5, -2]))
    model = make_model(env, random_steps=600, learning_starts=1_000)
    with th.no_grad():
        model.actor.logits[-1].bias.copy_(th.tensor([50.0, 0.0, 50.0, 0.0, 0.0, 0.0]))
    model.learn(650)
    warm_up, later = np.array(env.taken[:600]), np.array(env.taken[600:])
    for column, low, size in ((0, 5, 2), (1, -2, 4)):
        frequencies = np.bincount(warm_up[:, column] - low, minlength=size) / 600
        np.testing.assert_allclose(frequencies, 1 / size, atol=0.08)
    np.testing.assert_array_equal(later, np.tile([5, -2], (50, 1)))


CASES = [
    ("MlpPolicy", DOUBLE, SMALL["policy_kwargs"]),
    ("MlpPolicy", spaces.Discrete(5), SMALL["policy_kwargs"]),
    ("MlpPolicy", spaces.MultiBinary(4), SMALL["policy_kwargs"]),
    ("CnnPolicy", IMAGE, CNN),
    ("MultiInputPolicy", DICT, COMBINED),
    ("MultiInputPolicy", spaces.Dict(d=spaces.Discrete(3), m=spaces.MultiDiscrete([2, 3])), COMBINED),
]
every_observation = pytest.mark.parametrize(
    ("policy", "space", "policy_kwargs"), CASES, ids=["box", "discrete", "binary", "image", "dict", "discrete-dict"]
)


@every_observation
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_observations(policy, space, policy_kwargs, n_steps, n_envs):
    env = DummyVecEnv([lambda: AnySpaces(spaces.Discrete(3, start=1), space)] * n_envs)
    model = make_model(env, policy, policy_kwargs=policy_kwargs, n_steps=n_steps, gamma=0.9).learn(40)
    assert model._n_updates == (20 if n_envs == 1 else 10)
    buffer = model.replay_buffer
    assert type(buffer) is SoftReplayBuffer and (buffer.n_steps, buffer.gamma) == (n_steps, 0.9)
    discounts = buffer.sample(200).discounts
    assert discounts is None if n_steps == 1 else discounts.min().item() == pytest.approx(0.9**3)


@every_observation
def test_saving(policy, space, policy_kwargs, tmp_path):
    space.seed(0)
    env = AnySpaces(spaces.MultiDiscrete([2, 4, 3], start=[5, -2, 0]), space)
    model = make_model(env, policy, policy_kwargs=policy_kwargs).learn(30)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    rebuilt = {"actor", "critic", "critic_target", "branches", "temperature", "_target"}
    assert not rebuilt & load_from_zip_file(tmp_path / "model")[0].keys()
    loaded = DiscreteSAC.load(tmp_path / "model", env=env)
    loaded.load_replay_buffer(tmp_path / "buffer")
    observations = [space.sample() for _ in range(20)]
    for obs in observations:
        for deterministic in (False, True):
            actions = []
            for each in (model, loaded):
                th.manual_seed(1)
                actions.append(each.predict(obs, deterministic=deterministic)[0])
            np.testing.assert_array_equal(*actions)
    loaded.learn(30, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded._n_updates, loaded.replay_buffer.pos) == (60, 40, 60)
    ours, theirs = (each.get_parameters()["policy"] for each in (model, loaded))
    assert any(not th.equal(ours[name], theirs[name]) for name in ours)


def test_arguments_changed_at_loading_reach_the_replay_buffer(tmp_path):
    make_model("CartPole-v1", n_steps=3, replay_buffer_kwargs=dict(handle_timeout_termination=False)).save(tmp_path / "model")
    loaded = DiscreteSAC.load(tmp_path / "model", env=gym.make("CartPole-v1"))
    assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (3, 0.99)
    assert not loaded.replay_buffer.handle_timeout_termination
    loaded = DiscreteSAC.load(
        tmp_path / "model", env=gym.make("CartPole-v1"), n_steps=5, gamma=0.5, stable_kwargs=dict(entropy_penalty=0.5)
    )
    assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (5, 0.5)
    assert loaded.replay_buffer.extras.keys() == {"old_entropy"}
    loaded.learn(30)


def test_hindsight_experience_replay(tmp_path):
    env = BitFlippingEnv(n_bits=4, max_steps=4)
    kwargs = dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(n_sampled_goal=2))
    model = make_model(env, "MultiInputPolicy", **kwargs).learn(60)
    assert model._n_updates == 40
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DiscreteSAC.load(tmp_path / "model", env=env)
    with pytest.warns(UserWarning, match="last trajectory in the replay buffer will be truncated"):
        loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps == 90


def test_normalisation():
    env = VecNormalize(DummyVecEnv([lambda: AnySpaces(spaces.Discrete(3))] * 2))
    model = make_model(env, gradient_steps=-1).learn(60)
    assert model._n_updates == 40
    batch, raw = model.replay_buffer.sample(64, env=env), model.replay_buffer.sample(64)
    assert batch.rewards.max() < 2.0 == raw.rewards.max()


def test_double_precision_becomes_single():
    model = make_model(AnySpaces(spaces.Discrete(3))).learn(40)
    assert model.replay_buffer.sample(4).observations.dtype == th.float32
    assert {parameter.dtype for parameter in model.policy.parameters()} == {th.float32}


def test_memory_optimisation_of_sb3():
    kwargs = dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))
    model = make_model(AnySpaces(spaces.Discrete(3, start=2)), **kwargs).learn(60)
    assert type(model.replay_buffer) is ReplayBuffer and model.replay_buffer.optimize_memory_usage
    assert set(np.unique(model.replay_buffer.actions[:60])) == {0, 1, 2} and model._n_updates == 40


def test_n_steps_that_a_foreign_replay_buffer_ignores():
    with pytest.warns(UserWarning, match="`n_steps=3` is ignored"):
        make_model(AnySpaces(spaces.Discrete(3)), n_steps=3, replay_buffer_class=ReplayBuffer)


def gradients(model, loss_name, monkeypatch):
    """:return: Whether one of the losses leaves gradients in the encoder of the critic, and in that of the actor."""
    losses = {}
    with monkeypatch.context() as patch:
        patch.setattr(model, "_minimize", lambda given: losses.update(given) or {})
        model._update(make_batch(model.replay_buffer.sample(16), model.gamma))
    model._minimize({loss_name: losses[loss_name]})
    return [
        any(parameter.grad is not None and parameter.grad.any() for parameter in network.features_extractor.parameters())
        for network in (model.critic, model.actor)
    ]


@pytest.mark.parametrize(("policy", "space", "policy_kwargs"), CASES[3:5], ids=["image", "dict"])
def test_the_encoder_is_shared_and_trained_by_the_critic_loss_alone(policy, space, policy_kwargs, monkeypatch):
    env = AnySpaces(spaces.Discrete(3), space)
    # The penalty on changes of the entropy reads the same features
    model = make_model(env, policy, policy_kwargs=policy_kwargs, stable_kwargs=dict(entropy_penalty=0.5)).learn(30)
    assert model.actor.features_extractor is model.critic.features_extractor
    assert model.critic_target.features_extractor is not model.critic.features_extractor
    assert gradients(model, "actor_loss", monkeypatch) == [False, False]
    assert gradients(model, "entropy_penalty", monkeypatch) == [False, False]
    assert gradients(model, "critic_loss", monkeypatch) == [True, True]
    shared = {id(parameter) for parameter in model.critic.features_extractor.parameters()}
    optimized = [id(parameter) for group in model.policy.optimizer.param_groups for parameter in group["params"]]
    assert shared <= set(optimized) and len(optimized) == len(set(optimized))


def test_two_encoders(monkeypatch):
    env = AnySpaces(spaces.Discrete(3), IMAGE)
    model = make_model(env, "CnnPolicy", policy_kwargs={**CNN, "share_features_extractor": False})
    before = [[p.clone() for p in network.features_extractor.parameters()] for network in (model.actor, model.critic)]
    model.learn(30)
    assert model.actor.features_extractor is not model.critic.features_extractor
    for network, old in zip((model.actor, model.critic), before, strict=True):
        assert any(not th.equal(a, b) for a, b in zip(old, network.features_extractor.parameters(), strict=True))
    assert gradients(model, "actor_loss", monkeypatch) == [False, True]
    assert gradients(model, "critic_loss", monkeypatch) == [True, False]


def test_unsupported_action_spaces():
    with pytest.raises(AssertionError, match=r"Expected Discrete.*SoftAC_v1"):
        make_model("Pendulum-v1")
    with pytest.raises(AssertionError, match=r"Expected Discrete"):
        make_model(AnySpaces(DICT))


def test_observation_with_info_given_to_predict():
    model = make_model("CartPole-v1")
    with pytest.raises(ValueError, match=r"reset\(\) returns \(obs, info\)"):
        model.predict(gym.make("CartPole-v1").reset())
