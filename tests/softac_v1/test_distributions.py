"""Policies with several modes and the deterministic variant, in the algorithm."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.noise import NormalActionNoise

from sb3_softac import SoftAC_v1
from sb3_softac.nets.candidates import QRanking
from sb3_softac.softac_v1 import MlpPolicy
from tests.softac_v1.helpers import QuadraticBandit, draw_batch, make_model
from tests.toys import saved

ALPHA = 0.2  # the default temperature

NOISE = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
DETERMINISTIC = dict(policy_kwargs=dict(net_arch=[16], distribution="deterministic"), ent_coef=0.0, action_noise=NOISE)


def with_distribution(distribution, net_arch=(16,), **distribution_kwargs):
    return dict(net_arch=list(net_arch), distribution=distribution, distribution_kwargs=distribution_kwargs)


@pytest.mark.parametrize("reparameterize", [True, False])
@pytest.mark.parametrize("distribution", ["mixture", "flow"])
def test_the_losses_are_those_of_the_paper(distribution, reparameterize):
    """V target and policy loss from the draw itself; the mixture's means over its components are written out."""
    policy_kwargs = with_distribution(distribution, **(dict(separation=0.0) if distribution == "mixture" else {}))
    model = make_model(policy_kwargs=policy_kwargs, reparameterize=reparameterize).learn(30)
    batch = draw_batch(model)
    th.manual_seed(3)
    with th.no_grad():
        sample = model.actor.sample(batch.obs, reparameterize)
        n = 4 if hasattr(sample, "log_weights") else 1
        log_pi, actions = sample.log_pi.reshape(n, 16), sample.actions.reshape(n, 16, 1)
        weights = sample.log_weights.exp() if n == 4 else th.ones(1, 16)
        q = th.stack([model.critic.q_values(model.critic.features(batch.obs), part).amin(0) for part in actions])
        v = model.value_net(batch.obs).squeeze(1)
        values = (weights * (q - ALPHA * log_pi)).sum(0)
        value_loss = 0.5 * (v - values).square().mean()
        actor_loss = -values.mean() if reparameterize else (log_pi[0] * (ALPHA * log_pi[0] - q[0] + v)).mean()
        entropy = -(weights * log_pi).sum(0).mean()
    assert (n == 4) is (distribution == "mixture" and reparameterize)
    th.manual_seed(3)
    logs = model._update(batch)
    th.testing.assert_close(logs["value_loss"], value_loss)
    th.testing.assert_close(logs["actor_loss"], actor_loss)
    th.testing.assert_close(logs["entropy"], entropy)


def test_separation_falls_to_nothing_in_half_of_the_training():
    model = make_model(policy_kwargs=with_distribution("mixture", separation=0.6))
    found = []
    for progress in (1.0, 0.75, 0.5, 0.2):
        model._follow_schedules(progress)
        found.append(model.actor.separation_now.item())
    np.testing.assert_allclose(found, [0.6, 0.3, 0.0, 0.0], atol=1e-6)
    assert not model.actor.sample(th.zeros(5, 3)).separation_bonus.any()
    model._follow_schedules(1.0)
    assert model.actor.sample(th.zeros(5, 3)).separation_bonus.any()


def test_separation_counts_what_an_action_tells_about_its_component():
    """For two components that do not overlap that is the entropy of the weights, for two that are the same it is 0."""
    model = make_model(policy_kwargs=with_distribution("mixture", n_components=2, separation=1.0))
    actor = model.actor
    with th.no_grad():
        actor.components.weight.zero_()
        for mean, expected in ((4.0, -0.25 * np.log(0.25) - 0.75 * np.log(0.75)), (0.0, 0.0)):
            actor.components.bias.copy_(th.tensor([np.log(0.25), -mean, -2.0, np.log(0.75), mean, -2.0]))
            sample = actor.sample(th.zeros(1_000, 3))
            information = sample.mean(sample.separation_bonus).mean().item()
            assert information == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("distribution", ["mixture", pytest.param("flow", marks=pytest.mark.slow)])
