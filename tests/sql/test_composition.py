"""Composed soft Q-functions against exact Boltzmann policies of the sums."""

import numpy as np
import pytest
import torch as th

from sb3_softac import SQL
from sb3_softac.tabular import BoltzmannOracle, ks_distance
from tests.sql.helpers import make_model, sample, solve_bandit


def right(a):
    return -4.0 * (a[:, 0] - 0.6) ** 2


def left(a):
    return -4.0 * (a[:, 0] + 0.2) ** 2


@pytest.fixture(scope="module")
def skills():
    return [solve_bandit(reward, 1, steps=300, kernel_particles=16) for reward in (right, left)]


@pytest.mark.parametrize(("weights", "numbers"), [("sum", (1.0, 1.0)), ("mean", (0.5, 0.5)), ([2.0, 0.5], (2.0, 0.5))])
def test_a_composed_model_acts_at_once(skills, weights, numbers):
    composed = SQL.compose(skills, weights)
    oracle = BoltzmannOracle(lambda a: numbers[0] * right(a) + numbers[1] * left(a), 1.0)
    assert ks_distance(oracle, sample(composed, 2_000)[:, 0]) < 0.06
    best, _ = composed.predict(np.zeros(50, dtype=np.int64), deterministic=True)
    mode = (numbers[0] * 0.6 - numbers[1] * 0.2) / sum(numbers)
    assert np.abs(best - mode).max() < 0.15


def test_temperature_of_the_composition(skills):
    oracle = BoltzmannOracle(lambda a: right(a) + left(a), 0.1)
    assert ks_distance(oracle, sample(SQL.compose(skills, "sum", ent_coef=0.1), 2_000)[:, 0]) < 0.1


def test_distilled_without_an_environment_saved_and_loaded(skills, tmp_path):
    composed = SQL.compose(skills, "sum", policy_kwargs=dict(net_arch=[64, 64]), learning_rate=1e-3, seed=0)
    composed.distil([skill.replay_buffer for skill in skills], gradient_steps=500)
    composed.save(tmp_path / "composed")
    loaded = SQL.load(tmp_path / "composed", device="cpu")
    assert loaded.policy.distilled and loaded.env is None
    oracle = BoltzmannOracle(lambda a: right(a) + left(a), 1.0)
    th.manual_seed(0)
    assert ks_distance(oracle, sample(loaded, 2_000)[:, 0]) < 0.1


def test_skills_stay_as_they_are(skills):
    before = [parameter.clone() for skill in skills for parameter in skill.policy.parameters()]
    composed = SQL.compose(skills)
    composed.distil([skills[0].replay_buffer], gradient_steps=3, batch_size=16)
    after = [parameter for skill in skills for parameter in skill.policy.parameters()]
    assert all((x == y).all() for x, y in zip(before, after, strict=True))
    for own, skill in zip(composed.policy.critic.critics, skills, strict=True):
        for x, y in zip(own.parameters(), skill.policy.critic.parameters(), strict=True):
            assert (x == y).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [("product", "'mean', 'sum' or one number"), ([1.0], r"one finite number per model \(2\)"), ([1.0, np.nan], "finite")],
)
def test_bad_weights(skills, weights, message):
    with pytest.raises(ValueError, match=message):
        SQL.compose(skills, weights)


def test_models_that_do_not_fit(skills):
    with pytest.raises(ValueError, match="at least one model"):
        SQL.compose([])
    with pytest.raises(ValueError, match="equal spaces, model 1"):
        SQL.compose([skills[0], make_model()])
    with pytest.raises(ValueError, match=r"SQL\.compose"):
        skills[0].distil([skills[0].replay_buffer], gradient_steps=1)
