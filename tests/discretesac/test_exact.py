"""
DiscreteSAC against exact solutions of small MDPs.

Without hidden layers and with one-hot states the networks are tables. The replay buffer holds every state and action, each
with ten next states in the very proportions of the transition matrix, and every gradient step takes all of it: what remains is
the fixed point of the equations, with no noise to hide an error. The last test does without these aids.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.logger import Logger

from sb3_softac import DiscreteSAC
from sb3_softac.replay.buffer import with_extras
from sb3_softac.tabular import TabularEnv, TabularMDP, soft_policy_evaluation, soft_value_iteration

ALPHA, GAMMA = 0.3, 0.8
TOLERANCE = 0.02  # of the range of the values; of the probabilities
DRAWS = 10  # next states per state and action in the replay buffer
FORBIDDEN = -1e6  # reward that removes an action from a soft-optimal policy
NO_ENTROPY = 1e-9  # temperature at which the entropy no longer counts


def random_mdp(seed, n_states=5, n_actions=3, terminal=(), draws=DRAWS) -> TabularMDP:
    """Transition probabilities are multiples of 1 / draws; draws=1 makes it deterministic."""
    rng = np.random.default_rng(seed)
    transitions = rng.multinomial(draws, np.full(n_states, 1 / n_states), size=(n_states, n_actions)) / draws
    rewards = rng.normal(size=(n_states, n_actions))
    for state in terminal:
        transitions[state], rewards[state] = np.eye(n_states)[state], 0.0
    return TabularMDP.from_arrays(transitions, rewards, GAMMA, list(terminal))


def with_rewards(mdp: TabularMDP, rewards) -> TabularMDP:
    return TabularMDP(mdp.transitions, rewards, mdp.discount, mdp.terminal, mdp.initial)


class FactoredEnv(TabularEnv):
    """The actions of the MDP as combinations of options."""

    def __init__(self, mdp, sizes):
        super().__init__(mdp)
        self.sizes, self.action_space = sizes, spaces.MultiDiscrete(sizes)

    def step(self, action):
        return super().step(int(np.ravel_multi_index(tuple(action), self.sizes)))


class Masked(gym.Wrapper):
    """One mask per state."""

    def __init__(self, env, masks):
        super().__init__(env)
        self.masks = masks

    def action_masks(self):
        return self.masks[self.unwrapped.state]


def make_model(env, **kwargs) -> DiscreteSAC:
    policy_kwargs = dict(net_arch=[], **kwargs.pop("policy_kwargs", {}))
    given = dict(ent_coef=ALPHA, gamma=GAMMA, tau=0.1, buffer_size=5_000, seed=0, device="cpu")
    model = DiscreteSAC("MlpPolicy", env, policy_kwargs=policy_kwargs, **{**given, **kwargs})
    model.set_logger(Logger(None, []))
    return model


def add(model, state, action, reward, next_state, done=False, timeout=False, **extras) -> None:
    arrays = [np.array([value]) for value in (state, next_state, action, reward, done)]
    model.replay_buffer.add(*arrays, with_extras([{"TimeLimit.truncated": timeout}], extras))


def fill(model, mdp, masks=None) -> None:
    """Every state that is not terminal, every action, also the forbidden ones, and ten next states."""
    space = model.action_space
    probabilities = mdp.transitions.toarray().reshape(*mdp.rewards.shape, -1)
    for state, action, next_state in np.argwhere(probabilities > 0):
        if mdp.terminal[state]:
            continue
        taken = np.unravel_index(action, space.nvec) if isinstance(space, spaces.MultiDiscrete) else action
        extras = {} if masks is None else dict(action_masks=masks[[state]], next_action_masks=masks[[next_state]])
        for _ in range(round(probabilities[state, action, next_state] * DRAWS)):
            add(model, state, taken, mdp.rewards[state, action], next_state, mdp.terminal[next_state], **extras)


def train(model, rows=None, steps=600) -> DiscreteSAC:
    """Gradient steps on the whole buffer, or on those rows of it, with a falling learning rate."""
    buffer = model.replay_buffer
    batch = buffer._get_samples(np.arange(buffer.size()) if rows is None else rows)
    buffer.sample = lambda *args, **kwargs: batch
    for learning_rate, part in ((0.1, 0.5), (0.02, 0.2), (0.005, 0.2), (0.0005, 0.1)):
        model.lr_schedule = lambda _, value=learning_rate: value
        model.train(int(steps * part))
    return model


def joint(model, vector) -> np.ndarray:
    """One entry per combination of options, the sum of theirs."""
    total, *others = vector.split(model.branches.sizes, dim=-1)
    for branch in others:
        total = (total[:, :, None] + branch[:, None, :]).flatten(1)
    return total.double().numpy()


def tables(model, masks=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Learned Q, V and pi of all states. V is computed from Q and pi here, not by the package."""
    obs = th.arange(model.observation_space.n).unsqueeze(1)
    with th.no_grad():
        log_pi = model.actor.log_probs(model.actor.features(obs), None if masks is None else th.as_tensor(masks))
        q, pi = joint(model, model._aggregate(model.critic(obs), log_pi)), np.exp(joint(model, log_pi))
    v = (pi * (q - ALPHA * np.log(np.maximum(pi, 1e-300)))).sum(axis=1)
    return q, v, pi


