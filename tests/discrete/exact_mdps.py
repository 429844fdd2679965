"""
Small MDPs, their exact solutions, and models of discrete algorithms that are tables.

Without hidden layers and with one-hot states the networks are tables. The replay buffer holds every state and action, each
with ten next states in the very proportions of the transition matrix, and every gradient step takes all of it: what remains is
the fixed point of the equations, with no noise to hide an error.
"""

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from sb3_softac import DiscreteSAC
from sb3_softac.replay.buffer import with_extras
from sb3_softac.tabular import TabularEnv, TabularMDP

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


def make_model(algorithm, env, **kwargs):
    policy_kwargs = dict(net_arch=[], **kwargs.pop("policy_kwargs", {}))
    given = dict(ent_coef=ALPHA, gamma=GAMMA, tau=0.3, buffer_size=5_000, seed=0, device="cpu")
    model = algorithm("MlpPolicy", env, policy_kwargs=policy_kwargs, **{**given, **kwargs})
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


def train(model, rows=None, steps=300):
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
    masks = None if masks is None else th.as_tensor(masks)
    with th.no_grad():
        log_pi, q = model.policy.log_pi(obs, masks), model.critic(obs)
        q = model._aggregate(q, log_pi) if isinstance(model, DiscreteSAC) else model.policy.smallest_q(q, masks)
    q, pi = joint(model, q), np.exp(joint(model, log_pi))
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


def ring(n_actions=2) -> TabularMDP:
    """Three states in a ring, whatever the action: a chain without a choice."""
    transitions = np.repeat(np.roll(np.eye(3), 1, axis=1)[:, None], n_actions, axis=1)
    return TabularMDP.from_arrays(transitions, np.repeat([[1.0], [-2.0], [4.0]], n_actions, axis=1), GAMMA)


def row_of_states(ends: bool) -> TabularMDP:
    """States in a row that pay 1 each, whatever the action; the last one leads to the first, or to a terminal state."""
    transitions = np.repeat(np.roll(np.eye(5), 1, axis=1)[:, None], 2, axis=1)
    rewards = np.ones((5, 2))
    if ends:
        transitions[4], rewards[4] = np.eye(5)[4], 0.0
    return TabularMDP.from_arrays(transitions, rewards, GAMMA, [4] if ends else [])


def fill_with_episodes(model, mdp, length=3) -> None:
    """Every state followed by every sequence of actions, cut off by a time limit: the uniform policy, without noise."""
    next_states = mdp.transitions.toarray().reshape(*mdp.rewards.shape, -1).argmax(axis=-1)
    for start, *actions in np.ndindex(mdp.n_states, *[mdp.n_actions] * length):
        state = start
        for i, action in enumerate(actions):
            next_state, last = next_states[state, action], i == length - 1
            add(model, state, action, mdp.rewards[state, action], next_state, last, last)
            state = next_state
