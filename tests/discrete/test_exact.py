"""
Discrete algorithms against exact solutions of small MDPs: Q, V and the policy.

There is no noise, see :mod:`tests.discrete.exact_mdps`; with random batches they are in tests/conformance.
"""

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from sb3_softac.tabular import TabularEnv, soft_value_iteration
from tests.discrete.exact_mdps import (
    ALPHA,
    FORBIDDEN,
    TOLERANCE,
    FactoredEnv,
    Masked,
    assert_solved,
    factored_problem,
    fill,
    make_model,
    random_mdp,
    row_of_states,
    tables,
    train,
    with_rewards,
)
from tests.toys import ALGORITHMS, is_discrete

algorithms = pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if is_discrete(each)])


@pytest.mark.parametrize("terminal", [(), (3, 4)])
@algorithms
def test_random_mdps(algorithm, terminal):
    mdp = random_mdp(len(terminal), terminal=terminal)
    model = make_model(algorithm, TabularEnv(mdp))
    fill(model, mdp)
    assert_solved(train(model), mdp, soft_value_iteration(mdp, ALPHA))


@algorithms
def test_forbidden_actions_do_not_tempt(algorithm):
    """Forbidden actions are in the buffer too, and pay 10: in the next state's value or the policy they would show."""
    mdp = random_mdp(5, n_actions=4)
    masks = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]], dtype=bool)
    tempting = with_rewards(mdp, np.where(masks, mdp.rewards, 10.0))
    model = make_model(algorithm, Masked(TabularEnv(tempting), masks))
    fill(model, tempting, masks)
    exact = soft_value_iteration(with_rewards(mdp, np.where(masks, mdp.rewards, FORBIDDEN)), ALPHA)
    assert_solved(train(model), mdp, exact, masks, masks)
    assert (tables(model, masks)[2][~masks] == 0.0).all()


@algorithms
def test_masked_exploration_with_time_limits(algorithm):
    """
    The environment fills the buffer. Allowed actions cost 1 to 2, so one of which nothing is known (Q near 0) would tempt. A
    time limit ends the episodes after 3 steps; the mask of their last state, not that of the next episode's first, counts.
    """
    rng = np.random.default_rng(6)
    mdp = with_rewards(random_mdp(6, n_states=4, draws=1), -1.0 - rng.random((4, 3)))
    masks = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=bool)
    model = make_model(algorithm, TimeLimit(Masked(TabularEnv(mdp), masks), 3), learning_starts=600)
    model.learn(600)
    taken = np.zeros_like(masks)
    taken[model.replay_buffer.observations[:600, 0, 0], model.replay_buffer.actions[:600, 0, 0]] = True
    np.testing.assert_array_equal(taken, masks)
    exact = soft_value_iteration(with_rewards(mdp, np.where(masks, mdp.rewards, FORBIDDEN)), ALPHA)
    assert_solved(train(model), mdp, exact, masks, masks)


@pytest.mark.parametrize(
    ("kwargs", "masked"),
    [(dict(policy_kwargs=dict(n_critics=1)), False), (dict(), True)],
    ids=["one critic", "min"],
)
@algorithms
def test_factored_actions_equal_the_flattened_solution(algorithm, kwargs, masked):
    mdp, sizes, masks, allowed = factored_problem(masked)
    env = FactoredEnv(mdp, sizes)
    model = make_model(algorithm, Masked(env, masks) if masked else env, **kwargs)
    fill(model, mdp, masks if masked else None)
    exact = soft_value_iteration(with_rewards(mdp, np.where(allowed, mdp.rewards, FORBIDDEN)), ALPHA)
    train(model, steps=800 if masked else 300)
    assert_solved(model, mdp, exact, masks if masked else None, allowed)


@pytest.mark.parametrize("ends", [False, True])
@algorithms
def test_time_limits_bootstrap_and_terminations_do_not(algorithm, ends):
    """Four states in a row that pay 1 each; the last one leads to a terminal state, or to the first. A limit of 3 steps."""
    mdp = row_of_states(ends)
    model = make_model(algorithm, TimeLimit(TabularEnv(mdp), 3), learning_starts=200)
    model.learn(200)
    q, exact, alive = tables(train(model))[0], soft_value_iteration(mdp, ALPHA).q, ~mdp.terminal
    assert exact[alive].max() == pytest.approx(exact[0, 0]) and exact[0, 0] > (3.0 if ends else 5.5)
    assert np.abs(q - exact)[alive].max() < TOLERANCE * exact.max()