def assert_solved(model, mdp, solution, masks=None, allowed=None) -> None:
    alive = ~mdp.terminal
    counted = np.broadcast_to(alive[:, None], mdp.rewards.shape) if allowed is None else allowed & alive[:, None]
    q, v, pi = tables(model, masks)
    value_range = np.ptp(solution.q[counted])
    assert np.abs(q - solution.q)[counted].max() < TOLERANCE * value_range
    assert np.abs(v - solution.v)[alive].max() < TOLERANCE * np.ptp(solution.v[alive])
    assert np.abs(pi - solution.pi)[alive].max() < TOLERANCE


@pytest.mark.parametrize(
    ("seed", "terminal", "kwargs"),
    [
        (0, (), dict()),
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


def test_forbidden_actions_do_not_tempt():
    """Forbidden actions are in the buffer too, and pay 10: in the next state's value or the policy they would show."""
    mdp = random_mdp(5, n_actions=4)
    masks = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [1, 0, 0, 1]], dtype=bool)
    tempting = with_rewards(mdp, np.where(masks, mdp.rewards, 10.0))
    model = make_model(Masked(TabularEnv(tempting), masks))
    fill(model, tempting, masks)
    exact = soft_value_iteration(with_rewards(mdp, np.where(masks, mdp.rewards, FORBIDDEN)), ALPHA)
    assert_solved(train(model), mdp, exact, masks, masks)
    assert (tables(model, masks)[2][~masks] == 0.0).all()


def test_masked_exploration_with_time_limits():
    """
    The environment fills the buffer. Allowed actions cost 1 to 2, so one of which nothing is known (Q near 0) would tempt. A
    time limit ends the episodes after 3 steps; the mask of their last state, not that of the next episode's first, counts.
    """
    rng = np.random.default_rng(6)
    mdp = with_rewards(random_mdp(6, n_states=4, draws=1), -1.0 - rng.random((4, 3)))
    masks = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=bool)
    model = make_model(TimeLimit(Masked(TabularEnv(mdp), masks), 3), learning_starts=600)
    model.learn(600)
    taken = np.zeros_like(masks)
    taken[model.replay_buffer.observations[:600, 0, 0], model.replay_buffer.actions[:600, 0, 0]] = True
    np.testing.assert_array_equal(taken, masks)
    exact = soft_value_iteration(with_rewards(mdp, np.where(masks, mdp.rewards, FORBIDDEN)), ALPHA)
    assert_solved(train(model), mdp, exact, masks, masks)


def factored_problem(masked: bool):
    """
    Rewards are sums over the branches and transitions do not depend on the action, so the optimal Q-value is such a sum too.

    :return: The MDP over combinations of options, the branch sizes, and the masks of options and of combinations.
    """
    rng, sizes = np.random.default_rng(7), [2, 3]
    parts = [rng.normal(size=(4, size)) for size in sizes]
    masks = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [1, 0, 1, 1, 1]], dtype=bool)
    if not masked:
        masks = np.ones_like(masks)
    parts = [np.where(mask, part, 10.0) for mask, part in zip(np.split(masks, [2], axis=1), parts, strict=True)]
    rewards = (parts[0][:, :, None] + parts[1][:, None, :]).reshape(4, 6)
    allowed = (masks[:, :2, None] & masks[:, None, 2:]).reshape(4, 6)
    next_states = rng.multinomial(DRAWS, np.full(4, 0.25), size=4) / DRAWS
    mdp = TabularMDP.from_arrays(np.repeat(next_states[:, None], 6, axis=1), rewards, GAMMA)
    return mdp, sizes, masks, allowed


