"""
How many modes a policy keeps: SoftAC_v1 with a Gaussian, a mixture of four and a flow, and SQL's sampler, at equal numbers of
gradient steps. The tasks are bandits (episodes of one step) with two, three and four equal optima and MultiGoal.

    python benchmarks/modes.py --seeds 0 1 2 3 4
    python benchmarks/modes.py --tasks multigoal --policies mixture

writes a row per run to ``benchmarks/results/modes.csv``, a summary beside it, and draws ``modes.png`` from all rows. A run
that has its row is not run again. ``annealed`` starts at ten times the temperature, which falls to its value in the first half
of the training; ``slow targets``, on MultiGoal only, is a tau of 0.003 instead of 0.01. The exact policy is
exp(reward / temperature) by quadrature for the bandits, and from soft value iteration for MultiGoal.
"""

import csv
import time
from functools import cache
from itertools import product
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from matplotlib.figure import Figure
from multigoal import (
    ACTIONS,
    ALPHA,
    EPISODES,
    GAMMA,
    LOG_WEIGHTS,
    SETTINGS,
    STEPS,
    interpolation,
    play,
    rewards_and_targets,
    solve,
)
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_softac import SQL, SoftAC_v1
from sb3_softac.study.plots import ALGORITHM_STYLES, COLOURS, MARKERS
from sb3_softac.tabular import BoltzmannOracle

RESULTS = Path(__file__).parent / "results"
HEADER = ["task", "policy", "seed", "gradient steps", "shares", "exact shares", "largest gap in points", "KL in nats", "CPU s"]
WIDTH, TEMPERATURE = 0.2, 0.1  # of the peaks of the bandits, whose height is 1
SAMPLES = 200_000