def test_bandit_reaches_the_boltzmann_policy(distribution):
    """As the Gaussian in test_exact.py: the optimum is a Gaussian of variance alpha / k around the peak."""
    alpha, curvature, peak = 0.2, 10.0, 0.3
    model = make_model(
        QuadraticBandit(curvature, peak, 1),
        ent_coef=alpha,
        learning_rate=lambda remaining: 1e-2 * remaining,
        learning_starts=200,
        batch_size=64,
        buffer_size=5_000,
        tau=0.05,
        policy_kwargs=with_distribution(distribution, (32, 32)),
    )
    model.learn(700)
    with th.no_grad():
        actions, log_pi = model.actor.action_log_prob(th.zeros(20_000, 1))
    assert actions.mean().item() == pytest.approx(peak, abs=0.05)
    assert actions.std().item() == pytest.approx((alpha / curvature) ** 0.5, abs=0.03)
    assert -log_pi.mean().item() == pytest.approx(0.5 * np.log(2 * np.pi * np.e * alpha / curvature), abs=0.15)


def test_deterministic_variant_is_the_gradient_of_q():
    """No entropy in any loss: V learns Q at the action, the policy loss is minus Q, and samples are the action itself."""
    model = make_model(tau=1.0, target_update_interval=4, **DETERMINISTIC).learn(30)
    batch = draw_batch(model)
    with th.no_grad():
        actions = model.actor(batch.obs)
        q = model.critic.q_values(model.critic.features(batch.obs), actions).amin(0)
        value_loss = 0.5 * (model.value_net(batch.obs).squeeze(1) - q).square().mean()
    logs = model._update(batch)
    th.testing.assert_close(logs["actor_loss"], -q.mean())
    th.testing.assert_close(logs["value_loss"], value_loss)
    assert logs["ent_coef"] == 0.0
    obs = np.zeros((5, 3), np.float32)
    np.testing.assert_array_equal(model.predict(obs)[0], model.predict(obs, deterministic=True)[0])


def test_deterministic_variant_explores_by_its_noise():
    model = make_model(random_steps=0, **DETERMINISTIC)
    model.learn(9)
    sample = model.replay_buffer.sample(200)
    with th.no_grad():
        difference = (sample.actions - model.actor(sample.observations)).abs()
    assert 0.02 < difference.mean() < 0.3


def test_deterministic_variant_finds_the_peak():
    env = QuadraticBandit(10.0, 0.3, 1)
    model = make_model(env, learning_rate=1e-2, batch_size=64, tau=1.0, target_update_interval=50, **DETERMINISTIC).learn(400)
    assert model.predict(np.zeros(1, np.float32))[0].item() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(ent_coef=0), "distribution='gaussian' do not go together"),
        (dict(policy_kwargs=with_distribution("deterministic")), "ent_coef=0.2 and .* do not go together"),
        (dict(policy_kwargs=with_distribution("deterministic"), ent_coef="auto"), "do not go together"),
        (dict(policy_kwargs=with_distribution("deterministic"), ent_coef=0, ent_coef_bounds=(0.1, 1.0)), "leave one"),
        (dict(policy_kwargs=with_distribution("deterministic"), ent_coef=0, reparameterize=False), "no likelihood ratio"),
        (dict(policy_kwargs=with_distribution("mixture", n_couplings=2)), "accepts .*n_components"),
        (dict(policy_kwargs=with_distribution("gaussian", n_components=2)), "accepts none"),
        (dict(policy_kwargs=with_distribution("mixture", separation=-1.0)), "separation must be a number, at least 0"),
        (dict(policy_kwargs=with_distribution("mixture"), use_sde=True), "use_sde=True needs a Gaussian"),
    ],
)
def test_what_does_not_fit_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


class MixturePolicy(MlpPolicy):
    """Has a mixture unless another distribution is asked for."""

    def __init__(self, *args, distribution="mixture", **kwargs):
        super().__init__(*args, distribution=distribution, **kwargs)


