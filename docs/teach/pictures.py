"""
Draw the pictures of the teaching pages into this folder, or into the one that is given.

Here are those of finite MDPs, exact solutions and one training; those of single actions are in ``pictures_of_actions.py``.
"""

import itertools
import math
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pictures_of_actions
from gymnasium.wrappers import TimeLimit
from matplotlib.figure import Figure
from scipy.stats import entropy

from sb3_softac import DiscreteSAC
from sb3_softac.conformance import ExactGap
from sb3_softac.study.plots import COLOURS, MARKERS, line_style
from sb3_softac.tabular import (
    TabularEnv,
    TabularMDP,
    soft_policy_evaluation,
    soft_policy_improvement,
    soft_policy_iteration,
    soft_value_iteration,
)
from sb3_softac.tabular.equations import soft_policy, soft_value

NEXT_STATE = np.array([[max(s - 1, 0), min(s + 1, 4)] for s in range(5)])  # of the corridor: left, right
REWARDS = np.array([1.0, 0.0, 0.0, 0.0, 1.2])[NEXT_STATE]
DIRECTIONS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # of FrozenLake: left, down, right, up
HOLES, GOAL = (5, 7, 11, 12), 15


def lake() -> TabularMDP:
    """Return FrozenLake."""
    return TabularMDP.from_gymnasium("FrozenLake-v1", discount=0.99)


def start_return(mdp: TabularMDP, pi: np.ndarray) -> float:
    """Return the discounted rewards of a policy from the start."""
    moves = mdp.transitions.toarray().reshape(mdp.n_states, mdp.n_actions, mdp.n_states)
    walk = np.einsum("sa,san->sn", pi, moves) * ~mdp.terminal[:, None]
    values = np.linalg.solve(np.eye(mdp.n_states) - mdp.discount * walk, (pi * mdp.rewards).sum(axis=1))
    return float(mdp.initial @ values)


def paths() -> Figure:
    """The sixteen paths through the corridor at three temperatures."""
    figure = Figure(figsize=(7.5, 2.6), layout="constrained")
    for axes, alpha in zip(figure.subplots(1, 3, sharey=True), (0.1, 0.5, 5.0), strict=True):
        v, policies = np.zeros(5), []
        for _ in range(4):
            q = REWARDS + v[NEXT_STATE]
            policies.insert(0, soft_policy(q, alpha))
            v = soft_value(q, alpha)
        for number, actions in enumerate(itertools.product((0, 1), repeat=4)):
            states, probability = [2], 1.0
            for pi, action in zip(policies, actions, strict=True):
                probability *= pi[states[-1], action]
                states.append(NEXT_STATE[states[-1], action])
            offset = (number - 7.5) / 40
            axes.plot(np.array(states) + offset, range(5), color=COLOURS[0], linewidth=10 * probability + 0.2, alpha=0.7)
        for end in (0, 4):
            axes.axvline(end, color="0.5", linestyle="--", linewidth=0.8, zorder=0)
        axes.set(title=f"temperature {alpha:g}", xlabel="position", xticks=range(5), yticks=range(5), xlim=(-0.5, 4.5))
    figure.axes[0].set_ylabel("step")
    figure.axes[0].invert_yaxis()
    return figure


