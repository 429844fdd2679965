"""The statistics of VecNormalize as plain data beside SB3's pickle."""

import argparse
import json
import os
import pickle

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3
from gymnasium import spaces
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize

from sb3_softac.zoo.vec_normalize import SETTINGS, load_plain, save_plain, save_twins, twin_of

BOX, PICTURE = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (3, 8, 8), np.uint8)
NORMALIZED = {
    "a box": (BOX, {}),
    "settings": (BOX, dict(clip_obs=5.0, gamma=np.float32(0.9), norm_reward=False, epsilon=1e-4, training=False)),
    "rewards": (BOX, dict(norm_obs=False)),
    "a dictionary": (spaces.Dict(a=BOX, b=spaces.Box(0, 1, (2, 2)), c=spaces.Discrete(2)), dict(norm_obs_keys=["a", "b"])),
    "pictures": (PICTURE, {}),
}


class Sampled(gym.Env):
    def __init__(self, space):
        self.observation_space, self.action_space = space, spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


def normalized(name, steps=5):
    space, kwargs = NORMALIZED[name]
    env = VecNormalize(make_vec_env(lambda: Sampled(space), 2), **kwargs)
    env.reset()
    for _ in range(steps):
        env.step([0, 0])
    return env


@pytest.mark.parametrize("name", NORMALIZED)
def test_the_twin_and_the_pickle_agree(name, tmp_path):
    env, path = save_twins(normalized(name)), tmp_path / "vecnormalize.pkl"
    env.save(str(path))
    assert type(pickle.loads(path.read_bytes())) is VecNormalize  # is read without this package
    loaded = load_plain(path, env.venv)
    assert loaded.observation_space == env.observation_space
    for setting in SETTINGS:
        assert getattr(loaded, setting) == getattr(env, setting), setting
    obs = env.get_original_obs()
    one, other = (part.normalize_obs(obs) for part in (env, loaded))
    assert all(np.array_equal(one[key], other[key]) for key in one) if isinstance(one, dict) else np.array_equal(one, other)
    reward = np.array([0.5, 2.0])
    assert np.array_equal(env.normalize_reward(reward), loaded.normalize_reward(reward))
    loaded.reset(), loaded.step([0, 0])


@pytest.mark.parametrize(("algo", "twin"), [("softac_v1", True), ("sac", False)])
def test_trainings_of_our_algorithms_save_the_twin_with_each_pickle(algo, twin, tmp_path):
    manager = ExperimentManager(
        *(argparse.Namespace(), algo, "Pendulum-v1", str(tmp_path)),
        **dict(n_timesteps=20, eval_freq=20, n_eval_episodes=1, n_eval_envs=1, verbose=0, device="cpu", log_interval=-1),
        hyperparams=dict(normalize=True, learning_starts=20, buffer_size=50),
    )
    model, _ = manager.setup_experiment()
    assert isinstance(manager.callbacks[-1], EvalCallback)
    manager.learn(model)
    folder = tmp_path / algo / "Pendulum-v1_1/Pendulum-v1"
    for step in ("the best model", "the last model"):
        files = {"vecnormalize.pkl", "vecnormalize.json"} if twin else {"vecnormalize.pkl"}
        assert {name for name in os.listdir(folder) if name.startswith("vecnormalize")} == files, step
        for name in files:
            (folder / name).unlink()
        manager.save_trained_model(model)
    settings = {"normalize": True, "normalize_kwargs": {}}
    env = rl_zoo3.create_test_env("Pendulum-v1", stats_path=str(folder), should_render=False, hyperparams=settings)
    unwrap_vec_normalize(env).save(str(tmp_path / "vec_normalize.pkl"))  # as push_to_hub does
    assert (tmp_path / "vec_normalize.json").exists()


@pytest.mark.parametrize(
    ("pickled", "twin"),
    [("vecnormalize.pkl", "vecnormalize.json"), ("a.b.pkl", "a.b.json"), ("a.1", "a.1.json"), ("a", "a.json")],
)
def test_each_pickle_has_a_twin_of_its_own(pickled, twin, tmp_path):
    assert twin_of(tmp_path / pickled) == tmp_path / twin


def test_without_a_twin_there_is_none(tmp_path):
    env = normalized("a box", 1)
    env.save(str(tmp_path / "vecnormalize.pkl"))
    assert load_plain(tmp_path / "vecnormalize.pkl", env.venv) is None
    assert save_twins(env.venv) is env.venv


SHAPE = {"mean": [0.0], "var": [1.0], "count": 1}
TEXT = {"mean": ["a"] * 3, "var": [1.0] * 3, "count": 1}
DAMAGES = {
    "another shape": lambda content: content["statistics"].update({"observation:": SHAPE}),
    "text": lambda content: content["statistics"].update({"observation:": TEXT}),
    "a part less": lambda content: content["statistics"].pop("return"),
    "a setting of another type": lambda content: content["settings"].update(clip_obs="x"),
    "a setting more": lambda content: content["settings"].update(venv=None),
    "nothing": lambda content: content.clear(),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_statistics_are_refused(kind, tmp_path):
    env, path = normalized("a box", 1), tmp_path / "vecnormalize.pkl"
    save_plain(env, path)
    content = json.loads((tmp_path / "vecnormalize.json").read_text())
    DAMAGES[kind](content)
    (tmp_path / "vecnormalize.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"vecnormalize.json is not the normalization of these environments"):
        load_plain(path, env.venv)
