"""Several steps: soft value iteration, and what the ends of episodes count for."""

from functools import cache, lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.special import xlogy

from sb3_softac.conformance.bandits import worst
from sb3_softac.conformance.check import Measurement, check
from sb3_softac.conformance.problems import ContinuousChain, Masked, Row, random_mdp, row
from sb3_softac.conformance.references import divergence_from_counts, divergence_from_samples
from sb3_softac.conformance.subject import GAMMA, Make, NotApplicable, Subject
from sb3_softac.tabular import BoltzmannOracle, SoftSolution, TabularEnv, TabularMDP, soft_value_iteration

ALPHA = 1.0
"""Temperature at which the entropy is a large part of the values."""
NO_ENTROPY = 1e-3
"""Temperature at which the entropy no longer counts."""
FORBIDDEN = -1e6
"""Reward that removes an action from a soft-optimal policy."""
GRID = np.linspace(-0.8, 0.8, 37)[:, None]
SAMPLES = 4_000


@lru_cache(maxsize=2)
def chain(make: Make, seed: int) -> Subject:
    model = make(ContinuousChain(), seed, ent_coef=ALPHA, learning_starts=1_200)
    model.learn(4_500)
    return model


@cache
def exact_chain() -> tuple[np.ndarray, list[BoltzmannOracle]]:
    return ContinuousChain.solve(ALPHA, GAMMA)


@check("Box")
def chain_q(make: Make, seed: int) -> Measurement:
    """The critics do not learn reward + gamma V: the backup, its discount or its entropy is wrong."""
    model, (v, _) = chain(make, seed), exact_chain()
    exact = np.concatenate([ContinuousChain.q(state, v, GAMMA)(GRID) for state in (0, 1)])
    learned = np.concatenate([model.q(np.full(37, state), GRID).mean(axis=0) for state in (0, 1)])
    return worst(exact, learned, 0.15)


@check("Box")
def chain_policy(make: Make, seed: int) -> Measurement:
    """The policy of a state does not look ahead as exp(Q / alpha) does."""
    model, (_, oracles) = chain(make, seed), exact_chain()
    found = [divergence_from_samples(oracles[s], model.act(np.full(20_000, s))) for s in (0, 1)]
    value, interval = max(found)
    return Measurement(0.0, value, 0.1, interval)


@lru_cache(maxsize=2)
def mdp(make: Make, seed: int, masked: bool = False) -> tuple[Subject, SoftSolution, Masked]:
    problem, allowed = random_mdp(seed, masked)
    inside = TabularMDP(
        problem.transitions, np.where(allowed, problem.rewards, FORBIDDEN), GAMMA, problem.terminal, problem.initial
    )
    env = Masked(TabularEnv(problem), allowed)
    model = make(gym.wrappers.TimeLimit(env if masked else env.env, 20), seed, ent_coef=ALPHA, learning_starts=700)
    if masked and not model.accepts_masks():
        raise NotApplicable("takes no action_masks")
    model.learn(2_000)
    return model, soft_value_iteration(inside, ALPHA), env


def _frequencies(model: Subject, n_states: int, masks: np.ndarray | None = None) -> np.ndarray:
    """:return: How often each action is drawn in each state that is not terminal ``[n_states, 3]``."""
    rows = [np.full(SAMPLES, state) for state in range(n_states)]
    chosen = [model.act(each, masks=None if masks is None else masks[each]) for each in rows]
    return np.stack([np.bincount(each, minlength=3) for each in chosen])


@check("Discrete")
def mdp_q(make: Make, seed: int) -> Measurement:
    """The critics do not learn reward + gamma V of soft value iteration: the backup or its entropy is wrong."""
    model, solution, _ = mdp(make, seed)
    return worst(solution.q[:4], model.q(range(4)).mean(axis=0), 0.05)


@check("Discrete")
def mdp_value(make: Make, seed: int) -> Measurement:
    """Policy and critics do not belong together: E[Q - alpha log pi] is not the value of soft value iteration."""
    model, solution, _ = mdp(make, seed)
    pi = _frequencies(model, 4) / SAMPLES
    return worst(solution.v[:4], (pi * model.q(range(4)).mean(axis=0) - ALPHA * xlogy(pi, pi)).sum(axis=1), 0.05)


def _mdp_policy(model: Subject, solution: SoftSolution, masks: np.ndarray | None = None) -> Measurement:
    found = [
        divergence_from_counts(counts, np.maximum(pi, 1e-12))
        for counts, pi in zip(_frequencies(model, 4, masks), solution.pi, strict=False)
    ]
    value, interval = max(found)
    return Measurement(0.0, value, 0.03, interval)


