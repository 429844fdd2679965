"""DiscreteSAC against exact solutions of small MDPs, with tables for networks."""

from functools import partial

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from sb3_softac import DiscreteSAC
from sb3_softac.tabular import TabularEnv, soft_policy_evaluation, soft_value_iteration
from tests.discrete import exact_mdps
from tests.discrete.exact_mdps import (
    ALPHA,
    GAMMA,
    NO_ENTROPY,
    TOLERANCE,
    Masked,
    add,
    assert_solved,
    fill,
    fill_with_episodes,
    random_mdp,
    ring,
    row_of_states,
    tables,
    train,
)

make_model = partial(exact_mdps.make_model, DiscreteSAC)


@pytest.mark.parametrize(
    ("seed", "terminal", "kwargs"),
    [
        (1, (3, 4), dict(q_aggregation="mean")),
        (3, (0,), dict(stable_kwargs=dict(q_clip=0.5))),
    ],
)
def test_random_mdps(seed, terminal, kwargs):
    mdp = random_mdp(seed, terminal=terminal)
    model = make_model(TabularEnv(mdp), **kwargs)
    fill(model, mdp)
    assert_solved(train(model), mdp, soft_value_iteration(mdp, ALPHA))


def test_a_decoupled_critic_reaches_its_own_fixed_point():
    """V = E[Q - scale alpha log pi] with the policy softmax(Q / alpha): not soft-optimal, but as well defined."""
    mdp, scale = random_mdp(4), 0.5
    q = np.zeros_like(mdp.rewards)
    for _ in range(300):
        pi = np.exp((q - q.max(axis=1, keepdims=True)) / ALPHA)
        pi /= pi.sum(axis=1, keepdims=True)
        v = (pi * (q - scale * ALPHA * np.log(pi))).sum(axis=1)
        q = mdp.rewards + GAMMA * (mdp.transitions @ v).reshape(q.shape)
    model = make_model(TabularEnv(mdp), critic_ent_coef_scale=scale)
    fill(model, mdp)
    learned, _, policy = tables(train(model))
    soft = soft_value_iteration(mdp, ALPHA).q
    assert np.abs(q - soft).max() > 3 * TOLERANCE * np.ptp(q)  # the factor makes a difference that shows
    assert np.abs(learned - q).max() < TOLERANCE * np.ptp(q)
    assert np.abs(policy - pi).max() < TOLERANCE


@pytest.mark.parametrize(("n_steps", "scale"), [(3, 0.0), (3, 1.0)])
def test_n_steps_without_a_choice(n_steps, scale):
    """
    Where actions change nothing, data of any policy are on-policy, and n steps have the 1-step fixed point for scale 0. With
    the entropy only that of the last state counts: Q(s) = R_n(s) + gamma^n (Q(s_n) + alpha log 2), less than the soft value.
    """
    mdp = ring()
    model = make_model(TabularEnv(mdp), n_steps=n_steps, critic_ent_coef_scale=scale)
    for i in range(20):
        add(model, i % 3, (i * i // 3) % 2, mdp.rewards[i % 3, 0], (i + 1) % 3)
    learned = tables(train(model, rows=np.arange(20 - n_steps + 1)))[0]
    rewards = mdp.rewards[:, 0]
    q = np.zeros(3)
    for _ in range(300):
        q = np.roll(q, -n_steps) + scale * ALPHA * np.log(2)
        for k in reversed(range(n_steps)):
            q = np.roll(rewards, -k) + GAMMA * q
    one_step = soft_value_iteration(mdp, ALPHA if scale else NO_ENTROPY).q
    assert np.allclose(q[:, None], one_step) is (scale == 0.0)
    assert np.abs(learned - q[:, None]).max() < TOLERANCE * np.ptp(q)


def test_n_steps_with_masks():
    """The mask of the state n steps ahead counts; of the actions that it forbids nothing is known."""
    mdp, masks = ring(), np.array([[True, False], [False, True], [True, True]])
    model = make_model(Masked(TabularEnv(mdp), masks), n_steps=3, critic_ent_coef_scale=0.0)
    for i in range(20):
        state, next_state, action = i % 3, (i + 1) % 3, [0, 1, i % 2][i % 3]
        extras = dict(action_masks=masks[[state]], next_action_masks=masks[[next_state]])
        add(model, state, action, mdp.rewards[state, action], next_state, **extras)
    learned = tables(train(model), masks)[0]
    exact = soft_value_iteration(mdp, NO_ENTROPY).q
    assert np.abs(learned - exact)[masks].max() < TOLERANCE * np.ptp(exact)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_n_steps_on_policy(n_steps):
    """
    The buffer holds the uniform policy, and a temperature of 1000 keeps the actor there: on-policy. With scale 0 any number of
    steps, also those that a time limit has cut short, gives the values of the uniform policy without entropy.
    """
    mdp = random_mdp(8, n_states=4, n_actions=2, draws=1)
    model = make_model(TabularEnv(mdp), n_steps=n_steps, critic_ent_coef_scale=0.0, ent_coef=1e3)
    fill_with_episodes(model, mdp)
    q, _, pi = tables(train(model))
    exact = soft_policy_evaluation(mdp, np.full((4, 2), 0.5), NO_ENTROPY)
    assert np.abs(pi - 0.5).max() < TOLERANCE
    assert np.abs(q - exact.q).max() < TOLERANCE * np.ptp(exact.q)


@pytest.mark.parametrize(("n_steps", "scale", "ends"), [(1, 1.0, False), (3, 0.0, True)])
def test_time_limits_bootstrap_and_terminations_do_not(n_steps, scale, ends):
    """Four states in a row that pay 1 each; the last one leads to a terminal state, or to the first. A limit of 3 steps."""
    mdp = row_of_states(ends)
    model = make_model(TimeLimit(TabularEnv(mdp), 3), n_steps=n_steps, critic_ent_coef_scale=scale, learning_starts=200)
    model.learn(200)
    # The last targets have fewer steps than they could: they end with the newest transition
    q = tables(train(model, rows=np.arange(198)))[0]
    exact = soft_value_iteration(mdp, ALPHA if scale else NO_ENTROPY).q
    alive = ~mdp.terminal
    assert exact[alive].max() == pytest.approx(exact[0, 0]) and exact[0, 0] > (2.5 if ends else 4.9)
    assert np.abs(q - exact)[alive].max() < TOLERANCE * exact.max()
