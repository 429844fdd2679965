"""
The pictures of the teaching pages about single actions: exact densities and entropies, and the particles of soft Q-learning.

``pictures.py`` draws them along with its own.
"""

import math
from collections.abc import Callable

import numpy as np
import torch as th
from matplotlib.figure import Figure
from scipy.optimize import brentq, minimize

from sb3_softac.equations.discrete_sac import policy_entropy
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob
from sb3_softac.equations.stein import svgd_direction, unsquashed_score
from sb3_softac.equations.temperature import continuous_target_entropy, temperature_loss
from sb3_softac.study.plots import COLOURS, MARKERS, line_style
from sb3_softac.tabular import BoltzmannOracle

NOISE, WEIGHTS = (th.as_tensor(array) for array in np.polynomial.hermite_e.hermegauss(200))
NOISE, WEIGHTS = NOISE[:, None], WEIGHTS / WEIGHTS.sum()  # of expectations over a standard normal variable
LINE = np.linspace(-0.999, 0.999, 1001)


def two_humps(a: np.ndarray) -> np.ndarray:
    """Return a Q-function with humps near -1/2 and +1/2."""
    return -32.0 * (a**2 - 0.25) ** 2 + 0.1 * a


def squashed_log_density(u: th.Tensor, mean: float, std: float) -> th.Tensor:
    """Return the log-density of tanh(u) for a Gaussian u."""
    return squashed_log_prob(gaussian_log_prob((u - mean) / std, th.full_like(u, std)), u)


def squashed_density(mean: float, std: float) -> np.ndarray:
    """Return the density of tanh(mean + std * noise) along LINE."""
    return squashed_log_density(th.atanh(th.as_tensor(LINE))[:, None], mean, std).exp().numpy()


def dual() -> Figure:
    """Entropy and dual function against the temperature, with the path of a learned temperature."""

    def best(alpha: float) -> BoltzmannOracle:
        return BoltzmannOracle(lambda a: -5.0 * (a[:, 0] - 0.3) ** 2, alpha)

    target = continuous_target_entropy((1,))
    log_alpha = th.zeros(1, dtype=th.float64, requires_grad=True)
    optimizer, visited = th.optim.Adam([log_alpha], lr=0.1), [1.0]
    for _ in range(60):
        optimizer.zero_grad()
        temperature_loss(log_alpha, th.tensor([-best(visited[-1]).entropy]), target).backward()
        optimizer.step()
        visited.append(log_alpha.exp().item())
    alphas, solution = np.geomspace(0.015, 2.0, 60), brentq(lambda alpha: best(alpha).entropy - target, 0.01, 1.0)
    curves: tuple[Callable[[float], float], ...] = (
        lambda alpha: best(alpha).entropy,
        lambda alpha: best(alpha).soft_value - alpha * target,
    )
    figure = Figure(figsize=(7.5, 3.0), layout="constrained")
    for axes, curve in zip(figure.subplots(1, 2), curves, strict=True):
        shown = alphas if axes is figure.axes[0] else alphas[alphas < 0.42]
        steps = [alpha for alpha in visited[::5] if alpha <= shown[-1]]
        axes.plot(shown, [curve(alpha) for alpha in shown], **line_style(0))
        axes.plot(steps, [curve(alpha) for alpha in steps], MARKERS[1], color=COLOURS[1], markersize=4)
        axes.axvline(solution, color="0.4", linestyle=":", label=f"fixed point {solution:.3f}")
        axes.set_xlabel("temperature (reward per nat)")
    first, second = figure.axes
    first.axhline(target, color="0.4", linestyle="--", linewidth=0.8, label="target")
    first.set(xscale="log", ylabel="entropy (nats)")
    second.set(ylabel="dual function g (reward)")
    first.legend(fontsize="small")
    second.legend(fontsize="small")
    return figure


