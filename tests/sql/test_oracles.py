"""SQL against exact Boltzmann policies: of a fixed reward, and over several steps with continuous actions."""

from functools import cache

import numpy as np
import pytest
import torch as th

from sb3_softac.conformance.problems import ContinuousChain
from sb3_softac.conformance.subject import ALPHA, GAMMA
from sb3_softac.sql import SQL
from sb3_softac.tabular import BoltzmannOracle, ks_distance, sliced_wasserstein_distance
from tests.sql.helpers import sample, solve_bandit, train

REWARDS = {
    "constant": lambda a: np.zeros(len(a)),
    "one mode": lambda a: -4.0 * (a[:, 0] - 0.4) ** 2,
    "two modes": lambda a: -10.0 * (a[:, 0] ** 2 - 0.35) ** 2,
    "at the edge": lambda a: 3.0 * a[:, 0],
}


@cache
def solved(name):
    return solve_bandit(REWARDS[name], 1, steps=600)


@pytest.mark.parametrize(
    "name", ["one mode", *(pytest.param(n, marks=pytest.mark.slow) for n in ("two modes", "constant", "at the edge"))]
)
def test_the_sampler_draws_from_the_boltzmann_density(name):
    model = solved(name)
    assert ks_distance(BoltzmannOracle(REWARDS[name], 1.0), sample(model, 2_000)[:, 0]) < 0.1


@pytest.mark.slow
def test_two_correlated_dimensions():
    def reward(a):
        return -8.0 * (a[:, 0] - 0.8 * a[:, 1]) ** 2 - (a[:, 0] + a[:, 1] - 0.3) ** 2

    oracle = BoltzmannOracle(reward, 1.0, dim=2)
    samples = sample(solve_bandit(reward, 2), 1_000)
    assert sliced_wasserstein_distance(oracle, samples, np.random.default_rng(0)) < 0.1
    assert np.corrcoef(samples.T)[0, 1] > 0.4


def test_deterministic_actions_are_the_best_of_many():
    model = solved("one mode")
    actions, _ = model.predict(np.zeros(200, dtype=np.int64), deterministic=True)
    assert np.abs(actions - 0.4).mean() < 0.1 < np.abs(sample(model, 200) - 0.4).mean()


@pytest.mark.slow
@pytest.mark.parametrize("proposal", ["mixture", "uniform"])
def test_soft_values_over_several_steps(proposal):
    """Two states, discounted: the soft values of both against soft value iteration with exact integrals."""
    env = ContinuousChain()
    model = SQL(
        "MlpPolicy", env, policy_kwargs=dict(net_arch=[64, 64], n_critics=1), gamma=GAMMA, ent_coef=ALPHA, tau=0.05,
        buffer_size=6_000, proposal=proposal, seed=0, device="cpu",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(6_000):
        state, a = rng.integers(2), rng.uniform(-1, 1)
        nxt = int(rng.random() < ContinuousChain.probability_of_1(a))
        reward = ContinuousChain.reward(state, a)
        arrays = [np.array(value) for value in ([state], [nxt], [[a]], [reward], [0.0])]
        model.replay_buffer.add(*arrays, [{}])
    train(model, 1_500)
    v, oracles = ContinuousChain.solve(ALPHA, GAMMA)
    obs = th.tensor([[0], [1]])
    grid = th.linspace(-1, 1, 401).reshape(1, -1, 1).expand(2, -1, 1)
    with th.no_grad():
        q = model.critic.q_particles(model.critic.features(obs), grid)[0].numpy()
    learned = ALPHA * np.log(np.exp(q / ALPHA).mean(axis=1) * 2)
    assert learned == pytest.approx(v, abs=0.05 * np.abs(v).max())
    for state in (0, 1):
        actions, _ = model.predict(np.full(2_000, state))
        assert ks_distance(oracles[state], actions[:, 0]) < 0.12
