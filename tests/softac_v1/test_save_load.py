"""Files of models, policies and actors, and repetition; what holds for all algorithms is in tests/algorithm/test_matrix.py."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_softac import SoftAC_v1
from tests.softac_v1.helpers import make_model
from tests.toys import assert_equal, saved, state_of

OBS = np.random.default_rng(0).uniform(-1, 1, (10, 3)).astype(np.float32)
VARIANTS = [
    dict(ent_coef="auto_0.1", use_sde=True),
    dict(n_critics=1, actor_q="first", ent_coef=lambda p: 0.1 + p),
    dict(policy_kwargs=dict(net_arch=[16], distribution="mixture", distribution_kwargs=dict(n_components=3))),
    dict(policy_kwargs=dict(net_arch=[16], distribution="flow", distribution_kwargs=dict(n_couplings=3, coupling_width=8))),
    dict(policy_kwargs=dict(net_arch=[16], distribution="mixture"), reparameterize=False),
]


def act(model):
    return model.predict(OBS, deterministic=True)[0]


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_variants_are_repeatable_and_restored(kwargs, tmp_path):
    # The seed sets the global generators when a model is made, so each learns before the next one is made
    model, twin, other = (make_model(**{**kwargs, "seed": seed}).learn(30) for seed in (0, 0, 1))
    assert_equal(state_of(model), state_of(twin))
    assert any(not th.equal(x, y) for x, y in zip(model.policy.parameters(), other.policy.parameters(), strict=True))
    loaded = SoftAC_v1.load(saved(model, tmp_path), env=gym.make("Pendulum-v1"))
    assert_equal(state_of(model), state_of(loaded))
    np.testing.assert_array_equal(act(model), act(loaded))
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 50 and (act(model) != act(loaded)).any()


@pytest.mark.parametrize("distribution", ["gaussian", "mixture", "flow", "deterministic"])
def test_files_of_policy_and_actor_stand_alone(distribution, tmp_path):
    policy_kwargs = dict(net_arch=[8], share_features_extractor=True, distribution=distribution)
    model = make_model(policy_kwargs=policy_kwargs, ent_coef=0.0 if distribution == "deterministic" else 0.2)
    np.testing.assert_array_equal(act(model.actor), act(model))
    for part in (model.policy, model.actor):
        part.save(tmp_path / "part")
        np.testing.assert_array_equal(act(type(part).load(tmp_path / "part")), act(model))


def test_an_actor_of_sb3s_sac_can_be_put_in():
    sac, model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=dict(net_arch=[16]), seed=3, device="cpu"), make_model()
    model.actor.load_state_dict(sac.actor.state_dict())
    np.testing.assert_allclose(act(model), act(sac), rtol=1e-5)


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
    np.testing.assert_array_equal(act(model), act(model))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # raised by PyTorch's own compiler
def test_compiled_policy_is_saved_under_plain_names(tmp_path):
    model = make_model()
    model.policy = th.compile(model.policy)
    np.testing.assert_allclose(act(SoftAC_v1.load(saved(model, tmp_path))), act(model), rtol=1e-5)


class OwnArguments(SoftAC_v1.policy_aliases["MlpPolicy"]):
    def __init__(self, observation_space, action_space, lr_schedule, use_sde=False):
        super().__init__(observation_space, action_space, lr_schedule, net_arch=[8])


def test_a_policy_with_arguments_of_its_own(tmp_path):
    model = SoftAC_v1(OwnArguments, "Pendulum-v1", device="cpu")
    model.save(tmp_path / "model")
    assert SoftAC_v1.load(tmp_path / "model", n_critics=2).critic.n_critics == 2
    with pytest.raises(ValueError, match="has no argument 'n_critics'"):
        SoftAC_v1(OwnArguments, "Pendulum-v1", n_critics=3)
