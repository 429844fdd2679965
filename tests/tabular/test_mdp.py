"""Reading MDPs, refusing wrong ones, and running them."""

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy import sparse
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from sb3_softac.tabular import TabularEnv, TabularMDP, soft_policy_evaluation, soft_value_iteration


def arrays(n_states=3, n_actions=2):
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
    rewards = rng.normal(size=(n_states, n_actions))
    transitions[-1], rewards[-1] = np.eye(n_states)[-1], 0.0
    return transitions, rewards


def test_sparse_and_dense_arrays_are_the_same_mdp():
    transitions, rewards = arrays()
    dense = TabularMDP.from_arrays(transitions, rewards, 0.9, [2])
    thin = TabularMDP.from_arrays(sparse.csr_matrix(transitions.reshape(6, 3)), rewards, 0.9, [2])
    np.testing.assert_array_equal(soft_value_iteration(dense, 0.3).v, soft_value_iteration(thin, 0.3).v)
    np.testing.assert_array_equal(dense.initial, [0.5, 0.5, 0.0])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.longdouble])
def test_tables_of_any_precision(kind):
    rng = np.random.default_rng(0)
    rewards, transitions = rng.normal(size=(30, 2)), rng.dirichlet(np.ones(30), size=(30, 2)).astype(kind)
    initial = rng.dirichlet(np.ones(30)).astype(kind)
    assert kind is np.longdouble or (np.abs(transitions.astype(float).sum(axis=2) - 1) > 1e-8).any()  # 1e-8 is for doubles
    dense = TabularMDP.from_arrays(transitions, rewards.astype(np.float32), 0.9, initial=initial)
    assert dense.transitions.dtype == dense.initial.dtype == np.float64
    np.testing.assert_allclose(dense.transitions.sum(axis=1), 1.0, atol=1e-14)
    exact = TabularMDP.from_arrays(*(x / x.sum(axis=-1, keepdims=True) for x in [transitions.astype(float)]), rewards, 0.9)
    np.testing.assert_allclose(soft_value_iteration(dense, 0.3).v, soft_value_iteration(exact, 0.3).v, atol=1e-5)
    soft_policy_evaluation(dense, rng.dirichlet(np.ones(2), size=30).astype(kind), 0.3)
    if kind is np.float32:
        thin = TabularMDP.from_arrays(sparse.csr_matrix(transitions.reshape(60, 30)), rewards, 0.9, initial=initial)
        np.testing.assert_allclose(thin.transitions.toarray(), dense.transitions.toarray(), atol=1e-15)
        converted = TabularMDP.from_arrays(transitions.astype(float), rewards, 0.9, initial=initial.astype(float))
        np.testing.assert_allclose(converted.transitions.toarray(), dense.transitions.toarray(), atol=1e-7)
        np.testing.assert_allclose(converted.transitions.sum(axis=1), 1.0, atol=1e-8)


@pytest.mark.parametrize(("kind", "error"), [(np.float16, 0.1), (np.float32, 1e-4), (np.float64, 1e-6)])
def test_more_than_a_rounding_error_is_refused(kind, error):
    transitions, rewards = arrays()
    transitions[1, 1, 0] += error
    with pytest.raises(ValueError, match=r"state 1, action 1 sum to 1\.[01]"):
        TabularMDP.from_arrays(transitions.astype(kind), rewards, 0.9, [2])
    with pytest.raises(ValueError, match="initial probabilities sum to"):
        TabularMDP.from_arrays(*arrays(), 0.9, [2], initial=np.array([0.5, 0.5 + error, 0.0], kind))


def test_tables_of_gymnasium_in_single_precision():
    env = gym.make("FrozenLake-v1").unwrapped
    exact = TabularMDP.from_gymnasium(env, 0.9)
    third = np.float32(1 / 3)
    env.P = {
        s: {a: [(third if p < 1 else np.float32(1), *rest) for p, *rest in row] for a, row in q.items()}
        for s, q in env.P.items()
    }
    env.initial_state_distrib = env.initial_state_distrib.astype(np.float32)
    rough = TabularMDP.from_gymnasium(env, 0.9)
    np.testing.assert_allclose(rough.transitions.toarray(), exact.transitions.toarray(), atol=1e-12)


