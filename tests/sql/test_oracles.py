"""SQL against exact Boltzmann policies: of a fixed reward, and over several steps with continuous actions."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from sb3_softac.sql import SQL
from sb3_softac.tabular import BoltzmannOracle, ks_distance, sliced_wasserstein_distance
from tests.softac_v1.test_oracles import ALPHA, GAMMA, Chain

REWARDS = {
    "constant": lambda a: np.zeros(len(a)),
    "one mode": lambda a: -4.0 * (a[:, 0] - 0.4) ** 2,
    "two modes": lambda a: -10.0 * (a[:, 0] ** 2 - 0.35) ** 2,
    "at the edge": lambda a: 3.0 * a[:, 0],
}


class Bandit(gym.Env):
    """One state; only its spaces are used."""

    def __init__(self, dim):
        self.observation_space, self.action_space = spaces.Discrete(1), spaces.Box(-1, 1, (dim,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 0.0, True, False, {}


def train(model, steps):
    model.set_logger(Logger(None, []))
    for learning_rate, part in ((3e-3, 0.6), (5e-4, 0.4)):
        model.lr_schedule = lambda _, value=learning_rate: value
        model.train(int(part * steps), batch_size=128)
    return model


def solve_bandit(reward, dim, steps=1_000, **kwargs):
    env = Bandit(dim)
    arch = dict(net_arch=[64, 64], n_critics=1)
    model = SQL(
        "MlpPolicy", env, policy_kwargs=arch, buffer_size=2_000, tau=0.05, ent_coef=1.0, seed=0, device="cpu", **kwargs
    )
    actions = np.random.default_rng(0).uniform(-1, 1, (2_000, 1, dim))
    for action in actions:
        model.replay_buffer.add(np.zeros(1), np.zeros(1), action, reward(action), np.ones(1), [{}])
    return train(model, steps)


def sample(model, n):
    return model.predict(np.zeros(n, dtype=np.int64))[0]


@pytest.mark.parametrize(
    "name", ["two modes", "at the edge", *(pytest.param(n, marks=pytest.mark.slow) for n in ("constant", "one mode"))]
)
def test_the_sampler_draws_from_the_boltzmann_density(name):
    model = solve_bandit(REWARDS[name], 1)
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
    model = solve_bandit(REWARDS["one mode"], 1)
    actions, _ = model.predict(np.zeros(200, dtype=np.int64), deterministic=True)
    assert np.abs(actions - 0.4).mean() < 0.1 < np.abs(sample(model, 200) - 0.4).mean()


@pytest.mark.parametrize("proposal", ["mixture", pytest.param("uniform", marks=pytest.mark.slow)])
def test_soft_values_over_several_steps(proposal):
    """Two states, discounted: the soft values of both against soft value iteration with exact integrals."""
    env = Chain()
    model = SQL(
        "MlpPolicy", env, policy_kwargs=dict(net_arch=[64, 64], n_critics=1), gamma=GAMMA, ent_coef=ALPHA, tau=0.05,
        buffer_size=6_000, proposal=proposal, seed=0, device="cpu",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(6_000):
        state, a = rng.integers(2), rng.uniform(-1, 1)
        nxt = int(rng.random() < Chain.probability_of_1(a))
        model.replay_buffer.add(
            np.array([state]), np.array([nxt]), np.array([[a]]), np.array([Chain.reward(state, a)]), np.zeros(1), [{}]
        )
    train(model, 1_500)
    v, oracles = Chain.solve()
    obs = th.tensor([[0], [1]])
    grid = th.linspace(-1, 1, 401).reshape(1, -1, 1).expand(2, -1, 1)
    with th.no_grad():
        q = model.critic.q_particles(model.critic.features(obs), grid)[0].numpy()
    learned = ALPHA * np.log(np.exp(q / ALPHA).mean(axis=1) * 2)
    assert learned == pytest.approx(v, abs=0.05 * np.abs(v).max())
    for state in (0, 1):
        actions, _ = model.predict(np.full(2_000, state))
        assert ks_distance(oracles[state], actions[:, 0]) < 0.12
