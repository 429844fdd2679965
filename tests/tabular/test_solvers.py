"""What the papers prove, on random MDPs; exact numbers on small ones; the benchmark environments of Gymnasium."""

import math
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from scipy.special import logsumexp, softmax

from sb3_softac.tabular import (
    TabularMDP,
    soft_policy_evaluation,
    soft_policy_improvement,
    soft_policy_iteration,
    soft_value_iteration,
)
from sb3_softac.tabular.equations import soft_bellman_backup, soft_policy, soft_value, soft_value_of_policy
from tests.tabular.random_mdps import problems, two_hundred_mdps


def random_policy(mdp, rng):
    return rng.dirichlet(np.ones(mdp.n_actions), size=mdp.n_states)


def scale(mdp, alpha):
    """Magnitude of the values, for tolerances."""
    return (np.abs(mdp.rewards).max() + alpha * math.log(mdp.n_actions) + 1.0) / (1.0 - mdp.discount)


def test_equations_hand_computed():
    q = np.array([[1.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(soft_value(q, 1.0), [math.log(math.e + math.e**2), math.log(2)])
    np.testing.assert_allclose(soft_value(q, 0.5), [0.5 * math.log(math.exp(2) + math.exp(4)), 0.5 * math.log(2)])
    np.testing.assert_allclose(soft_policy(q, 0.5)[0], [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))])
    pi = np.array([[0.25, 0.75], [1.0, 0.0]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    np.testing.assert_allclose(soft_value_of_policy(q, pi, 0.5), [1.75 + 0.5 * entropy, 0.0])
    mdp = TabularMDP.from_arrays([[[0.0, 1.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]], [[1.0, 2.0], [3.0, 4.0]], 0.5)
    backed_up = soft_bellman_backup(mdp.rewards, mdp.transitions, 0.5, np.array([10.0, 20.0]))
    np.testing.assert_allclose(backed_up, [[11.0, 9.5], [8.0, 14.0]])


def test_large_values_do_not_overflow():
    q = np.array([[1e5, 1e5 - 1.0], [-1e5, -1e5]])
    np.testing.assert_allclose(soft_value(q, 1e-3), [1e5, -1e5 + 1e-3 * math.log(2)], rtol=1e-12)
    assert np.isfinite(soft_policy(q, 1e-3)).all()


def test_one_state_in_closed_form():
    """V = (alpha log sum exp(r / alpha)) / (1 - gamma): the same choice for ever."""
    rewards, alpha, gamma = np.array([[1.0, 0.0, -1.0]]), 0.7, 0.9
    mdp = TabularMDP.from_arrays(np.ones((1, 3, 1)), rewards, gamma)
    expected = alpha * logsumexp(rewards / alpha) / (1 - gamma)
    for solve in (soft_value_iteration, soft_policy_iteration):
        solution = solve(mdp, alpha)
        np.testing.assert_allclose(solution.v, expected, atol=1e-9)
        np.testing.assert_allclose(solution.pi, softmax(rewards / alpha, axis=1), atol=1e-9)


@two_hundred_mdps
@given(problems())
def test_backups_are_contractions(problem):
    mdp, alpha, rng = problem
    pi = random_policy(mdp, rng)
    one, two = rng.normal(size=(2, mdp.n_states)) * 10

    def backup(v):
        return soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v)

    limit = mdp.discount * np.abs(one - two).max() + 1e-9
    assert np.abs(soft_value(backup(one), alpha) - soft_value(backup(two), alpha)).max() <= limit
    assert np.abs(soft_value_of_policy(backup(one), pi, alpha) - soft_value_of_policy(backup(two), pi, alpha)).max() <= limit


@two_hundred_mdps
@given(problems())
def test_improvement_never_lowers_a_value(problem):
    mdp, alpha, rng = problem
    before = soft_policy_evaluation(mdp, random_policy(mdp, rng), alpha)
    after = soft_policy_evaluation(mdp, soft_policy_improvement(before.q, alpha), alpha)
    assert (after.q - before.q).min() >= -1e-8 * scale(mdp, alpha)


@two_hundred_mdps
@given(problems())
def test_value_and_policy_iteration_agree(problem):
    mdp, alpha, _ = problem
    by_value, by_policy = soft_value_iteration(mdp, alpha), soft_policy_iteration(mdp, alpha)
    assert by_value.converged and by_policy.converged
    np.testing.assert_allclose(by_value.v, by_policy.v, atol=3e-10)
    np.testing.assert_allclose(by_value.q, by_policy.q, atol=3e-10)
    np.testing.assert_allclose(by_value.pi, by_policy.pi, atol=1e-6)
    assert len(by_policy.residuals) <= 30


@two_hundred_mdps
@given(problems())
def test_the_error_bound_holds_where_rounding_limits_it(problem):
    """The error itself, by a Newton step from the residual in extended precision, for values up to 1e11."""
    mdp, alpha, rng = problem
    factor = 10.0 ** rng.integers(9)
    mdp = replace(mdp, rewards=mdp.rewards * factor)
    p = mdp.transitions.toarray().reshape(mdp.n_states, mdp.n_actions, mdp.n_states)
    for solve in (soft_value_iteration, soft_policy_iteration):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            solution = solve(mdp, alpha * factor, max_iterations=3_000)
        assert solution.converged == (solution.error_bound <= 1e-10)
        q = mdp.rewards.astype(np.longdouble) + mdp.discount * (p.astype(np.longdouble) @ solution.v)
        residual = np.where(mdp.terminal, 0.0, soft_value(q, alpha * factor)) - solution.v
        p_pi = mdp.discount * (~mdp.terminal)[:, None] * np.einsum("sa,sat->st", solution.pi, p)
        error = np.linalg.solve(np.eye(mdp.n_states) - p_pi, residual.astype(np.float64))
        assert np.abs(error).max() <= solution.error_bound


@two_hundred_mdps
@given(problems())
def test_the_error_bound_holds_where_rewards_cancel_under_the_policy(problem):
    """The error of policy evaluation, as above, with rewards whose mean under the policy is 0 up to rounding."""
    mdp, alpha, rng = problem
    pi = random_policy(mdp, rng)
    rewards = (mdp.rewards - (pi * mdp.rewards).sum(axis=1, keepdims=True)) * 10.0 ** rng.integers(9)
    mdp = replace(mdp, rewards=np.where(mdp.terminal[:, None], 0.0, rewards))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        solution = soft_policy_evaluation(mdp, pi, alpha, max_iterations=3_000)
    precise, p = pi.astype(np.longdouble), mdp.transitions.toarray().reshape(mdp.n_states, mdp.n_actions, mdp.n_states)
    q = mdp.rewards.astype(np.longdouble) + mdp.discount * (p.astype(np.longdouble) @ solution.v)
    residual = np.where(mdp.terminal, 0.0, (precise * (q - alpha * np.log(precise))).sum(axis=1)) - solution.v
    p_pi = mdp.discount * (~mdp.terminal)[:, None] * np.einsum("sa,sat->st", pi, p)
    error = np.linalg.solve(np.eye(mdp.n_states) - p_pi, residual.astype(np.float64))
    assert np.abs(error).max() <= solution.error_bound


@pytest.mark.parametrize("solve", [soft_value_iteration, soft_policy_iteration])
def test_the_error_bound_holds_where_rewards_cancel_the_entropy(solve):
    """Rewards of -alpha log 3 leave values that are 0 up to the rounding of the logarithm, which the bound contains."""
    alpha = 1e9
    mdp = TabularMDP.from_arrays(np.ones((1, 3, 1)), np.full((1, 3), -alpha * math.log(3)), 0.99)
    with pytest.warns(RuntimeWarning, match="rounding limits it"):
        solution = solve(mdp, alpha)
    exact = (np.longdouble(mdp.rewards[0, 0]) + alpha * np.log(np.longdouble(3))) / (1 - np.longdouble(0.99))
    assert not solution.converged
    assert abs(solution.v[0] - exact) <= solution.error_bound < 1e-3


def test_values_that_stop_changing_are_not_certified():
    """At a discount of 0.999 rewards of 1e9 leave an error of 0.06 when a sweep no longer changes anything."""
    mdp = TabularMDP.from_arrays(np.ones((1, 1, 1)), [[1e9]], 0.999)
    with pytest.warns(RuntimeWarning, match="rounding limits it"):
        solution = soft_value_iteration(mdp, 1.0)
    assert not solution.converged
    assert abs(solution.v[0] - 1e9 / (1 - 0.999)) <= solution.error_bound < 1.0


@two_hundred_mdps
@given(problems())
def test_value_is_the_soft_maximum_and_that_of_the_policy(problem):
    """At the solution, alpha log sum exp(Q / alpha) is also the value that the policy earns."""
    mdp, alpha, _ = problem
    solution = soft_value_iteration(mdp, alpha)
    alive = ~mdp.terminal
    np.testing.assert_allclose(solution.v[alive], alpha * logsumexp(solution.q[alive] / alpha, axis=1), atol=3e-10)
    np.testing.assert_allclose(solution.v, soft_policy_evaluation(mdp, solution.pi, alpha).v, atol=1e-8 * scale(mdp, alpha))
    assert (solution.v[mdp.terminal] == 0).all()


@two_hundred_mdps
@given(problems())
def test_limits_of_the_temperature(problem):
    """
    Greedy at 0. Far above the rewards only entropy counts: the uniform policy, unless a terminal state ends the earning of
    entropy, in which case the limit is the policy of the same MDP without rewards.
    """
    mdp, _, _ = problem
    v, before = np.zeros(mdp.n_states), None
    while before is None or np.abs(v - before).max() > 1e-10 * (1 - mdp.discount):
        before = v
        v = np.where(mdp.terminal, 0.0, soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v).max(axis=1))
    cold = soft_value_iteration(mdp, 1e-4)
    tolerance = 1e-4 * math.log(mdp.n_actions) / (1 - mdp.discount) + 1e-8
    assert np.abs(cold.v - v).max() <= tolerance
    greedy = soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v)
    chosen = np.take_along_axis(greedy, cold.pi.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (greedy.max(axis=1) - chosen).max() <= 2 * tolerance
    hot = soft_policy_iteration(mdp, 1e6, tolerance=1e-4)
    pure_entropy = soft_policy_iteration(replace(mdp, rewards=np.zeros_like(mdp.rewards)), 1.0)
    np.testing.assert_allclose(hot.pi, pure_entropy.pi, atol=1e-3)
    if not mdp.terminal.any():
        np.testing.assert_allclose(hot.pi, 1 / mdp.n_actions, atol=1e-3)


@two_hundred_mdps
@given(problems())
def test_gradient_of_the_objective_vanishes_at_the_solution(problem):
    """J(theta) = E[V of softmax(theta)], by central differences along random directions."""
    mdp, alpha, rng = problem
    theta, direction = soft_value_iteration(mdp, alpha).q / alpha, rng.normal(size=mdp.rewards.shape)
    theta -= theta.max(axis=1, keepdims=True)

    def slope(at):
        values = [
            mdp.initial @ soft_policy_evaluation(mdp, softmax(at + s * direction, axis=1), alpha).v for s in (1e-4, -1e-4)
        ]
        return (values[0] - values[1]) / 2e-4

    assert abs(slope(theta)) <= 1e-5 * scale(mdp, alpha)


def test_gradient_does_not_vanish_elsewhere():
    mdp = TabularMDP.from_arrays(np.full((2, 2, 2), 0.5), [[1.0, 0.0], [0.0, 1.0]], 0.9)
    values = [mdp.initial @ soft_policy_evaluation(mdp, np.tile([p, 1 - p], (2, 1)), 0.2).v for p in (0.9001, 0.8999)]
    assert abs(values[0] - values[1]) / 2e-4 > 1.0


@pytest.mark.parametrize(
    ("env_id", "kwargs", "alpha"),
    [
        ("FrozenLake8x8-v1", {}, 1e-3),
        ("FrozenLake-v1", {"is_slippery": False}, 0.1),
        ("CliffWalking-v1", {}, 1.0),
        ("Taxi-v4", {}, 0.1),
    ],
)
def test_toy_text_environments_are_solved(env_id, kwargs, alpha):
    mdp = TabularMDP.from_gymnasium(gym.make(env_id, **kwargs), 0.99)
    by_value, by_policy = soft_value_iteration(mdp, alpha), soft_policy_iteration(mdp, alpha)
    assert by_value.converged and by_value.error_bound <= 1e-10
    assert by_policy.converged and by_policy.error_bound <= 1e-10
    np.testing.assert_allclose(by_value.v, by_policy.v, atol=2e-10)
    assert np.diff(by_value.residuals).max() <= 1e-12  # monotone: it contracts


def test_known_optimum_of_cliff_walking():
    """13 steps of -1 along the edge: the well-known shortest path, at a temperature near 0."""
    mdp = TabularMDP.from_gymnasium("CliffWalking-v1", 0.999)
    start = int(np.flatnonzero(mdp.initial)[0])
    assert soft_value_iteration(mdp, 1e-5, tolerance=1e-8).v[start] == pytest.approx(-(1 - 0.999**13) / 0.001, abs=0.01)


def test_it_says_when_it_did_not_converge():
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1", 0.99)
    with pytest.warns(RuntimeWarning, match="soft value iteration did not converge: after 10 iterations"):
        solution = soft_value_iteration(mdp, 0.1, max_iterations=10)
    assert not solution.converged and len(solution.residuals) == 10
    exact = soft_value_iteration(mdp, 0.1)
    assert np.abs(solution.v - exact.v).max() <= solution.error_bound + 1e-9
    with pytest.warns(RuntimeWarning, match="soft policy iteration did not converge"):
        assert not soft_policy_iteration(mdp, 0.1, max_iterations=1).converged
    arguments = {soft_value_iteration: (0.1,), soft_policy_iteration: (0.1,), soft_policy_evaluation: (exact.pi, 0.1)}
    for solve, values in arguments.items():
        with pytest.raises(ValueError, match="max_iterations must be an integer, at least 1, got 0"):
            solve(mdp, *values, max_iterations=0)


@pytest.mark.parametrize("temperature", [-1.0, 0.0, math.nan, math.inf, "0.1"])
def test_bad_temperatures(temperature):
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1", 0.99)
    for solve in (soft_value_iteration, soft_policy_iteration):
        with pytest.raises(ValueError, match="temperature must be a finite number greater than 0"):
            solve(mdp, temperature)
    with pytest.raises(ValueError, match="temperature"):
        soft_policy_improvement(mdp.rewards, temperature)


def test_bad_policies():
    mdp = TabularMDP.from_arrays(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), 0.9)
    with pytest.raises(ValueError, match="state 1"):
        soft_policy_evaluation(mdp, [[0.5, 0.5], [0.5, 0.6]], 1.0)
    with pytest.raises(ValueError, match="state 0"):
        soft_policy_evaluation(mdp, [[1.5, -0.5], [0.5, 0.5]], 1.0)
    with pytest.raises(ValueError, match=r"\[n_states, n_actions\] = \(2, 2\)"):
        soft_policy_evaluation(mdp, [[1.0]], 1.0)