@pytest.mark.parametrize(
    ("table", "place", "value", "message"),
    [
        ("transitions", (1, 1, 0), 0.9, "state 1, action 1 sum to"),
        ("transitions", (1, 1), [1.5, -0.5, 0.0], "state 1, action 1 has a transition probability of -0.5"),
        ("transitions", (0, 1, 2), math.nan, "state 0, action 1 has a transition probability of nan"),
        ("rewards", (1, 0), math.nan, "reward of state 1, action 0 is not finite: nan"),
        ("transitions", (2, 1), [1.0, 0.0, 0.0], "terminal state 2 can be left by action 1"),
        ("rewards", (2, 0), 1.0, "terminal state 2 pays a reward for action 0"),
    ],
)
def test_wrong_arrays_are_refused_with_their_index(table, place, value, message):
    tables = dict(zip(("transitions", "rewards"), arrays(), strict=True))
    tables[table][place] = value
    with pytest.raises(ValueError, match=message):
        TabularMDP.from_arrays(**tables, discount=0.9, terminal=[2])


@pytest.mark.parametrize("discount", [-0.1, 1.0, math.nan])
def test_wrong_discounts(discount):
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\)"):
        TabularMDP.from_arrays(*arrays(), discount, [2])


def test_wrong_shapes():
    transitions, rewards = arrays()
    with pytest.raises(ValueError, match=r"transitions must be \[n_states, n_actions, n_states\]"):
        TabularMDP.from_arrays(transitions[:, :1], rewards, 0.9)
    for wrong in (rewards[:, 0], np.zeros((3, 2, 3))):
        with pytest.raises(
            ValueError, match=r"rewards must be \[n_states, n_actions\], got .*\(transitions \* rewards\)\.sum"
        ):
            TabularMDP.from_arrays(transitions, wrong, 0.9)
    with pytest.raises(ValueError, match="initial probabilities sum to 3"):
        TabularMDP.from_arrays(transitions, rewards, 0.9, [2], initial=np.ones(3))
    for wrong in (-0.5, math.nan):
        with pytest.raises(ValueError, match=f"state 1 has an initial probability of {wrong}"):
            TabularMDP.from_arrays(transitions, rewards, 0.9, [2], initial=np.array([1.5, wrong, 0.0]))
    with pytest.raises(ValueError, match="no transition table"):
        TabularMDP.from_gymnasium("CartPole-v1", 0.9)
    env = gym.make("FrozenLake-v1").unwrapped
    del env.initial_state_distrib
    with pytest.raises(ValueError, match="no initial_state_distrib"):
        TabularMDP.from_gymnasium(env, 0.9)
    for wrong in ([3], [-1], [0.5]):
        with pytest.raises(ValueError, match=f"terminal must be indices of the 3 states, got {wrong[0]}"):
            TabularMDP.from_arrays(transitions, rewards, 0.9, wrong)
    assert TabularMDP.from_arrays(transitions, rewards, 0.9, np.array([False, False, True])).terminal.tolist() == [0, 0, 1]


def test_reading_a_toy_text_environment():
    env = gym.make("FrozenLake-v1", is_slippery=True)
    mdp = TabularMDP.from_gymnasium(env, 0.9)
    assert (mdp.n_states, mdp.n_actions) == (17, 4)
    assert mdp.terminal.nonzero()[0].tolist() == [16]
    # From state 14, going right (2) reaches the goal with probability 1/3
    assert mdp.rewards[14, 2] == pytest.approx(1 / 3)
    assert mdp.transitions[14 * 4 + 2, 16] == pytest.approx(1 / 3)
    assert mdp.initial[0] == 1.0


def test_environment_follows_the_interface_and_the_seed():
    transitions, rewards = arrays()
    env = TabularEnv(TabularMDP.from_arrays(transitions, rewards, 0.9, [2]))
    check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)

    def episode():
        states, (state, _) = [], env.reset(seed=3)
        for _ in range(20):
            states.append(state)
            state, _, terminated, _, _ = env.step(0)
            if terminated:
                break
        return states

    assert episode() == episode()
    with pytest.raises(ValueError, match="action must be in 0 to 1, got -1"):
        env.step(-1)


def test_rollouts_meet_the_exact_value():
    """Discounted return plus entropy over 20000 episodes, against soft policy evaluation, within 3 standard errors."""
    transitions, rewards = arrays()
    mdp, alpha = TabularMDP.from_arrays(transitions, rewards, 0.9, [2]), 0.5
    rng = np.random.default_rng(1)
    pi = rng.dirichlet(np.ones(2), size=3)
    env = TabularEnv(mdp)
    env.reset(seed=1)
    returns = []
    for _ in range(20_000):
        (state, _), total, weight, terminated = env.reset(), 0.0, 1.0, False
        while not terminated and weight > 1e-6:
            action = int(rng.random() < pi[state, 1])
            bonus = -alpha * math.log(pi[state, action])
            state, reward, terminated, _, _ = env.step(action)
            total, weight = total + weight * (reward + bonus), weight * mdp.discount
        returns.append(total)
    exact = mdp.initial @ soft_policy_evaluation(mdp, pi, alpha).v
    assert abs(np.mean(returns) - exact) < 3 * np.std(returns) / math.sqrt(len(returns))