def ring(n: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(n) / n
    return 0.6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


BANDITS = {
    "1-D, 2 modes": np.array([[-0.6], [0.6]]),
    "1-D, 3 modes": np.array([[-0.7], [0.0], [0.7]]),
    "1-D, 4 modes": np.array([[-0.75], [-0.25], [0.25], [0.75]]),
    "2-D, 2 modes": ring(2),
    "2-D, 3 modes": ring(3),
    "2-D, 4 modes": ring(4),
}
MIXTURE = dict(distribution="mixture", distribution_kwargs=dict(n_components=4))
PLAIN_MIXTURE = dict(distribution="mixture", distribution_kwargs=dict(n_components=4, separation=0.0))
# By name: algorithm, policy_kwargs, and by how much the temperature is higher at the start
POLICIES = {
    "gaussian": (SoftAC_v1, dict(distribution="gaussian"), 1.0),
    "mixture": (SoftAC_v1, MIXTURE, 1.0),
    "mixture, annealed": (SoftAC_v1, MIXTURE, 10.0),
    "mixture, no separation": (SoftAC_v1, PLAIN_MIXTURE, 1.0),
    "mixture, annealed, no separation": (SoftAC_v1, PLAIN_MIXTURE, 10.0),
    "flow": (SoftAC_v1, dict(distribution="flow"), 1.0),
    "flow, annealed": (SoftAC_v1, dict(distribution="flow"), 10.0),
    "mixture, slow targets": (SoftAC_v1, MIXTURE, 1.0),
    "SQL": (SQL, {}, 1.0),
}
# Settings that differ, of policies that are for MultiGoal only
ON_MULTIGOAL = {"mixture, slow targets": dict(tau=0.003)}


class Bandit(gym.Env):
    """One step; the reward is a sum of peaks of the same height."""

    def __init__(self, centres: np.ndarray):
        self.centres = centres
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (centres.shape[1],), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(reward(action[None], self.centres)[0]), True, False, {}


def reward(actions: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.exp(-((actions[:, None] - centres) ** 2).sum(axis=-1) / (2 * WIDTH**2)).sum(axis=-1)


def nearest(actions: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """:return: 1 in the column of the nearest mode ``[n, n_modes]``."""
    return np.eye(len(centres))[((actions[:, None] - centres) ** 2).sum(axis=-1).argmin(axis=1)]


def divergence(samples: np.ndarray, nodes: np.ndarray, mass: np.ndarray, edges: np.ndarray) -> float:
    """:return: KL divergence from the policy to the exact one in nats, both counted in cells; at most the true one."""
    bins = [edges] * samples.shape[1]
    counts, exact = np.histogramdd(samples, bins)[0], np.histogramdd(nodes, bins, weights=mass)[0]
    p = counts / counts.sum()
    return float((p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, exact / exact.sum(), 1.0))).sum())


@th.no_grad()
def sample(model, obs: list[float]) -> np.ndarray:
    return model.policy.actor(th.tensor([obs]).expand(SAMPLES, -1)).numpy().astype(np.float64)


def falling(temperature: float, factor: float):
    """:return: The temperature, or a schedule that falls to it in the first half of the training."""
    return temperature if factor == 1.0 else lambda remaining: temperature * factor ** max(0.0, 2.0 * remaining - 1.0)


def run_bandit(centres: np.ndarray, algorithm, policy_kwargs: dict, factor: float, seed: int):
    model = algorithm(
        "MlpPolicy",
        DummyVecEnv([lambda: Bandit(centres)] * 8),
        ent_coef=falling(TEMPERATURE, factor),
        learning_rate=LinearSchedule(5e-3, 0.0, 1.0),
        learning_starts=400,
        batch_size=256,  # a Q-value off by one temperature makes a mode e times as likely
        buffer_size=20_000,
        tau=0.02,
        gradient_steps=2,
        policy_kwargs=dict(net_arch=[64, 64], **policy_kwargs),
        seed=seed,
        device="cpu",
    ).learn(400 + 8 * 600)
    actions, dim = sample(model, [0.0]), centres.shape[1]
    oracle = BoltzmannOracle(lambda a: reward(a, centres), TEMPERATURE, dim)
    mass = oracle.weights * np.exp(oracle.log_density(oracle.nodes))
    exact = oracle.expectation(lambda a: nearest(a, centres))
    edges = np.linspace(-1, 1, 65 if dim == 1 else 41)
    return model, nearest(actions, centres).mean(axis=0), exact, divergence(actions, oracle.nodes, mass, edges)


@cache
def exact_start() -> np.ndarray:
    """:return: Probabilities of the actions of the grid at the start of MultiGoal."""
    rewards, reached, targets = rewards_and_targets(np.zeros((1, 2)))
    q = rewards[0] + GAMMA * np.where(reached[0], 0.0, interpolation(targets.reshape(-1, 2)) @ solve())
    p = np.exp((q - q.max()) / ALPHA + LOG_WEIGHTS)
    return p / p.sum()


def run_multigoal(algorithm, policy_kwargs: dict, factor: float, seed: int, **settings):
    model = algorithm(
        "MlpPolicy",
        "MultiGoal-v0",
        seed=seed,
        device="cpu",
        **SETTINGS
        | dict(
            ent_coef=falling(ALPHA, factor),
            # A policy that settles on a goal leaves too few transitions near the others to learn their values
            random_steps=10_000,
            policy_kwargs=SETTINGS["policy_kwargs"] | policy_kwargs,
        )
        | settings,
    ).learn(STEPS)
    goals = np.array(play(lambda obs: model.predict(obs)[0], 4 * EPISODES)[1])
    edges = np.linspace(-1 - 1 / 40, 1 + 1 / 40, 42)
    kl = divergence(sample(model, [0.0, 0.0]), ACTIONS, exact_start(), edges)
    return model, goals / (4 * EPISODES), np.full(4, 0.25), kl  # episodes that reach no goal are nobody's share


def run(task: str, policy: str, seed: int) -> list[str]:
    start = time.process_time()
    if task == "multigoal":
        model, shares, exact, kl = run_multigoal(*POLICIES[policy], seed, **ON_MULTIGOAL.get(policy, {}))
    else:
        model, shares, exact, kl = run_bandit(BANDITS[task], *POLICIES[policy], seed)
    row = [task, policy, seed, model._n_updates, *(" ".join(f"{share:.3f}" for share in part) for part in (shares, exact))]
    return [*map(str, row), f"{100 * np.abs(shares - exact).max():.1f}", f"{kl:.3f}", f"{time.process_time() - start:.1f}"]


def draw(rows: list[list[str]]) -> None:
    tasks = [task for task in (*BANDITS, "multigoal") if any(row[0] == task for row in rows)]
    figure = Figure(figsize=(10, 5.5))
    for axes, column, label in zip(figure.subplots(2, 1, sharex=True), (6, 7), (HEADER[6], HEADER[7]), strict=True):
        for number, (policy, look) in enumerate(zip(POLICIES, (0, 1, 8, 3, 4, 5, 6, 7, ALGORITHM_STYLES["SQL"]), strict=True)):
            points = [(tasks.index(row[0]) + 0.1 * (number - 4), float(row[column])) for row in rows if row[1] == policy]
            if points:
                axes.plot(*zip(*points, strict=True), MARKERS[look], color=COLOURS[look], alpha=0.6, label=policy)
        axes.set(ylabel=label, xticks=range(len(tasks)), xticklabels=tasks)
        axes.grid(axis="y", alpha=0.4)
    figure.axes[0].axhline(10, color="black", linewidth=0.8)
    figure.axes[1].set_yscale("log")
    figure.axes[0].legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.35))
    figure.savefig(RESULTS / "modes.png", dpi=80, bbox_inches="tight")


def summarize(rows: list[list[str]]) -> None:
    """Write how many seeds keep every mode within 10 points of its exact share, and the KL divergence, by task and policy."""
    lines = []
    for task in (*BANDITS, "multigoal"):
        for policy in POLICIES:
            own = [row for row in rows if row[:2] == [task, policy]]
            if own:
                kept, kl = sum(float(row[6]) <= 10 for row in own), [float(row[7]) for row in own]
                lines.append([task, policy, f"{kept} of {len(own)}", f"{np.median(kl):.3f} ({min(kl):.3f} to {max(kl):.3f})"])
    with open(RESULTS / "modes_summary.csv", "w", newline="") as file:
        csv.writer(file).writerows([["task", "policy", "seeds with fair shares", "KL in nats, median (range)"], *lines])


def main() -> None:
    th.set_num_threads(1)
    path = RESULTS / "modes.csv"
    rows = list(csv.reader(path.read_text().splitlines()))[1:] if path.exists() else []
    for seed, task, policy in product(range(5), [*BANDITS, "multigoal"], POLICIES):
        known = [task, policy, str(seed)] in [row[:3] for row in rows]
        if known or (policy in ON_MULTIGOAL and task in BANDITS):
            continue
        rows.append(run(task, policy, seed))
        print("  ".join(rows[-1]), flush=True)
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
    draw(rows)
    summarize(rows)


if __name__ == "__main__":
    main()
