"""Policies: features extractors with lazy layers, and the optimizer that can be made again."""

import copy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from tests.engines.native.helpers import BOX, make_model, train

ALGORITHMS = [SoftAC_v1, DiscreteSAC, SQL]
SPACES = {
    "MlpPolicy": spaces.Box(-2, 2, (3,), np.float32),
    "CnnPolicy": spaces.Box(0, 255, (1, 8, 8), np.uint8),
    "MultiInputPolicy": spaces.Dict(
        a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3), c=spaces.Box(0, 255, (1, 8, 8), np.uint8), d=spaces.MultiBinary(2)
    ),
}


class Lazy(BaseFeaturesExtractor):
    """Convolutions for images; batch normalisation and dropout, which a single zero must not disturb."""

    def __init__(self, space, features_dim=4):
        super().__init__(space, features_dim)
        parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        self.parts = nn.ModuleDict()
        for name, part in parts.items():
            first = [nn.LazyConv2d(2, 3)] if len(part.shape) == 3 else []
            layers = [*first, nn.Flatten(), nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Dropout(0.1)]
            self.parts[name or "all"] = nn.Sequential(*layers)

    def forward(self, obs):
        parts = obs if isinstance(obs, dict) else {"all": obs}
        return sum(self.parts[name](part) for name, part in parts.items())


def make(algorithm, policy="MlpPolicy", **kwargs):
    own = dict(actions=BOX, kernel_particles=4, value_particles=4) if algorithm is SQL else {}
    policy_kwargs = dict(net_arch=[8], features_extractor_class=Lazy, **kwargs)
    return make_model(algorithm, policy=policy, obs=SPACES[policy], policy_kwargs=policy_kwargs, **own)


@pytest.mark.parametrize("policy", SPACES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lazy_layers(algorithm, policy, tmp_path):
    """They are trained, followed by the targets from the start, saved and loaded."""
    model = make(algorithm, policy)
    kwargs = dict(net_arch=[8], features_extractor_class=Lazy)
    fresh = algorithm(policy, model.get_env(), policy_kwargs=kwargs, device="cpu").policy
    for name, target in algorithm.targets.items():
        ours, theirs = (getattr(fresh, each).state_dict() for each in (name, target))
        assert all(th.equal(ours[key], theirs[key]) for key in ours)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    train(model, 3)
    trained = [name for name, _ in model.policy.named_parameters() if "target" not in name and "features" in name]
    assert len(trained) >= 4 and all(not th.equal(before[name], model.policy.state_dict()[name]) for name in trained)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", device="cpu")
    obs = model.observation_space.sample()
    np.testing.assert_array_equal(*(each.predict(obs, deterministic=True)[0] for each in (model, loaded)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_shared_lazy_layers(algorithm):
    model = make(algorithm, share_features_extractor=True)
    train(model, 2)
    assert model.actor.features_extractor is model.critic.features_extractor and model.actor.features_extractor.training


def test_lazy_layers_elsewhere():
    """What no features extractor contains is refused with the remedy."""
    with pytest.raises(ValueError, match=r"lazy layers.*give them their sizes"):
        make_model(SoftAC_v1, policy=WithLazyActor)


class WithLazyActor(SoftAC_v1.policy_aliases["MlpPolicy"]):
    def make_actor(self, features_extractor=None):
        actor = super().make_actor(features_extractor)
        actor.mu = nn.LazyLinear(2)
        return actor


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_optimizer_made_again(algorithm):
    """It is the one of the constructor: class, arguments, parameters in their order; a saved state fits."""
    own = dict(actions=BOX, kernel_particles=4, value_particles=4) if algorithm is SQL else {}
    kwargs = dict(optimizer_class=th.optim.AdamW, optimizer_kwargs=dict(weight_decay=0.3))
    model = make_model(algorithm, policy_kwargs=dict(net_arch=[8], **kwargs), **own)
    first = model.policy.optimizer
    again = model.policy.make_optimizer(model.lr_schedule)
    assert type(again) is th.optim.AdamW and again.defaults == first.defaults
    for mine, theirs in zip(again.param_groups, first.param_groups, strict=True):
        assert all(one is other for one, other in zip(mine["params"], theirs["params"], strict=True))
    again.load_state_dict(copy.deepcopy(first.state_dict()))