def test_policies_with_another_default_distribution():
    model = make_model(policy=MixturePolicy, policy_kwargs=dict(net_arch=[8], distribution_kwargs=dict(n_components=2)))
    assert model.actor.n_components == 2
    with pytest.raises(ValueError, match="no likelihood ratio"):
        given = dict(net_arch=[8], distribution="deterministic")
        make_model(policy=MixturePolicy, policy_kwargs=given, ent_coef=0, reparameterize=False)


def test_a_deterministic_policy_without_noise_does_not_learn_silently(tmp_path):
    model = make_model(**{**DETERMINISTIC, "action_noise": None})
    with pytest.raises(ValueError, match="do not go together"):
        SoftAC_v1.load(saved(model, tmp_path), ent_coef=0.2)
    with pytest.raises(ValueError, match="action_noise"):
        model.learn(20)


def by_q(**kwargs):
    return make_model(policy_kwargs=with_distribution("mixture", deterministic_by="q", **kwargs)).learn(30)


OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)


def actions_by_q(model, obs=OBSERVATIONS):
    """The component mean with the highest smallest Q-value, by the loop that the sentence says."""
    best = []
    with th.no_grad():
        _, means, _ = model.actor.mixture(th.as_tensor(obs))
        for row, each in enumerate(obs):
            candidates = means[:, row].tanh()
            q = th.stack(model.critic(th.as_tensor(each).expand(len(candidates), -1), candidates)).amin(dim=0).squeeze(1)
            best.append(candidates[q.argmax()])
    return model.policy.unscale_action(th.stack(best).numpy())


def test_a_mixture_is_evaluated_by_q(tmp_path):
    model = by_q()
    expected = actions_by_q(model)
    for predict in (model.predict, model.policy.predict, model.actor.predict):
        np.testing.assert_allclose(predict(OBSERVATIONS, deterministic=True)[0], expected, atol=1e-5)
    densest = make_model(policy_kwargs=with_distribution("mixture"))
    densest.policy.load_state_dict(model.policy.state_dict())
    assert (np.abs(densest.predict(OBSERVATIONS, deterministic=True)[0] - expected) > 1e-3).any()
    samples = []
    for each in (model, densest):  # which are those of the mixture
        th.manual_seed(0)
        samples.append(each.predict(OBSERVATIONS)[0])
    np.testing.assert_array_equal(*samples)

    model.save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", env=model.env)
    np.testing.assert_array_equal(*(each.predict(OBSERVATIONS, deterministic=True)[0] for each in (loaded, model)))
    loaded.learn(30)
    np.testing.assert_allclose(loaded.predict(OBSERVATIONS, deterministic=True)[0], actions_by_q(loaded), atol=1e-5)
    model.actor.save(tmp_path / "actor")
    actor = type(model.actor).load(tmp_path / "actor")
    np.testing.assert_allclose(actor.predict(OBSERVATIONS, deterministic=True)[0], expected, atol=1e-5)


def test_a_replaced_network_judges():
    model, other = by_q(), by_q()
    model.critic.load_state_dict({name: -x for name, x in other.critic.state_dict().items()})
    np.testing.assert_allclose(model.predict(OBSERVATIONS, deterministic=True)[0], actions_by_q(model), atol=1e-5)
    model.policy.critic = other.policy.make_critic()
    np.testing.assert_allclose(model.predict(OBSERVATIONS, deterministic=True)[0], actions_by_q(model), atol=1e-5)
    model.policy.actor = model.policy.make_actor()
    np.testing.assert_allclose(model.predict(OBSERVATIONS, deterministic=True)[0], actions_by_q(model), atol=1e-5)


def test_a_mixture_on_its_own_cannot_be_evaluated_by_q():
    actor = by_q().actor
    actor.ranking = QRanking(None)
    actor(th.zeros(1, 3))
    with pytest.raises(ValueError, match="no Q-functions"):
        actor(th.zeros(1, 3), deterministic=True)
