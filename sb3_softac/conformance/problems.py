"""Problems whose soft-optimal answers are known exactly, as environments. Observations are indices of states."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from sb3_softac.conformance.subject import GAMMA
from sb3_softac.tabular import BoltzmannOracle, TabularEnv, TabularMDP

Reward = Callable[[np.ndarray], np.ndarray]

CURVES: dict[str, tuple[int, Reward]] = {
    "one optimum": (1, lambda x: -4.0 * (x[:, 0] - 0.4) ** 2),
    "symmetric": (1, lambda x: -4.0 * x[:, 0] ** 2),
    "two optima": (1, lambda x: 0.3 * x[:, 0] - 3.0 * (x[:, 0] ** 2 - 0.3) ** 2),
    "two dimensions": (2, lambda x: -3.0 * (x[:, 0] - 0.3) ** 2 - 2.0 * (x[:, 1] + 0.2) ** 2 + 2.0 * x[:, 0] * x[:, 1]),
}
"""Rewards of bandits by name: the dimension, and the function of scaled actions ``[n, dim]``."""
LEVELS = np.array([1.0, 0.8, 0.5, 0.1])
"""Rewards of the actions of a discrete bandit."""


class Bandit(gym.Env[Any, Any]):
    """
    State 0 pays for one action, and leads to itself or to the terminal state 1.

    :param reward: Function of actions scaled to [-1, 1] ``[n, dim]``, or of indices ``[n]``, to their rewards ``[n]``.
    :param action_space: Box, with any bounds, or Discrete.
    :param ends: Whether the episode ends after each step.
    """

    def __init__(self, reward: Reward, action_space: spaces.Space, ends: bool = True):
        self.reward, self.ends = reward, ends
        self.observation_space, self.action_space = spaces.Discrete(2), action_space
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if isinstance(self.action_space, spaces.Box):
            low, high = self.action_space.low, self.action_space.high
            action = 2.0 * (np.asarray(action) - low) / (high - low) - 1.0
        return int(self.ends), float(self.reward(np.asarray(action)[None])[0]), self.ends, False, {}


def bandit(name: str) -> Bandit:
    """:return: The bandit of this curve, with bounds that are not symmetric."""
    dim, reward = CURVES[name]
    bounds = np.array([[-1.0, 3.0], [0.0, 0.5]], dtype=np.float32)[:dim]
    return Bandit(reward, spaces.Box(bounds[:, 0], bounds[:, 1]))


def levels(ends: bool = True) -> Bandit:
    """:return: The discrete bandit."""
    return Bandit(LEVELS.__getitem__, spaces.Discrete(len(LEVELS)), ends)


class ContinuousChain(gym.Env[Any, np.ndarray]):
    """
    Two states and a continuous action. Pushing to the right leads to state 1 more likely than not, from both states.

    State 0 pays most for actions near -0.5, state 1 for actions near 0.4, and 1 more: a greedy player stays in state 0.
    """

    peaks, curvatures, bonus = (-0.5, 0.4), (4.0, 8.0), (0.0, 1.0)

    def __init__(self) -> None:
        self.observation_space, self.action_space = spaces.Discrete(2), spaces.Box(-1.0, 1.0, (1,), np.float32)

    @classmethod
    def reward(cls, state: int, a: Any) -> Any:
        return cls.bonus[state] - 0.5 * cls.curvatures[state] * (a - cls.peaks[state]) ** 2

    @staticmethod
    def probability_of_1(a: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-3.0 * a))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(2))
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[int, float, bool, bool, dict[str, Any]]:
        a = float(action[0])
        reward = float(self.reward(self.state, a))
        self.state = int(self.np_random.random() < self.probability_of_1(a))
        return self.state, reward, False, False, {}

    @classmethod
    def solve(cls, alpha: float, gamma: float) -> tuple[np.ndarray, list[BoltzmannOracle]]:
        """:return: Soft values ``[2]`` and policies, by soft value iteration with exact integrals over the action."""
        v = np.zeros(2)
        for _ in range(200):
            oracles = [BoltzmannOracle(cls.q(state, v, gamma), alpha) for state in (0, 1)]
            v = np.array([oracle.soft_value for oracle in oracles])
        return v, oracles

    @classmethod
    def q(cls, state: int, v: np.ndarray, gamma: float) -> Reward:
        def q(actions: np.ndarray) -> np.ndarray:
            p = cls.probability_of_1(actions[:, 0])
            return cls.reward(state, actions[:, 0]) + gamma * ((1.0 - p) * v[0] + p * v[1])

        return q


def random_mdp(seed: int, masked: bool = False) -> tuple[TabularMDP, np.ndarray]:
    """
    :return: Five states and three actions with one next state each, the last state terminal; and the allowed actions. A
        forbidden action pays 3 more than any other.
    """
    rng = np.random.default_rng(1_000 + seed)
    transitions = np.eye(5)[rng.integers(5, size=(5, 3))]
    rewards = rng.normal(size=(5, 3)).clip(-2.0, 2.0)
    allowed = np.ones((5, 3), dtype=bool)
    if masked:
        allowed[np.arange(4), rng.integers(3, size=4)] = False
        rewards[~allowed] = rewards.max() + 3.0
    transitions[4], rewards[4] = np.eye(5)[4], 0.0
    return TabularMDP.from_arrays(transitions, rewards, GAMMA, [4]), allowed


class Masked(gym.Wrapper[Any, Any, Any, Any]):
    """A mask for each state, by sb3-contrib's protocol. Counts the forbidden actions that are taken."""

    def __init__(self, env: gym.Env[Any, Any], allowed: np.ndarray):
        super().__init__(env)
        self.allowed, self.violations = allowed, 0

    def _state(self) -> int:
        return getattr(self.unwrapped, "state", 0)

    def action_masks(self) -> np.ndarray:
        return self.allowed[self._state()]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.violations += not self.allowed[self._state(), int(action)]
        return super().step(action)


class Row(TabularEnv):
    """
    States in a row, each paying its number plus 1, whatever the action, whose values show what the end of an episode counts
    for.

    :param kind: ``"Box"`` or ``"Discrete"``: what the action is that does not matter.
    :param ends: Whether the last state leads to a terminal one, instead of back to the first.
    :param start: The first state of each episode; None for any.
    """

    n_states = 5

    def __init__(self, kind: str, ends: bool, start: int | None = None):
        n = self.n_states
        transitions, rewards = np.roll(np.eye(n + ends), 1, axis=1), np.arange(1.0, n + ends + 1)
        if ends:
            transitions[n], rewards[n] = np.eye(n + 1)[n], 0.0
        initial = None if start is None else np.eye(n + ends)[start]
        super().__init__(TabularMDP.from_arrays(transitions[:, None], rewards[:, None], GAMMA, [n] * ends, initial))
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if kind == "Box" else spaces.Discrete(2)

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return super().step(0)


def row(kind: str, ends: bool, limit: int | None = None, start: int | None = None) -> gym.Env[Any, Any]:
    env = Row(kind, ends, start)
    return env if limit is None else TimeLimit(env, limit)
