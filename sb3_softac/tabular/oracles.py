"""
Exact Boltzmann policies for continuous actions in one and two dimensions, by quadrature, and distances of samples to them.

The integrals over [-1, 1]^D are Gauss-Legendre sums over equal panels: exact to rounding for a Q that is smooth on the scale
of a panel. A second, coarser rule in the same panels detects when this does not hold. Where Q has kinks, V may be off by 1e-6
times the temperature, and the entropy by 1e-6 nats. Neither rule detects a spike between the nodes of an otherwise smooth Q.
Distribution functions and samples spread the mass of a node evenly over a cell around it; for a mode of standard deviation
0.05 this causes errors of 5e-6 in 1-D and 3e-4 in 2-D.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import kstest

from sb3_softac.checks import integer, read
from sb3_softac.tabular.solvers import check_temperature

FINE, COARSE = 16, 12  # nodes per panel and dimension
PANELS = {1: 256, 2: 32}  # per dimension, by the dimension: 4096 nodes and 262144


def quadrature(dim: int, panels: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """:return: Nodes ``[N, dim]`` and weights ``[N]`` of the composite Gauss-Legendre rule on [-1, 1]^dim."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    centres = -1.0 + (2.0 * np.arange(panels) + 1.0) / panels
    line = (centres[:, None] + nodes / panels).ravel()
    line_weights = np.tile(weights / panels, panels)
    grid = np.stack(np.meshgrid(*[line] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    grid_weights = np.prod(np.stack(np.meshgrid(*[line_weights] * dim, indexing="ij"), axis=-1), axis=-1).ravel()
    return grid, grid_weights


class BoltzmannOracle:
    r"""
    The soft-optimal policy of a given Q, arXiv:1702.08165: :math:`\pi(a) = \exp((Q(a) - V) / \alpha)` on [-1, 1]^D with
    :math:`V = \alpha \log \int \exp(Q(a) / \alpha) da`.

    :param q: Maps actions ``[N, dim]`` to soft Q-values ``[N]``.
    :param temperature: Temperature alpha, greater than 0.
    :param dim: Dimension of the actions, 1 or 2.
    :param panels: Panels per dimension, by default 256 in 1-D and 32 in 2-D; more for a Q with sharper features.
    :raises ValueError: if an argument is invalid, Q is not finite, or the panels are too wide for this Q and temperature.
    """

    def __init__(self, q: Callable[[np.ndarray], np.ndarray], temperature: float, dim: int = 1, panels: int | None = None):
        self.temperature = check_temperature(temperature)
        if dim not in (1, 2):
            raise ValueError(f"dim must be 1 or 2, got {dim}: the rule evaluates Q at (panels * {FINE})^dim points")
        self.dim, panels = dim, read("panels", PANELS[dim] if panels is None else panels, integer(1))
        self._line = quadrature(1, panels, FINE)
        self.nodes, self.weights = quadrature(dim, panels, FINE)
        """Nodes ``[N, dim]`` and weights ``[N]`` of the rule."""
        self.q = q
        self.soft_value = self._log_partition(self.nodes, self.weights)
        """Soft value V in units of reward."""
        coarse = self._log_partition(*quadrature(dim, panels, COARSE))
        if not abs(self.soft_value - coarse) <= 1e-6 * temperature:
            raise ValueError(
                f"the quadrature has not converged: two rules differ by {abs(self.soft_value - coarse):.1e} in V. Q varies "
                f"too fast for {panels} panels at temperature {temperature}: use more panels"
            )
        log_density = self.log_density(self.nodes)
        self._mass = self.weights * np.exp(log_density)
        self.entropy = float(-(self._mass * log_density).sum())
        """Differential entropy of the policy in nats."""

    def log_density(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: Actions in [-1, 1] ``[N, dim]``.
        :return: Log-density of the policy ``[N]``, in nats.
        """
        return (self.q(actions) - self.soft_value) / self.temperature

    def expectation(self, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """
        :param f: Maps actions ``[N, dim]`` to values ``[N, ...]``.
        :return: Their mean under the policy ``[...]``.
        """
        return np.tensordot(self._mass, f(self.nodes), axes=1)

    def cdf(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: One-dimensional actions in [-1, 1] ``[N]``.
        :return: Probability that an action is at most this large ``[N]``, interpolated between the nodes.
        :raises ValueError: if the policy is two-dimensional.
        """
        if self.dim != 1:
            raise ValueError("a distribution function needs one-dimensional actions: use sliced_wasserstein_distance in 2-D")
        edges = np.concatenate([[-1.0], -1.0 + np.cumsum(self.weights)])
        return np.interp(actions, edges, np.concatenate([[0.0], np.cumsum(self._mass)]))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """
        Draw a node with probability equal to its mass, then a point in the cell around it (the cells are as wide as the
        weights).

        :param n: Number of actions.
        :param rng: Random number generator.
        :return: Actions ``[n, dim]``.
        """
        drawn = rng.choice(len(self._mass), size=n, p=self._mass / self._mass.sum())
        line_weights = self._line[1]
        edges = -1.0 + np.concatenate([[0.0], np.cumsum(line_weights)])
        cells = np.stack(np.unravel_index(drawn, [len(line_weights)] * self.dim), axis=-1)
        return edges[cells] + rng.random((n, self.dim)) * line_weights[cells]

    def _log_partition(self, nodes: np.ndarray, weights: np.ndarray) -> float:
        values = np.asarray(self.q(nodes), dtype=np.float64)
        if values.shape != weights.shape or not np.isfinite(values).all():
            raise ValueError(f"q must map actions {nodes.shape} to {weights.shape} finite values, got {values.shape}")
        largest = values.max()
        return float(largest + self.temperature * np.log((weights * np.exp((values - largest) / self.temperature)).sum()))


def ks_distance(oracle: BoltzmannOracle, actions: np.ndarray) -> float:
    """
    Kolmogorov-Smirnov distance of one-dimensional actions to the exact policy.

    :param oracle: The exact policy.
    :param actions: Sampled actions in [-1, 1] ``[N]`` or ``[N, 1]``.
    :return: Largest difference of the distribution functions, in [0, 1]; about 0.87 / sqrt(N) for exact samples.
    """
    return float(kstest(np.asarray(actions, dtype=np.float64).reshape(-1), oracle.cdf).statistic)


def sliced_wasserstein_distance(
    oracle: BoltzmannOracle, actions: np.ndarray, rng: np.random.Generator, directions: int = 64
) -> float:
    """
    Sliced Wasserstein-1 distance of actions to as many exact samples.

    :param oracle: The exact policy.
    :param actions: Sampled two-dimensional actions in [-1, 1] ``[N, 2]``.
    :param rng: Random number generator of the exact samples.
    :param directions: Number of directions onto which both sets are projected, evenly spread over the half circle.
    :return: Mean Wasserstein-1 distance over the directions, in units of action; of order 1 / sqrt(N) for exact samples.
    :raises ValueError: if the policy or the actions are not two-dimensional.
    """
    actions = np.asarray(actions, dtype=np.float64)
    if oracle.dim != 2 or actions.ndim != 2 or actions.shape[1] != 2:
        raise ValueError(
            f"sliced_wasserstein_distance needs a 2-D policy and actions [N, 2], got {actions.shape}: use ks_distance in 1-D"
        )
    angles = np.pi * (np.arange(directions) + 0.5) / directions
    axes = np.stack([np.cos(angles), np.sin(angles)])
    ours, theirs = np.sort(actions @ axes, axis=0), np.sort(oracle.sample(len(actions), rng) @ axes, axis=0)
    return float(np.abs(ours - theirs).mean())
