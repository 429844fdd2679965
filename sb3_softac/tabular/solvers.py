"""
Soft policy evaluation, improvement and iteration (arXiv:1801.01290v2, lemmas 1 and 2, theorem 1), and soft value iteration.

Every result includes a bound on its error: state values that change by at most d in a sweep are at most gamma / (1 - gamma) d
away from the fixed point, because the backup is a gamma-contraction in the maximum norm. A sweep in float64 has a rounding
error, e, which adds e / (1 - gamma). Without this term, large values could stop changing far from the fixed point and still be
certified. The rounding error is estimated from the magnitudes of everything that a sweep adds, because rewards may cancel one
another or the entropy and leave small values with large errors.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import gmres

from sb3_softac.checks import integer, number, read
from sb3_softac.tabular.equations import soft_bellman_backup, soft_policy, soft_value, soft_value_of_policy
from sb3_softac.tabular.mdp import TabularMDP, in_double_precision

TOLERANCE = 1e-10
ROUNDING = 2 * np.finfo(np.float64).eps  # of a sweep, relative to what it adds: discount, product, sum and logarithm


@dataclass(frozen=True, eq=False)
class SoftSolution:
    """
    The result of a solver.

    :param q: Soft Q-values ``[n_states, n_actions]``, in units of reward.
    :param v: Soft state values ``[n_states]``; 0 in terminal states.
    :param pi: Action probabilities ``[n_states, n_actions]``.
    :param residuals: Largest change of a state value in each sweep (for soft policy iteration: in each improvement).
    :param error_bound: Bound on the distance between ``v`` and the exact values, in the maximum norm; the share of
        rounding errors in it is an estimate.
    :param converged: Whether the bound is within the tolerance.
    """

    q: np.ndarray
    v: np.ndarray
    pi: np.ndarray
    residuals: np.ndarray
    error_bound: float
    converged: bool


@dataclass(frozen=True)
class _Criterion:
    """When state values are good enough; ``added`` is the largest sum of magnitudes that a sweep adds to them."""

    discount: float
    tolerance: float
    added: float

    def rounding(self, v: np.ndarray) -> float:
        return ROUNDING * (float(np.abs(v).max()) + self.added)

    def error_bound(self, v: np.ndarray, residual: float) -> float:
        return (self.discount * residual + self.rounding(v)) / (1.0 - self.discount)

    def settled(self, v: np.ndarray, residual: float) -> bool:
        """Whether the error is within the tolerance, or only rounding errors still change."""
        return self.error_bound(v, residual) <= self.tolerance or residual <= self.rounding(v)


def soft_value_iteration(
    mdp: TabularMDP, temperature: float, tolerance: float = TOLERANCE, max_iterations: int = 100_000
) -> SoftSolution:
    """
    Iterate the soft optimal backup, V <- alpha log sum exp((r + gamma P V) / alpha).

    :param mdp: The MDP.
    :param temperature: Temperature alpha, greater than 0.
    :param tolerance: Error of the state values at which to stop, in the maximum norm.
    :param max_iterations: Number of sweeps after which to stop with a warning.
    :return: The soft-optimal solution.
    :raises ValueError: if the temperature is not a finite number greater than 0, or ``max_iterations`` is less than 1.
    """
    alpha, max_iterations = check_temperature(temperature), read("max_iterations", max_iterations, integer(1))

    def sweep(v: np.ndarray) -> np.ndarray:
        return soft_value(soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v), alpha)

    criterion = _optimal_criterion(mdp, alpha, tolerance)
    v, residuals = _fixed_point(sweep, np.zeros(mdp.n_states), mdp.terminal, criterion, max_iterations)
    q = soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v)
    return _solution("soft value iteration", q, v, soft_policy(q, alpha), residuals, criterion)


def soft_policy_evaluation(
    mdp: TabularMDP, pi: np.ndarray, temperature: float, tolerance: float = TOLERANCE, max_iterations: int = 100_000
) -> SoftSolution:
    """
    Lemma 1, arXiv:1801.01290v2. The soft values of a given policy.

    :param mdp: The MDP.
    :param pi: Action probabilities ``[n_states, n_actions]``.
    :param temperature: Temperature alpha, greater than 0.
    :param tolerance: Error of the state values at which to stop, in the maximum norm.
    :param max_iterations: Number of sweeps after which to stop with a warning.
    :return: The soft values of the policy, with that policy.
    :raises ValueError: if the temperature or the policy is invalid, or ``max_iterations`` is less than 1.
    """
    alpha, pi = check_temperature(temperature), _check_policy(mdp, pi)
    max_iterations = read("max_iterations", max_iterations, integer(1))
    added = soft_value_of_policy(np.abs(mdp.rewards), pi, alpha).max()
    criterion = _Criterion(mdp.discount, tolerance, float(added))
    v, residuals = _policy_values(mdp, pi, alpha, np.zeros(mdp.n_states), criterion, max_iterations)
    q = soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v)
    return _solution("soft policy evaluation", q, v, pi, residuals, criterion)


def soft_policy_improvement(q: np.ndarray, temperature: float) -> np.ndarray:
    """
    Lemma 2, arXiv:1801.01290v2. The policy proportional to exp(Q / alpha), whose soft values are at least as high in every
    state.

    :param q: Soft Q-values of the current policy ``[n_states, n_actions]``.
    :param temperature: Temperature alpha, greater than 0.
    :return: Action probabilities ``[n_states, n_actions]``.
    :raises ValueError: if the temperature is not a finite number greater than 0.
    """
    return soft_policy(np.asarray(q, dtype=np.float64), check_temperature(temperature))


def soft_policy_iteration(
    mdp: TabularMDP, temperature: float, tolerance: float = TOLERANCE, max_iterations: int = 1_000
) -> SoftSolution:
    """
    Theorem 1, arXiv:1801.01290v2. Alternate evaluation and improvement, starting from the uniform policy.

    It converges quadratically near the solution and rarely needs as many as ten improvements.

    :param mdp: The MDP.
    :param temperature: Temperature alpha, greater than 0.
    :param tolerance: Error of the state values at which to stop, in the maximum norm.
    :param max_iterations: Number of improvements after which to stop with a warning.
    :return: The soft-optimal solution.
    :raises ValueError: if the temperature is not a finite number greater than 0, or ``max_iterations`` is less than 1.
    """
    alpha, max_iterations = check_temperature(temperature), read("max_iterations", max_iterations, integer(1))
    criterion = _optimal_criterion(mdp, alpha, tolerance)
    pi, v, residuals = np.full(mdp.rewards.shape, 1.0 / mdp.n_actions), np.zeros(mdp.n_states), []
    for _ in range(max_iterations):
        evaluated, _ = _policy_values(mdp, pi, alpha, v, criterion, max_iterations=100_000)
        q = soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, evaluated)
        pi, v = soft_policy_improvement(q, alpha), np.where(mdp.terminal, 0.0, soft_value(q, alpha))
        # One soft optimal backup has moved the values by this much: the bound of soft value iteration holds for it.
        residuals.append(float(np.abs(v - evaluated).max()))
        if criterion.settled(v, residuals[-1]):
            break
    q = soft_bellman_backup(mdp.rewards, mdp.transitions, mdp.discount, v)
    return _solution("soft policy iteration", q, v, soft_policy(q, alpha), residuals, criterion)


def _policy_values(
    mdp: TabularMDP, pi: np.ndarray, alpha: float, start: np.ndarray, criterion: _Criterion, max_iterations: int
) -> tuple[np.ndarray, list[float]]:
    """
    State values of a policy and the residuals of the sweeps.

    The equation is linear. GMRES solves it with some dozens of matrix products, where sweeps need thousands at a discount near
    1 (100000 random states at 0.99: 0.4 s against 13 s). Sweeps then refine and certify the result. A factorisation would not
    stay sparse.
    """
    weights = sparse.csr_matrix(
        (pi.ravel(), np.arange(pi.size), np.arange(0, pi.size + 1, mdp.n_actions)), shape=(mdp.n_states, pi.size)
    )
    alive = ~mdp.terminal
    gamma_p = sparse.diags(mdp.discount * alive) @ (weights @ mdp.transitions)
    income = alive * soft_value_of_policy(mdp.rewards, pi, alpha)
    identity = sparse.identity(mdp.n_states, format="csr")
    v, _ = gmres(identity - gamma_p, income, x0=start, rtol=1e-13, atol=0.0, restart=50, maxiter=20)
    return _fixed_point(lambda v: income + gamma_p @ v, v, mdp.terminal, criterion, max_iterations)


def _fixed_point(
    sweep: Callable[[np.ndarray], np.ndarray], v: np.ndarray, terminal: np.ndarray, criterion: _Criterion, max_iterations: int
) -> tuple[np.ndarray, list[float]]:
    """Sweep until the values settle, or for ``max_iterations``; terminal states stay at 0."""
    v, residuals = np.where(terminal, 0.0, v), []
    for _ in range(max_iterations):
        v_next = np.where(terminal, 0.0, sweep(v))
        residuals.append(float(np.abs(v_next - v).max()))
        v = v_next
        if criterion.settled(v, residuals[-1]):
            break
    return v, residuals


def _optimal_criterion(mdp: TabularMDP, alpha: float, tolerance: float) -> _Criterion:
    """For the soft optimal backup: the rewards that matter are no larger than the values, but may cancel the entropy."""
    return _Criterion(mdp.discount, tolerance, alpha * math.log(mdp.n_actions))


def _solution(
    solver: str, q: np.ndarray, v: np.ndarray, pi: np.ndarray, residuals: list[float], criterion: _Criterion
) -> SoftSolution:
    bound = criterion.error_bound(v, residuals[-1])
    converged = bool(bound <= criterion.tolerance)
    if not converged:
        floor = criterion.error_bound(v, 0.0)
        warnings.warn(
            f"{solver} did not converge: after {len(residuals)} iterations the error may be {bound:.1e}, more than the "
            f"tolerance of {criterion.tolerance:.1e}. Allow more iterations, or a larger tolerance: "
            f"rounding limits it to {floor:.1e}.",
            RuntimeWarning,
            stacklevel=3,
        )
    return SoftSolution(q, v, pi, np.array(residuals), bound, converged)


def check_temperature(temperature: Any) -> float:
    """:raises ValueError: if it is not a finite number greater than 0."""
    small = " (for the greedy limit a small value, e.g. 1e-3 times the range of the rewards)"
    return float(read("temperature", temperature, number(f"a finite number greater than 0{small}", lambda value: value > 0.0)))


def _check_policy(mdp: TabularMDP, pi: np.ndarray) -> np.ndarray:
    pi = np.asarray(pi)
    if pi.shape != mdp.rewards.shape:
        raise ValueError(f"pi must be [n_states, n_actions] = {mdp.rewards.shape}, got {pi.shape}")
    pi = np.asarray(in_double_precision(pi))
    wrong = ~((pi >= 0).all(axis=1) & (np.abs(pi.sum(axis=1) - 1.0) <= 1e-8))
    if wrong.any():
        state = int(np.argmax(wrong))
        raise ValueError(f"the action probabilities of state {state} are {pi[state]}: they must be at least 0 and sum to 1")
    return pi