@pytest.mark.parametrize(
    ("kwargs", "masked"),
    [(dict(policy_kwargs=dict(n_critics=1)), False), (dict(), True)],
    ids=["one critic", "min"],
)
def test_factored_actions_equal_the_flattened_solution(kwargs, masked):
    mdp, sizes, masks, allowed = factored_problem(masked)
    env = FactoredEnv(mdp, sizes)
    model = make_model(Masked(env, masks) if masked else env, **kwargs)
    fill(model, mdp, masks if masked else None)
    exact = soft_value_iteration(with_rewards(mdp, np.where(allowed, mdp.rewards, FORBIDDEN)), ALPHA)
    train(model, steps=1_000 if masked else 600)
    assert_solved(model, mdp, exact, masks if masked else None, allowed)


def ring(n_actions=2) -> TabularMDP:
    """Three states in a ring, whatever the action: a chain without a choice."""
    transitions = np.repeat(np.roll(np.eye(3), 1, axis=1)[:, None], n_actions, axis=1)
    return TabularMDP.from_arrays(transitions, np.repeat([[1.0], [-2.0], [4.0]], n_actions, axis=1), GAMMA)


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


def fill_with_episodes(model, mdp, length=3) -> None:
    """Every state followed by every sequence of actions, cut off by a time limit: the uniform policy, without noise."""
    next_states = mdp.transitions.toarray().reshape(*mdp.rewards.shape, -1).argmax(axis=-1)
    for start, *actions in np.ndindex(mdp.n_states, *[mdp.n_actions] * length):
        state = start
        for i, action in enumerate(actions):
            next_state, last = next_states[state, action], i == length - 1
            add(model, state, action, mdp.rewards[state, action], next_state, last, last)
            state = next_state


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


def test_n_steps_off_policy_are_biased():
    """The same data under an actor that has a preference: the later rewards are those of the uniform policy, not its own."""
    mdp, learned = random_mdp(8, n_states=4, n_actions=2, draws=1), {}
    for n_steps in (1, 3):
        model = make_model(TabularEnv(mdp), n_steps=n_steps, critic_ent_coef_scale=0.0, ent_coef=0.01)
        fill_with_episodes(model, mdp)
        learned[n_steps] = tables(train(model))[0]
    exact = soft_value_iteration(mdp, NO_ENTROPY)  # at this temperature the policy is all but greedy
    assert np.abs(learned[1] - exact.q).max() < TOLERANCE * np.ptp(exact.q)
    assert (learned[3] - exact.q).max() < TOLERANCE * np.ptp(exact.q)  # nobody does better than greedy
    assert (learned[3] - exact.q).min() < -5 * TOLERANCE * np.ptp(exact.q)


@pytest.mark.parametrize(("n_steps", "scale", "ends"), [(1, 1.0, False), (3, 0.0, True)])
def test_time_limits_bootstrap_and_terminations_do_not(n_steps, scale, ends):
    """Four states in a row that pay 1 each; the last one leads to a terminal state, or to the first. A limit of 3 steps."""
    transitions = np.repeat(np.roll(np.eye(5), 1, axis=1)[:, None], 2, axis=1)
    rewards = np.ones((5, 2))
    if ends:
        transitions[4], rewards[4] = np.eye(5)[4], 0.0
    mdp = TabularMDP.from_arrays(transitions, rewards, GAMMA, [4] if ends else [])
    model = make_model(TimeLimit(TabularEnv(mdp), 3), n_steps=n_steps, critic_ent_coef_scale=scale, learning_starts=200)
    model.learn(200)
    # The last targets have fewer steps than they could: they end with the newest transition
    q = tables(train(model, rows=np.arange(198)))[0]
    exact = soft_value_iteration(mdp, ALPHA if scale else NO_ENTROPY).q
    alive = ~mdp.terminal
    assert exact[alive].max() == pytest.approx(exact[0, 0]) and exact[0, 0] > (2.5 if ends else 4.9)
    assert np.abs(q - exact)[alive].max() < TOLERANCE * exact.max()


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_learning_as_users_do(masked):
    """Environment steps and random batches; only the networks are tables still."""
    mdp = random_mdp(9, n_states=5, n_actions=3, terminal=(4,), draws=1)
    masks = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1]], dtype=bool)
    if not masked:
        masks = np.ones_like(masks)
    env = TimeLimit(Masked(TabularEnv(mdp), masks) if masked else TabularEnv(mdp), 20)
    model = make_model(env, learning_rate=lambda left: 1e-4 + 0.02 * left**2, random_steps=4_000, learning_starts=100)
    model.learn(8_000)
    exact = soft_value_iteration(with_rewards(mdp, np.where(masks | mdp.terminal[:, None], mdp.rewards, FORBIDDEN)), ALPHA)
    assert_solved(model, mdp, exact, masks if masked else None, masks)