def squashing() -> Figure:
    """Densities of squashed Gaussians and their entropies."""
    figure = Figure(figsize=(7.5, 3.0), layout="constrained")
    densities, entropies = figure.subplots(1, 2)
    for number, std in enumerate((0.3, 0.87, 2.0)):
        densities.plot(LINE, squashed_density(0.0, std), **line_style(number), label=f"standard deviation {std:g}")
    densities.set(xlabel="action", ylabel="density", ylim=(0, 2.4))
    densities.legend(fontsize="small")
    stds = np.geomspace(0.05, 5.0, 80)
    squashed = [-(WEIGHTS * squashed_log_density(std * NOISE, 0.0, std)).sum().item() for std in stds]
    entropies.plot(stds, squashed, **line_style(0), label="after the squash")
    entropies.plot(stds, 0.5 * np.log(2 * math.pi * math.e * stds**2), **line_style(1), label="before")
    entropies.axhline(math.log(2), color="0.4", linestyle=":", label="log 2")
    entropies.set(xscale="log", ylim=(-2, 1.5), xlabel="standard deviation before the squash", ylabel="entropy (nats)")
    entropies.legend(fontsize="small")
    return figure


def mode_seeking() -> Figure:
    """A Boltzmann density with two modes, and the Gaussians that are local minima of the divergence."""
    oracle = BoltzmannOracle(lambda a: two_humps(a[:, 0]), 0.3)

    def divergence(parameters: np.ndarray) -> float:
        u = parameters[0] + math.exp(parameters[1]) * NOISE
        log_pi = squashed_log_density(u, parameters[0], math.exp(parameters[1]))
        return (WEIGHTS * (log_pi - th.as_tensor(oracle.log_density(th.tanh(u).numpy())))).sum().item()

    figure = Figure(figsize=(5.5, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(LINE, np.exp(oracle.log_density(LINE[:, None])), color="0.85", label="Boltzmann density")
    for number, start in enumerate((0.5, -0.5)):
        found = minimize(divergence, (start, -1.5), method="Nelder-Mead", options=dict(xatol=1e-6, fatol=1e-9))
        density = squashed_density(found.x[0], math.exp(found.x[1]))
        axes.plot(LINE, density, **line_style(number), label=f"Gaussian, KL {found.fun:.2f} nats")
    axes.set(xlabel="action", ylabel="density", ylim=(0, 8.5))
    axes.legend(fontsize="small", loc="upper center", ncols=2)
    return figure


def svgd() -> Figure:
    """Particles of Stein variational gradient descent for three seeds."""
    oracle = BoltzmannOracle(lambda a: two_humps(a[:, 0]), 0.3)
    figure = Figure(figsize=(7.5, 2.5), layout="constrained")
    for seed, axes in enumerate(figure.subplots(1, 3, sharey=True)):
        u = th.as_tensor(np.random.default_rng(seed).standard_normal((100, 1)))
        for _ in range(500):
            a = th.tanh(u).requires_grad_()
            slope = th.autograd.grad(two_humps(a).sum(), a)[0]
            u = u + 0.02 * svgd_direction(u, u, unsquashed_score(slope, u, 0.3))
        particles = th.tanh(u).numpy().ravel()
        axes.hist(particles, bins=np.linspace(-1, 1, 31), density=True, color=COLOURS[5], edgecolor="white")
        axes.plot(LINE, np.exp(oracle.log_density(LINE[:, None])), **line_style(6))
        axes.set(title=f"seed {seed}: {(particles > 0).mean():.0%} on the right", xlabel="action")
    figure.axes[0].set_ylabel("density")
    return figure


def target_entropy() -> Figure:
    """How decided a policy of a given entropy can be."""

    def preferred(n_actions: int, ratio: float) -> float:
        def excess(p: float) -> float:
            pi = th.tensor([p] + [(1.0 - p) / (n_actions - 1)] * (n_actions - 1), dtype=th.float64)
            return policy_entropy(pi.log()).item() - ratio * math.log(n_actions)

        return brentq(excess, 1.0 / n_actions, 1.0 - 1e-12)

    figure = Figure(figsize=(5.5, 3.0), layout="constrained")
    axes, ratios = figure.subplots(), np.linspace(0.005, 0.995, 100)
    for number, n_actions in enumerate((2, 4, 18)):
        line = [preferred(n_actions, ratio) for ratio in ratios]
        axes.plot(ratios, line, **line_style(number), marker=MARKERS[number], markevery=20, label=f"{n_actions} actions")
    axes.axvline(0.98, color="0.4", linestyle=":", label="0.98")
    axes.set(xlabel="target entropy, as a ratio of log|A|", ylabel="probability of the preferred action", ylim=(0, 1.02))
    axes.legend(fontsize="small", loc="lower left")
    return figure


PICTURES = (dual, squashing, mode_seeking, svgd, target_entropy)
