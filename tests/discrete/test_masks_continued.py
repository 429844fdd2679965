"""Masks when a model is saved, loaded, or given another environment or replay buffer."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_softac import DiscreteSAC
from tests.discrete.masked_walk import MaskableWalk, MaskedWalk, allowed, check_stored_masks, make_model
from tests.toys import random_envs


def test_saving_and_continuing(tmp_path):
    model = make_model(MaskableWalk()).learn(80)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DiscreteSAC.load(tmp_path / "model", env=DummyVecEnv([MaskableWalk]))
    loaded.load_replay_buffer(tmp_path / "buffer")
    obs, masks = np.eye(8, dtype=np.float32), np.stack([allowed(state, 4) for state in range(8)])
    ours, theirs = (m.policy.log_probs(m.policy.obs_to_tensor(obs)[0], masks) for m in (model, loaded))
    assert th.equal(ours, theirs)
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps == 140 and loaded.replay_buffer.pos == 140 and loaded._n_updates == 100
    assert min(check_stored_masks(loaded)) >= 5


def test_a_model_without_masks_refuses_an_environment_with_them(tmp_path):
    model = make_model(MaskableWalk(), buffer_size=100)
    plain = make_model(_without_masks(), learning_starts=10).learn(30)
    assert plain.replay_buffer.extras == {}
    plain.save(tmp_path / "plain")
    plain.save_replay_buffer(tmp_path / "buffer")
    plain.set_env(DummyVecEnv([MaskableWalk]))
    with pytest.raises(ValueError, match="has action masks, but this model was created for an environment without"):
        plain.learn(10)
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="its replay buffer does not store masks"):
        model.learn(10)
    # Loaded for an environment with masks, the model gets a new replay buffer, which keeps them
    loaded = DiscreteSAC.load(tmp_path / "plain", env=MaskableWalk()).learn(50)
    assert min(check_stored_masks(loaded)) >= 1


def _without_masks():
    """The walk, but everything is allowed everywhere and nobody says so."""
    env = MaskedWalk()
    env.valid = lambda: np.ones(4, bool)
    return env


def test_environments_of_a_loaded_model(tmp_path):
    """With masks where there were some, and without; the replay buffer keeps its columns in both cases."""
    model = make_model(MaskableWalk()).learn(60)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DiscreteSAC.load(tmp_path / "model")
    loaded.set_env(DummyVecEnv([MaskableWalk]))
    assert min(check_stored_masks(loaded.learn(150))) >= 3
    loaded = DiscreteSAC.load(tmp_path / "model", env=_without_masks())
    loaded.learn(50)
    assert loaded.replay_buffer.extras["action_masks"][:50].all()
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(50, reset_num_timesteps=False)
    assert loaded.replay_buffer.pos == 110 and loaded.replay_buffer.extras["next_action_masks"][60:110].all()


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(replay_buffer_class=ReplayBuffer),
        dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)),
    ],
)
def test_replay_buffers_that_cannot_keep_masks(kwargs):
    with pytest.raises(ValueError, match=r"has to store \['action_masks', 'next_action_masks'\]"):
        make_model(MaskableWalk(), **kwargs)
    make_model(_without_masks(), **kwargs)


def test_masks_of_some_environments_only():
    model = make_model(DummyVecEnv([MaskableWalk] * 2))
    with pytest.raises(ValueError, match=r"environments \[1\] of 2 have a method action_masks"):
        model.set_env(DummyVecEnv([MaskedWalk, MaskableWalk]))


@pytest.mark.parametrize("kwargs", [dict(masked=True), dict(stable_kwargs=dict(entropy_penalty=0.5))])
def test_a_sample_action_of_the_users_own(kwargs):
    """It notes what the replay buffer keeps of a step: without it, an old mask, or none, would be taken for the step's."""

    class Own(DiscreteSAC):
        def _sample_action(self, learning_starts, action_noise=None, n_envs=1):
            if self.num_timesteps % 2:
                return np.zeros(n_envs, np.int64), np.zeros(n_envs, np.int64)
            return super()._sample_action(learning_starts, action_noise, n_envs)

    env = random_envs(Own, masked=kwargs.pop("masked", False))
    model = Own("MlpPolicy", env, policy_kwargs=dict(net_arch=[8]), **kwargs)
    with pytest.raises(RuntimeError, match=r"Own\._sample_action\(\) did not call super.*override predict\(\)"):
        model.learn(20)
    Own("MlpPolicy", random_envs(Own), policy_kwargs=dict(net_arch=[8])).learn(20)