def frozenlake() -> Figure:
    """Soft-optimal policies of FrozenLake and their entropies."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = figure.subplots(1, 3)
    fields = np.array([s for s in range(16) if s not in (*HOLES, GOAL)])
    for axes, alpha in zip(panels, (0.001, 0.01, 0.1), strict=True):
        pi = soft_value_iteration(lake(), alpha).pi
        entropies = np.full(16, np.nan)
        entropies[fields] = entropy(pi[fields], axis=1)
        image = axes.imshow(entropies.reshape(4, 4), cmap="Greys", vmin=0, vmax=1.8)
        x, y = np.repeat(fields % 4, 4), np.repeat(fields // 4, 4)
        dx, dy = 0.45 * (pi[fields, :, None] * DIRECTIONS).reshape(-1, 2).T
        style = dict(color=COLOURS[1], edgecolor="black", linewidth=0.4, width=0.016, headlength=3, headaxislength=3)
        axes.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, **style)
        for state in (*HOLES, GOAL):
            axes.text(state % 4, state // 4, "G" if state == GOAL else "H", ha="center", va="center")
        axes.set(title=f"temperature {alpha:g}", xticks=[], yticks=[])
    figure.colorbar(
        image, ax=panels, label="entropy of the policy (nats)", boundaries=np.linspace(0, math.log(4), 100), ticks=(0, 0.5, 1)
    )
    return figure


def improvement() -> Figure:
    """Soft policy iteration in the corridor, and how fast it is beside soft value iteration."""
    transitions = np.zeros((5, 2, 5))
    transitions[np.arange(5)[:, None], np.arange(2), NEXT_STATE] = 1.0
    mdp, alpha = TabularMDP.from_arrays(transitions, REWARDS, discount=0.9), 0.3
    best = soft_policy_iteration(mdp, alpha, tolerance=1e-12)
    figure = Figure(figsize=(7.5, 3.0), layout="constrained")
    values, distances = figure.subplots(1, 2)
    pi, errors = np.full((5, 2), 0.5), []
    for number in range(6):
        evaluated = soft_policy_evaluation(mdp, pi, alpha, tolerance=1e-12)
        errors.append(np.abs(evaluated.v - best.v).max())
        if number < 4:
            values.plot(evaluated.v, **line_style(number), marker=MARKERS[number], label=f"{number}")
        pi = soft_policy_improvement(evaluated.q, alpha)
    values.set(xlabel="position", ylabel="soft value (reward)", xticks=range(5))
    values.legend(title="improvements", fontsize="small", title_fontsize="small")
    v, swept = np.zeros(5), []
    for _ in range(41):
        swept.append(np.abs(v - best.v).max())
        v = soft_value(mdp.rewards + mdp.discount * v[NEXT_STATE], alpha)
    distances.semilogy(swept, **line_style(0), marker=MARKERS[0], markevery=5, label="sweeps of value iteration")
    shown = [error for error in errors if error > 1e-10]
    distances.semilogy(shown, **line_style(1), marker=MARKERS[1], label="improvements")
    distances.set(xlabel="number", ylabel="largest error of a soft value (reward)")
    distances.legend(fontsize="small")
    return figure


def price() -> Figure:
    """Return and soft value of the soft-optimal policy of FrozenLake."""
    mdp, alphas = lake(), np.geomspace(3e-4, 0.3, 40)
    solutions = [soft_policy_iteration(mdp, alpha) for alpha in alphas]
    figure = Figure(figsize=(5.5, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        alphas, [start_return(mdp, found.pi) for found in solutions], **line_style(0), marker="o", markevery=6, label="return"
    )
    axes.plot(alphas, [found.v[0] for found in solutions], **line_style(1), marker="s", markevery=6, label="soft value")
    axes.set(xscale="log", ylim=(0, 1.5), xlabel="temperature (reward per nat)", ylabel="from the start (reward)")
    axes.legend(fontsize="small")
    return figure


def robustness() -> Figure:
    """Soft-optimal policies on maps that they were not computed for."""

    def small_map(rows: list[str]) -> TabularMDP:
        return TabularMDP.from_gymnasium(gym.make("FrozenLake-v1", desc=rows, is_slippery=False), discount=0.95)

    def slippery(rate: float) -> TabularMDP:
        env = gym.make("FrozenLake-v1", map_name="4x4", is_slippery=True, success_rate=rate)
        return TabularMDP.from_gymnasium(env, discount=0.95)

    open_map, hole = small_map(["FFFFF", "SFFFG", "FFFFF"]), small_map(["FFFFF", "SFHFG", "FFFFF"])
    moves, states = open_map.transitions.toarray().reshape(16, 4, 16), np.arange(16)
    moves[states, :, states] += moves[:, :, 7]
    moves[:, :, 7] = 0.0
    moves[7], moves[7, :, 7] = 0.0, 1.0
    wall = TabularMDP.from_arrays(moves, open_map.rewards, 0.95, np.flatnonzero(open_map.terminal), open_map.initial)
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    alphas = np.linspace(0.004, 0.055, 35)
    policies = [soft_policy_iteration(open_map, alpha).pi for alpha in alphas]
    for number, (name, mdp) in enumerate({"open": open_map, "wall": wall, "hole": hole}.items()):
        line = [start_return(mdp, pi) for pi in policies]
        left.plot(alphas, line, **line_style(number), marker=MARKERS[number], markevery=6, label=name)
    left.set(xlabel="temperature (reward per nat)", ylabel="return (reward)", ylim=(-0.02, 0.92))
    left.legend(fontsize="small")
    rates = np.linspace(1 / 3, 1.0, 21)
    maps = [slippery(rate) for rate in rates]
    for number, alpha in enumerate((0.001, 0.02, 0.03)):
        pi = soft_policy_iteration(slippery(0.9), alpha).pi
        line = [start_return(mdp, pi) for mdp in maps]
        right.plot(rates, line, **line_style(number), marker=MARKERS[number], markevery=4, label=f"temperature {alpha:g}")
    best = [start_return(mdp, soft_policy_iteration(mdp, 1e-4).pi) for mdp in maps]
    right.plot(rates, best, color="black", linestyle=":", label="best for each ground")
    right.axvline(0.9, color="0.4", linewidth=0.8)
    right.set(xlabel="rate of success of a move", ylabel="return (reward)")
    right.legend(fontsize="small")
    return figure


def exact_gap() -> Figure:
    """The distance of DiscreteSAC to the exact solution of the corridor, while it is trained."""
    env = TimeLimit(TabularEnv(TabularMDP.from_arrays(np.eye(5)[NEXT_STATE], REWARDS, 0.9)), 50)
    settings = dict(learning_rate=lambda left: 3e-3 * left, policy_kwargs=dict(net_arch=[64]), batch_size=64, tau=0.05, seed=0)
    gap = ExactGap(freq=50)
    DiscreteSAC("MlpPolicy", env, ent_coef=0.3, gamma=0.9, **settings).learn(4_000, gap)
    figure = Figure(figsize=(7.5, 2.8), layout="constrained")
    axes, steps = figure.subplots(), [each["step"] for each in gap.history]
    labels = {"q_error": "error of Q (reward)", "regret": "regret (reward)", "kl": "divergence (nats)"}
    for i, (name, label) in enumerate(labels.items()):
        axes.semilogy(steps, [each[name] for each in gap.history], **line_style(i), label=label)
    axes.set(xlabel="environment steps", ylabel="distance to the optimum")
    axes.legend(fontsize="small")
    return figure


PICTURES = (paths, frozenlake, improvement, exact_gap, price, robustness, *pictures_of_actions.PICTURES)


def main(folder: Path) -> None:
    """Draw all pictures."""
    for draw in PICTURES:
        draw().savefig(folder / f"{draw.__name__}.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
