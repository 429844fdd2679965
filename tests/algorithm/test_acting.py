"""Inside training, actions are those that SB3 would have chosen by predict()."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_softac import SoftAC_v1
from tests.toys import OBSERVATIONS, POLICIES, RandomEnv, algorithms, continuous, random_envs


def make_model(algorithm, kind="vector", n_envs=1, action_space=None, normalize=False, **kwargs):
    env = random_envs(algorithm, OBSERVATIONS[kind], action_space, n_envs, normalized=normalize)
    policy_kwargs = dict(net_arch=[8], **(dict(features_extractor_kwargs=dict(features_dim=8)) if kind == "image" else {}))
    model = algorithm(POLICIES.get(kind, "MlpPolicy"), env, buffer_size=100, policy_kwargs=policy_kwargs, seed=0, **kwargs)
    return model.learn(10 * n_envs)


def both_ways(model, action_noise=None):
    """Actions of our _sample_action and of SB3's, from the same random numbers."""
    answers = []
    for sample in (model._sample_action, OffPolicyAlgorithm._sample_action.__get__(model)):
        th.manual_seed(3)
        np.random.seed(3)
        answers.append(sample(0, action_noise, model.n_envs))
    return answers


@algorithms
@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_same_actions_as_by_predict(algorithm, kind, n_envs):
    ours, sb3 = both_ways(make_model(algorithm, kind, n_envs))
    for mine, theirs in zip(ours, sb3, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert ours[0].dtype == sb3[0].dtype


@continuous
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("options", [dict(normalize=True), dict(action_space=spaces.Box(-2.0, 1.0, (2, 2), np.float64))])
def test_same_actions_with_noise_normalisation_and_matrices(algorithm, noise, options):
    model = make_model(algorithm, n_envs=2, **options)
    action_noise = NormalActionNoise(np.zeros(model.action_space.shape), np.ones(model.action_space.shape)) if noise else None
    ours, sb3 = both_ways(model, action_noise)
    for mine, theirs in zip(ours, sb3, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@algorithms
@pytest.mark.parametrize("place", ["algorithm.predict", "policy.predict", "policy._predict"])
def test_a_users_predict_chooses_the_actions(algorithm, place):
    """As in SB3; but random actions at the start stay random."""
    calls = []

    def counting(method):
        def predict(self, *args, **kwargs):
            calls.append(place)
            return method(self, *args, **kwargs)

        return predict

    where, name = place.split(".")
    kind = algorithm if where == "algorithm" else algorithm.policy_aliases["MlpPolicy"]
    own = type("Own", (kind,), {name: counting(getattr(kind, name))})
    env = random_envs(algorithm)
    model = own("MlpPolicy", env) if where == "algorithm" else algorithm(own, env, policy_kwargs=dict(net_arch=[8]))
    model.random_steps = 10
    model.learn(30)
    assert len(calls) == 20


def test_same_actions_with_gsde():
    ours, sb3 = both_ways(make_model(SoftAC_v1, use_sde=True))
    np.testing.assert_allclose(ours[1], sb3[1], atol=1e-6)


@continuous
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_actions_keep_their_bounds(algorithm, dtype):
    """SB3's scaling rounds the upper ends of one in five of these actions to a number outside."""
    rng = np.random.default_rng(0)
    box = spaces.Box(
        *np.sort(rng.normal(size=(2, 200)) * 10 ** rng.uniform(-3, 3, (2, 200)), axis=0).astype(dtype), dtype=dtype
    )
    env = RandomEnv(OBSERVATIONS["vector"], box)
    model = algorithm(
        "MlpPolicy", env, buffer_size=100, policy_kwargs=dict(net_arch=[8]), learning_starts=0, train_freq=100, seed=0
    )
    output = model.actor.mu.bias if algorithm is SoftAC_v1 else model.actor.network.layers[-1].bias
    for end in (50.0, -50.0):
        output.data.fill_(end)
        for deterministic in (True, False):
            action, _ = model.predict(env.reset()[0], deterministic=deterministic)
            assert action in box and action.dtype == dtype
        for noise in (None, NormalActionNoise(np.zeros(200), np.ones(200))):
            model._last_obs = env.reset()[0][None]
            for actions, low, high in zip(model._sample_action(0, noise), (box.low, -1.0), (box.high, 1.0), strict=True):
                assert (actions >= low).all() and (actions <= high).all()
    for scaled in (-1.0, 1.0):
        action = model.policy.unscale_action(np.full(200, scaled, dtype))
        assert action in box
        assert (np.abs(action - (box.high if scaled > 0 else box.low)) <= 1e-6 * (box.high - box.low)).all()
        np.testing.assert_allclose(model.policy.scale_action(action), scaled, atol=1e-6)
        end = model.policy.scale_action(np.float64(box.high if scaled > 0 else box.low))  # of more digits than the bounds
        assert (np.abs(end) <= 1.0).all()
    # What is outside is not pulled in without a word
    assert (model.policy.scale_action(box.high + 1) > 1).all() and (
        model.policy.unscale_action(np.full(200, 1.5)) > box.high
    ).all()


class LastActing(FlattenExtractor):
    """Scales observations by those that the policy last acted on."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.encoder = th.nn.Linear(self.features_dim, self.features_dim)
        self.seen = th.ones(self.features_dim)

    def forward(self, obs):
        if not self.training:
            self.seen = obs[0].flatten()
        return self.encoder(obs.flatten(1)) * self.seen


@algorithms
def test_what_a_network_keeps_from_acting_is_used_in_training(algorithm):
    kwargs = dict(features_extractor_class=LastActing, net_arch=[8])
    model = algorithm("MlpPolicy", random_envs(algorithm), learning_starts=4, policy_kwargs=kwargs)
    model.learn(8)
    model.predict(model.env.reset())
    model.learn(8, reset_num_timesteps=False)