@check("Discrete")
def mdp_policy(make: Make, seed: int) -> Measurement:
    """The policy of some state is not softmax(Q / alpha) of soft value iteration."""
    model, solution, _ = mdp(make, seed)
    return _mdp_policy(model, solution)


@check("Discrete")
def mask_violations(make: Make, seed: int) -> Measurement:
    """Forbidden actions are taken, during training or by predict."""
    model, _, env = mdp(make, seed, masked=True)
    predicted = _frequencies(model, 4, env.allowed)[~env.allowed[:4]].sum()
    return Measurement(0.0, float(env.violations + predicted), 0.0)


@check("Discrete")
def mask_q(make: Make, seed: int) -> Measurement:
    """Forbidden actions count in the value of the next state: the mask is used for acting alone."""
    model, solution, env = mdp(make, seed, masked=True)
    return worst(solution.q[:4][env.allowed[:4]], model.q(range(4)).mean(axis=0)[env.allowed[:4]], 0.05)


@check("Discrete")
def mask_policy(make: Make, seed: int) -> Measurement:
    """Among the allowed actions the policy is not softmax(Q / alpha)."""
    model, solution, env = mdp(make, seed, masked=True)
    return _mdp_policy(model, solution, env.allowed)


def _learned(make: Make, env: Any, seed: int, steps: int = 1_000, **settings: Any) -> Subject:
    model = make(env, seed, ent_coef=NO_ENTROPY, **settings)
    model.learn(steps)
    return model


def _values(model: Subject, n_states: int) -> np.ndarray:
    """:return: Q-values of the first states of a row, of whichever action ``[n_states]``."""
    actions = None if model.model.action_space.shape == () else np.zeros((n_states, 1))
    return model.q(range(n_states), actions).mean(axis=0).reshape(n_states, -1)[:, 0]


def _row(make: Make, env: Any, exact: TabularMDP, seed: int, **settings: Any) -> Measurement:
    n_states = int((~exact.terminal).sum())
    solved = soft_value_iteration(exact, NO_ENTROPY).q[:n_states, 0]
    values = _values(_learned(make, env, seed, **settings), n_states)
    return worst(solved, values, 0.05, scale=float(solved.max()))


@check("Box", "Discrete")
def terminal_state(make: Make, seed: int, kind: str) -> Measurement:
    """Rewards after a terminal state are counted, or values do not propagate back along the row."""
    return _row(make, row(kind, ends=True), Row(kind, ends=True).mdp, seed)


@check("Box", "Discrete")
def time_limit(make: Make, seed: int, kind: str) -> Measurement:
    """A time limit counts as an end: the value after it is missing, or it is that of the next episode's first state."""
    return _row(make, row(kind, ends=False, limit=4), Row(kind, ends=False).mdp, seed)


@check("Box", "Discrete")
def time_limit_as_end(make: Make, seed: int, kind: str) -> Measurement:
    """With handle_timeout_termination=False a time limit still does not count as an end."""
    exact = Row(kind, ends=True).mdp
    ignored = dict(handle_timeout_termination=False)
    return _row(make, row(kind, ends=False, limit=5, start=0), exact, seed, replay_buffer_kwargs=ignored)


@check("Box", "Discrete")
def n_steps(make: Make, seed: int, kind: str) -> Measurement:
    """n-step targets reach across the end of an episode, or discount what they bootstrap from by the wrong power of gamma."""
    return _row(make, row(kind, ends=True, limit=3), Row(kind, ends=True).mdp, seed, n_steps=3)


@check("Box", "Discrete")
def n_steps_are_taken(make: Make, seed: int, kind: str) -> Measurement:
    """n_steps is accepted and ignored: with targets that stay where they started, near 0, too few rewards count."""
    env = Row(kind, ends=True)
    rewards = np.append(env.mdp.rewards[:, 0], np.zeros(2))
    summed = np.array([GAMMA ** np.arange(3) @ rewards[i : i + 3] for i in range(env.n_states)])
    model = _learned(make, env, seed, n_steps=3, tau=0.0)
    return worst(summed, _values(model, env.n_states), 0.1, scale=float(summed.max()))


@check("Box", "Discrete")
def several_environments(make: Make, seed: int, kind: str) -> Measurement:
    """Transitions of environments that run side by side are mixed up."""
    return _row(make, [lambda: row(kind, ends=True, limit=3)] * 3, Row(kind, ends=True).mdp, seed, steps=3_000)
