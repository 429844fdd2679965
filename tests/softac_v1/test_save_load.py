"""Saving, loading, continuing, and running twice alike; SB3's own contract for off-policy algorithms."""

import copy
import io

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_softac import SoftAC_v1
from tests.softac_v1.helpers import ConstantReward, QuadraticBandit, make_model

VARIANTS = [
    dict(),
    dict(ent_coef="auto_0.1"),
    dict(use_sde=True),
    dict(n_critics=1, actor_q="first"),
    dict(policy_kwargs=dict(net_arch=[16], distribution="mixture", distribution_kwargs=dict(n_components=3))),
    dict(policy_kwargs=dict(net_arch=[16], distribution="flow", distribution_kwargs=dict(n_couplings=3, coupling_width=8))),
    dict(policy_kwargs=dict(net_arch=[16], distribution="mixture"), reparameterize=False),
    dict(ent_coef=lambda p: 0.1 + p),
]


def same_parameters(model, other):
    ours, theirs = model.get_parameters(), other.get_parameters()
    assert ours.keys() == theirs.keys()
    return all(th.equal(value, theirs["policy"][key]) for key, value in ours["policy"].items())


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_load_restores_everything(kwargs, tmp_path):
    model = make_model(**kwargs)
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", env=gym.make("Pendulum-v1"))
    assert same_parameters(model, loaded)
    assert loaded.num_timesteps == 40 and loaded._n_updates == model._n_updates
    for optimizer in ("policy.optimizer", "ent_coef_optimizer"):
        if optimizer in model.get_parameters():
            ours, theirs = model.get_parameters()[optimizer]["state"], loaded.get_parameters()[optimizer]["state"]
            assert all(th.equal(ours[i][key], theirs[i][key]) for i in ours for key in ours[i])
    if kwargs.get("ent_coef") == "auto_0.1":
        assert th.equal(model.log_ent_coef, loaded.log_ent_coef)
        assert loaded.temperature.optimizer.param_groups[0]["params"][0] is loaded.log_ent_coef
    obs = np.random.default_rng(0).uniform(-1, 1, (10, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 60
    assert not same_parameters(model, loaded)


@pytest.mark.parametrize(
    ("saved", "loaded_with", "alpha"), [("auto_0.1", 0.3, 0.3), ("auto_0.1", lambda p: 0.1 + p, 1.1), (0.2, "auto_0.4", 0.4)]
)
def test_load_with_another_kind_of_temperature(saved, loaded_with, alpha, tmp_path):
    model = make_model(ent_coef=saved)
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", env=gym.make("Pendulum-v1"), ent_coef=loaded_with)
    assert all(th.equal(value, loaded.policy.state_dict()[key]) for key, value in model.policy.state_dict().items())
    assert loaded.temperature.alpha.item() == pytest.approx(alpha)
    assert loaded.log_ent_coef.exp().item() == pytest.approx(alpha)
    loaded.learn(20)
    assert (loaded.temperature.alpha.item() == pytest.approx(alpha)) is (loaded_with == 0.3)


def test_load_without_environment_and_with_changed_arguments(tmp_path):
    model = make_model()
    model.learn(20)
    model.save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", learning_rate=1e-5, ent_coef=0.5, custom_objects=dict(verbose=0))
    assert loaded.predict(np.zeros(3, np.float32))[0].shape == (1,)
    assert loaded.lr_schedule(1) == 1e-5
    assert loaded.temperature.alpha.item() == 0.5
    loaded.set_env(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    loaded.learn(10)
    with pytest.raises(ValueError, match="greater than 0"):
        SoftAC_v1.load(tmp_path / "model", ent_coef=-1.0)


def test_randomised_parameters_come_back(tmp_path):
    """Every tensor that is saved is restored: fill them with noise, load the file into place."""
    model = make_model(ent_coef="auto")
    model.learn(20)
    saved = copy.deepcopy(model.get_parameters())
    noise = {
        name: {key: th.rand_like(value) for key, value in state.items()}
        for name, state in saved.items()
        if "optim" not in name
    }
    model.set_parameters({**saved, **noise}, exact_match=True)
    assert model.predict(np.zeros(3, np.float32), deterministic=True)[0].shape == (1,)
    for name, state in noise.items():
        assert all(not th.equal(value, saved[name][key]) for key, value in state.items())
        assert all(th.equal(value, model.get_parameters()[name][key]) for key, value in state.items())
    with pytest.raises(RuntimeError, match="Missing key"):
        model.set_parameters({**saved, "policy": dict(list(saved["policy"].items())[1:])}, exact_match=True)
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        model.set_parameters({"policy": saved["policy"]}, exact_match=True)


def test_more_environments_after_loading(tmp_path):
    model = make_model()
    model.learn(20)
    model.save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", env=DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2))
    loaded.learn(30)
    assert loaded.n_envs == 2


@pytest.mark.parametrize("distribution", ["gaussian", "mixture", "flow", "deterministic"])
def test_policy_file_stands_alone(distribution, tmp_path):
    ent_coef = 0.0 if distribution == "deterministic" else 0.2
    policy_kwargs = dict(net_arch=[8], share_features_extractor=True, distribution=distribution)
    model = make_model("Pendulum-v1", policy_kwargs=policy_kwargs, ent_coef=ent_coef)
    model.policy.save(tmp_path / "policy.pt")
    policy = type(model.policy).load(tmp_path / "policy.pt")
    obs = np.zeros((4, 3), np.float32)
    np.testing.assert_array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    np.testing.assert_array_equal(model.actor.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    model.actor.save(tmp_path / "actor.pt")
    actor = type(model.actor).load(tmp_path / "actor.pt")
    np.testing.assert_array_equal(actor.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("kwargs", VARIANTS[:-1])
def test_same_seed_same_bits(kwargs):
    # The seed sets the global generators when the model is made, so each model learns before the next one is made.
    first, second, other = (make_model(**{**kwargs, "seed": seed}).learn(60) for seed in (0, 0, 1))
    assert same_parameters(first, second)
    np.testing.assert_array_equal(first.replay_buffer.rewards, second.replay_buffer.rewards)
    assert not same_parameters(first, other)


def test_an_actor_of_sb3s_sac_can_be_put_in():
    sac, model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=dict(net_arch=[16]), seed=3, device="cpu"), make_model()
    model.actor.load_state_dict(sac.actor.state_dict())
    obs = np.random.default_rng(0).uniform(-1, 1, (10, 3)).astype(np.float32)
    np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], sac.predict(obs, deterministic=True)[0], rtol=1e-5)


class BatchNormExtractor(FlattenExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.norm = nn.BatchNorm1d(self.features_dim)

    def forward(self, observations):
        return self.norm(super().forward(observations))


def test_batch_normalisation_statistics():
    model = make_model(policy_kwargs=dict(net_arch=[8], features_extractor_class=BatchNormExtractor), gradient_steps=0)

    def statistics():
        nets = (model.actor, model.critic, model.value_net, model.value_net_target)
        return [net.features_extractor.norm.running_mean.clone() for net in nets]

    start = statistics()
    model.learn(30)
    assert all(th.equal(a, b) for a, b in zip(start, statistics(), strict=True))  # collecting must not change them
    model.train(gradient_steps=1, batch_size=16)
    assert not any(th.equal(a, b) for a, b in zip(start, statistics(), strict=True))
    assert th.equal(statistics()[2], statistics()[3])  # copied into the target, whatever tau is
    obs = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_callbacks_and_replay_buffer_file(tmp_path):
    model = make_model()
    callbacks = [
        EvalCallback(gym.make("Pendulum-v1"), eval_freq=20, n_eval_episodes=1, best_model_save_path=str(tmp_path), verbose=0),
        CheckpointCallback(save_freq=20, save_path=str(tmp_path), save_replay_buffer=True),
    ]
    with pytest.warns(UserWarning, match="not of the same type|Monitor"):
        model.learn(40, callback=callbacks)
    loaded = SoftAC_v1.load(tmp_path / "rl_model_40_steps.zip", env=model.env)
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_40_steps.pkl")
    assert loaded.replay_buffer.size() == 39  # SB3 stores a transition after its callback
    loaded.learn(10, reset_num_timesteps=False)
    assert (tmp_path / "best_model.zip").exists()


def test_file_object(tmp_path):
    model = make_model()
    buffer = io.BytesIO()
    model.save(buffer)
    buffer.seek(0)
    assert same_parameters(model, SoftAC_v1.load(buffer))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # raised by PyTorch's own compiler
def test_compiled_policy_is_saved_under_plain_names(tmp_path):
    model = make_model()
    model.policy = th.compile(model.policy)
    model.save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model")
    obs = np.zeros((2, 3), np.float32)
    np.testing.assert_allclose(
        loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0], rtol=1e-5
    )


def test_continuing_equals_not_stopping():
    """learn(30) twice on one object is learn(60); SB3's own resume from a file is not exact and is not claimed to be."""
    straight = make_model().learn(60)
    parted = make_model().learn(30).learn(30, reset_num_timesteps=False)
    assert same_parameters(straight, parted)


def test_identity_environment_is_learned():
    """SB3's smallest continuous task: the reward is the closeness of the action to the observation."""
    env = DummyVecEnv([lambda: IdentityEnvBox(eps=0.5)])
    model = SoftAC_v1(
        "MlpPolicy",
        env,
        seed=0,
        gamma=0.5,
        learning_rate=3e-3,
        learning_starts=0,
        batch_size=64,
        policy_kwargs=dict(net_arch=[64]),
        device="cpu",
    )
    model.learn(500)
    assert evaluate_policy(model, env, n_eval_episodes=20, warn=False)[0] > 90


def test_the_helper_environments_follow_the_gymnasium_interface():
    for env in (QuadraticBandit(), ConstantReward()):
        check_env(env, skip_render_check=True)
    assert isinstance(FakeImageEnv(discrete=False).action_space, gym.spaces.Box)
