"""Finite Markov decision processes as arrays."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from scipy import sparse


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """
    A finite MDP. Transitions are sparse, so that 100000 states do not need a dense ``P``.

    :param transitions: Probabilities ``[n_states * n_actions, n_states]``, row ``s * n_actions + a``.
    :param rewards: Expected rewards ``[n_states, n_actions]``.
    :param discount: Discount factor in [0, 1).
    :param terminal: Which states end the episode ``[n_states]``. Nothing is earned there, not even entropy: their value is 0.
    :param initial: Probabilities of the first state ``[n_states]``.
    :raises ValueError: if a shape, a probability, the discount or a terminal state is invalid; the message names the first
        such index.
    """

    transitions: sparse.csr_matrix
    rewards: np.ndarray
    discount: float
    terminal: np.ndarray
    initial: np.ndarray

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount < 1.0:
            raise ValueError(f"discount must be in [0, 1), got {self.discount}")
        if self.rewards.ndim != 2 or self.transitions.shape != (self.rewards.size, len(self.rewards)):
            raise ValueError(
                f"rewards must be [n_states, n_actions] and transitions [n_states * n_actions, n_states], "
                f"got {self.rewards.shape} and {self.transitions.shape}"
            )
        for name in ("terminal", "initial"):
            if getattr(self, name).shape != (self.n_states,):
                raise ValueError(f"{name} must be [{self.n_states}], got {getattr(self, name).shape}")
        self._check_probabilities()
        self._check_terminal_states()

    @property
    def n_states(self) -> int:
        """Number of states, terminal ones included."""
        return self.rewards.shape[0]

    @property
    def n_actions(self) -> int:
        """Number of actions in every state."""
        return self.rewards.shape[1]

    @classmethod
    def from_arrays(
        cls,
        transitions: np.ndarray | sparse.spmatrix,
        rewards: np.ndarray,
        discount: float,
        terminal: np.ndarray | list[int] | int | None = None,
        initial: np.ndarray | None = None,
    ) -> "TabularMDP":
        """
        Probabilities may have any floating-point type. Those of lower precision than double, even if they have been converted
        since, sum to 1 only up to rounding errors, and are divided by their sums.

        :param transitions: Dense probabilities ``[n_states, n_actions, n_states]``, or sparse ones
            ``[n_states * n_actions, n_states]``.
        :param rewards: Expected rewards ``[n_states, n_actions]``.
        :param discount: Discount factor in [0, 1).
        :param terminal: Indices of the terminal states, or one boolean for each state; none by default.
        :param initial: Probabilities of the first state ``[n_states]``; by default uniform over states that are not terminal.
        :return: The MDP.
        :raises ValueError: as the class.
        """
        rewards = np.asarray(rewards, dtype=np.float64)
        if rewards.ndim != 2:
            raise ValueError(
                f"rewards must be [n_states, n_actions], got {rewards.shape}: where they depend on the next state, pass their "
                "expectation, (transitions * rewards).sum(axis=2)"
            )
        if not sparse.issparse(transitions):
            transitions = np.asarray(transitions)
            if transitions.shape != (*rewards.shape, len(rewards)):
                raise ValueError(
                    f"transitions must be [n_states, n_actions, n_states], {(*rewards.shape, len(rewards))} with the shape of "
                    f"the rewards, got {transitions.shape}"
                )
            transitions = transitions.reshape(rewards.size, len(rewards))
        ends = np.zeros(len(rewards), dtype=bool)
        given = np.asarray(terminal if isinstance(terminal, np.ndarray | int | np.integer) else list(terminal or []))
        if given.dtype == bool and given.shape != ends.shape:
            raise ValueError(f"terminal must be indices of states, or one boolean for each of the {len(ends)} states")
        for state in np.flatnonzero(given) if given.dtype == bool else given.ravel():
            if state not in range(len(rewards)):
                raise ValueError(f"terminal must be indices of the {len(rewards)} states, got {state}")
            ends[int(state)] = True
        if initial is None:
            initial = ~ends / max((~ends).sum(), 1)
        first = np.asarray(in_double_precision(np.asarray(initial)))
        return cls(sparse.csr_matrix(in_double_precision(transitions)), rewards, discount, ends, first)

    @classmethod
    def from_gymnasium(cls, env: gym.Env | str, discount: float) -> "TabularMDP":
        """
        Read one of Gymnasium's toy-text environments (FrozenLake, CliffWalking, Taxi).

        They mark transitions as terminal, not states. All such transitions lead to one state that is added at the end. A time
        limit is left out: it is not part of the MDP.

        :param env: The environment, or its registered name.
        :param discount: Discount factor in [0, 1).
        :return: The MDP, which has one more state than the environment.
        :raises ValueError: if the environment has no table ``P``, or no ``initial_state_distrib``.
        """
        table_env: Any = (gym.make(env) if isinstance(env, str) else env).unwrapped
        table = getattr(table_env, "P", None)
        if table is None:
            raise ValueError(f"{env} has no transition table P: use a toy-text environment or TabularMDP.from_arrays")
        n_states, n_actions = len(table), len(table[0])
        rewards = np.zeros((n_states + 1, n_actions))
        rows, columns, values = [], [], []
        for state in range(n_states):
            for action in range(n_actions):
                for probability, next_state, reward, terminated in table[state][action]:
                    rewards[state, action] += probability * reward
                    rows.append(state * n_actions + action)
                    columns.append(n_states if terminated else next_state)
                    values.append(probability)
        end = n_states * n_actions + np.arange(n_actions)
        rows, columns = [*rows, *end], [*columns, *[n_states] * n_actions]
        if not hasattr(table_env, "initial_state_distrib"):
            raise ValueError(f"{env} has no initial_state_distrib, the probabilities of its first state [n_states]")
        given, given_initial = np.asarray(values), np.asarray(table_env.initial_state_distrib)  # in their own precision
        shape = ((n_states + 1) * n_actions, n_states + 1)
        transitions = sparse.csr_matrix((np.append(given, np.ones(n_actions, given.dtype)), (rows, columns)), shape=shape)
        initial = np.append(given_initial, np.zeros(1, given_initial.dtype))
        return cls.from_arrays(transitions, rewards, discount, [n_states], initial)

    def _check_probabilities(self) -> None:
        if not np.isfinite(self.rewards).all():
            state, action = np.argwhere(~np.isfinite(self.rewards))[0]
            raise ValueError(f"the reward of state {state}, action {action} is not finite: {self.rewards[state, action]}")
        data = self.transitions.data
        wrong = ~(data >= 0)  # also true for NaN
        if wrong.any():
            state, action = divmod(int(self._row_of_entries()[wrong][0]), self.n_actions)
            raise ValueError(f"state {state}, action {action} has a transition probability of {data[wrong][0]}")
        sums = np.asarray(self.transitions.sum(axis=1)).ravel()
        wrong = np.abs(sums - 1.0) > 1e-8
        if wrong.any():
            state, action = divmod(int(np.argmax(wrong)), self.n_actions)
            raise ValueError(f"the transition probabilities of state {state}, action {action} sum to {sums[wrong][0]}, not 1")
        wrong = ~(self.initial >= 0)
        if wrong.any():
            raise ValueError(f"state {np.argmax(wrong)} has an initial probability of {self.initial[wrong][0]}")
        if abs(self.initial.sum() - 1.0) > 1e-8:
            raise ValueError(f"the initial probabilities sum to {self.initial.sum()}, not 1")

    def _check_terminal_states(self) -> None:
        rows = self._row_of_entries()
        stays = self.transitions.indices == rows // self.n_actions
        stay = np.bincount(rows[stays], weights=self.transitions.data[stays], minlength=self.rewards.size)
        leaks = self.terminal[:, None] & (stay.reshape(self.rewards.shape) < 1.0 - 1e-8)
        if leaks.any():
            state, action = np.argwhere(leaks)[0]
            raise ValueError(
                f"terminal state {state} can be left by action {action}: it must lead back to itself with probability 1"
            )
        pays = self.terminal[:, None] & (self.rewards != 0)
        if pays.any():
            state, action = np.argwhere(pays)[0]
            raise ValueError(
                f"terminal state {state} pays a reward for action {action}: put it on the transitions that lead there"
            )

    def _row_of_entries(self) -> np.ndarray:
        return np.repeat(np.arange(self.rewards.size), np.diff(self.transitions.indptr))


def in_double_precision(probabilities: np.ndarray | sparse.spmatrix) -> np.ndarray | sparse.spmatrix:
    """
    Distributions, one per row, in double precision. Rows that sum to 1 only up to the rounding of a lower precision are
    divided by their sums.
    """
    result, kind = probabilities.astype(np.float64), probabilities.dtype
    if not np.issubdtype(kind, np.floating):
        return result
    # Doubles may have been read from a table in single precision, and are left alone where they are exact
    single = float(np.finfo(np.float32).eps)
    least, most = (1e-8, 2.0 * single) if kind.itemsize >= 8 else (0.0, 32.0 * float(np.finfo(kind).eps))
    sums = np.asarray(result.sum(axis=-1))
    error = np.abs(sums - 1.0)
    if not (error > least).any():
        return result
    divisors = np.where((error > least) & (error <= most), sums, 1.0)
    return sparse.diags(1.0 / divisors.ravel()) @ result if sparse.issparse(result) else result / divisors[..., None]
