"""Observations, actions and rewards that are not finite are refused before they are stored."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_softac import SoftAC_v1
from tests.toys import SetAt, algorithms, continuous, is_discrete

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
DICT = spaces.Dict(
    {"a": VECTOR, "b": spaces.Box(-9, 9, (2,), np.float64), "c": spaces.Discrete(3), "d": spaces.Box(0, 255, (3,), np.uint8)}
)


class Spoilt(gym.Env):
    """Its observation is not finite at one step of one episode, counted from 0; each episode has three steps."""

    def __init__(self, discrete, space=VECTOR, at=None, episode=0, value=np.nan, key="b", truncate=False):
        self.observation_space = space
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1.0, 1.0, (1,))
        self.at, self.episode, self.value, self.key, self.truncate = at, episode, value, key, truncate
        self.n_episodes = -1

    def observe(self):
        obs = self.observation_space.sample()
        part = obs[self.key] if isinstance(obs, dict) else obs
        part[...] = 0.5
        if self.count == self.at and self.n_episodes == self.episode:
            part.flat[-1] = self.value
        return obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.n_episodes = 0, self.n_episodes + 1
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        end = self.count == 3
        return self.observe(), 1.0, end and not self.truncate, end and self.truncate, {}


def make(algorithm, *envs, vec_env=DummyVecEnv, wrapper=lambda env: env, **kwargs):
    functions = [lambda env=env: Spoilt(is_discrete(algorithm), **env) for env in envs]
    env = wrapper(vec_env(functions, **({"start_method": "fork"} if vec_env is SubprocVecEnv else {})))
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    policy_kwargs = dict(net_arch=[4], **kwargs.pop("policy_kwargs", {}))
    settings = dict(learning_starts=100, buffer_size=50, device="cpu", seed=0, policy_kwargs=policy_kwargs)
    return algorithm(policy, env, **{**settings, **kwargs})


PLACES = {
    "the first observation": (dict(at=0), r"of reset\(\) is not finite: environment 1, value nan", 0),
    "the first step": (dict(at=1), "of step 2 is not finite: environment 1, value nan", 0),
    "a later step": (dict(at=2, episode=1), "of step 10 is not finite: environment 1, value nan", 4),
    "the end of an episode": (dict(at=3), "of step 6, the last of an episode, is not finite: environment 1, value nan", 2),
    "a time limit": (dict(at=3, truncate=True), "of step 6, the last of an episode, is not finite: environment 1", 2),
    "a later reset": (dict(at=0, episode=1, value=-np.inf), "of step 6 is not finite: environment 1, value -inf", 2),
}


@algorithms
@pytest.mark.parametrize("place", PLACES)
def test_where(algorithm, place):
    spoilt, message, stored = PLACES[place]
    model = make(algorithm, {}, spoilt)
    with pytest.raises(ValueError, match=rf"The observation {message}.*before it was stored.*VecCheckNan"):
        model.learn(20)
    assert model.replay_buffer.size() == stored
    model.learn(4)  # the environments are reset


@algorithms
@pytest.mark.parametrize(("key", "value"), [("a", np.inf), ("b", np.nan)])
def test_the_key_is_named(algorithm, key, value):
    model = make(algorithm, dict(space=DICT, at=2, key=key, value=value))
    with pytest.raises(ValueError, match=rf"of step 2 is not finite: environment 0, key '{key}', value {value}\."):
        model.learn(9)
    make(algorithm, dict(space=DICT)).learn(9)


@algorithms
@pytest.mark.parametrize("place", ["the first step", "the end of an episode", "a later reset"])
def test_normalized_observations(algorithm, place):
    spoilt, message, stored = PLACES[place]
    model = make(algorithm, {}, {**spoilt, "value": np.nan}, wrapper=VecNormalize)
    with pytest.raises(ValueError, match=message.replace("-inf", "nan")):
        model.learn(20)
    assert model.replay_buffer.size() == stored
    make(algorithm, {}, {}, wrapper=VecNormalize).learn(9)


def test_normalization_that_hides_infinity():
    """With fixed statistics VecNormalize clips it; the replay buffer would store what is below."""
    env = dict(at=2, value=np.inf)
    model = make(SoftAC_v1, env, wrapper=lambda env: VecNormalize(env, training=False))
    with pytest.raises(ValueError, match="of step 2 is not finite: environment 0, value inf"):
        model.learn(9)


def test_other_processes():
    model = make(SoftAC_v1, {}, dict(at=2), vec_env=SubprocVecEnv)
    with pytest.raises(ValueError, match="of step 4 is not finite: environment 1"):
        model.learn(20)
    model.env.close()


class Filled(FlattenExtractor):
    def forward(self, observations):
        return super().forward(observations).nan_to_num(0.0)


@algorithms
def test_an_extractor_may_accept_them(algorithm):
    """Missing values as NaN are a choice of the user, who has a network for them."""
    model = make(
        algorithm, dict(at=2), dict(at=3), policy_kwargs=dict(features_extractor_class=Filled), learning_starts=8, batch_size=4
    )
    model.learn(20)
    assert np.isnan(np.asarray(model.replay_buffer.observations[:10])).any() and model._n_updates > 0


def test_actions():
    noise = NormalActionNoise(np.zeros(1), np.full(1, np.nan))
    model = make(SoftAC_v1, {}, action_noise=noise)
    with pytest.raises(ValueError, match=r"action_noise returned \[nan\] at step 1, which is not finite"):
        model.learn(5)
    assert model.replay_buffer.size() == 0


@continuous
def test_action_noise_fits_the_number_of_environments(algorithm, tmp_path):
    noise = NormalActionNoise(np.zeros(1), np.ones(1))
    envs = {n: make_vec_env("Pendulum-v1", n) for n in (1, 2, 3)}
    settings = dict(learning_starts=100, buffer_size=60, device="cpu", seed=0, policy_kwargs=dict(net_arch=[4]))
    model = algorithm("MlpPolicy", envs[2], **settings).learn(20, SetAt(3, action_noise=noise))
    assert len({*model.action_noise()[:, 0].tolist()}) == 2  # each environment has its own
    model.save(tmp_path / "model")
    for n, env in envs.items():
        loaded = algorithm.load(tmp_path / "model", env=env).learn(6)
        assert loaded.action_noise().shape == ((n, 1) if n > 1 else (1,))


class MoreThanItsSpace(Spoilt):
    def observe(self):
        return {**super().observe(), "debug": [[np.nan], [1, 2]]}


@pytest.mark.parametrize("truncate", [False, True])
def test_parts_that_are_not_in_the_space_are_ignored(truncate):
    """SB3's vectorized environments leave them out, but for the last observation of an episode."""
    SoftAC_v1("MultiInputPolicy", MoreThanItsSpace(False, DICT, truncate=truncate), learning_starts=100).learn(10)
