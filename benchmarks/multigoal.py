"""
Policies on MultiGoal next to the exact solution: soft value iteration on a fine grid at the same temperature. SB3's TD3, whose
objective has no entropy, is the greedy one among them.

    python benchmarks/multigoal.py --seeds 0 1 2

writes one row per algorithm and seed to ``benchmarks/results/multigoal.csv`` and a row for the exact policy; of the exact
policy and of seed 0 the paths of 50 episodes to ``multigoal_paths.npz`` (positions ``[50, 31, 2]``, the last one repeated);
and the picture of seed 0 of SQL. A seed that has its row is not trained again.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch as th
from scipy.sparse import csr_matrix
from scipy.special import logsumexp
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac import SQL, SoftAC_v1
from sb3_softac.envs import MultiGoal
from sb3_softac.sql.pictures import draw_multigoal

RESULTS = Path(__file__).parent / "results"
ALPHA, GAMMA, STEPS, EPISODES, TIME_LIMIT = 10.0, 0.99, 30_000, 100, 30
# The entry of hyperparams/sql.yml
SETTINGS = dict(
    ent_coef=ALPHA,
    gamma=GAMMA,
    batch_size=128,
    # A Q-value off by one temperature makes a goal e times as likely: the last steps are small.
    learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
    learning_starts=500,
    # Uniform actions at first, so that no goal is given up before it has been seen
    random_steps=2_000,
    tau=0.01,
    train_freq=2,
    gradient_steps=1,
    policy_kwargs=dict(net_arch=[128, 128]),
)
PARTICLES = dict(kernel_particles=32, value_particles=32)
# A policy that settles on a goal leaves too few transitions near the others to learn their values
LONG_START = dict(random_steps=10_000)
MIXTURE = dict(net_arch=[128, 128], distribution="mixture", distribution_kwargs=dict(n_components=4))
NOISE = NormalActionNoise(np.zeros(2), np.full(2, 0.3))
GREEDY = {name: value for name, value in SETTINGS.items() if name not in ("ent_coef", "random_steps")}
# By name: algorithm and settings
ALGORITHMS = {
    "SQL": (SQL, SETTINGS | PARTICLES),
    "SoftAC_v1": (SoftAC_v1, SETTINGS | LONG_START),
    "SoftAC_v1, mixture": (SoftAC_v1, SETTINGS | LONG_START | dict(tau=0.003, policy_kwargs=MIXTURE)),
    "TD3": (TD3, GREEDY | dict(learning_starts=10_000, action_noise=NOISE)),
}
HEADER = ["policy", "mean return", "standard error", "best return", "deterministic return", "east", "west", "north", "south"]
SPACING = 0.25
GRID = np.linspace(-7, 7, 57)
ACTIONS = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
EDGE = np.where(np.abs(np.linspace(-1, 1, 41)) == 1, 0.5, 1.0) * 2 / 40  # trapezoid rule
LOG_WEIGHTS = np.log(np.outer(EDGE, EDGE)).ravel()


def rewards_and_targets(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:return: For all actions of the grid: rewards, whether a goal is reached ``[n, n_actions]``, next positions."""
    targets = (positions[:, None] + ACTIONS).clip(-7, 7)
    distances = ((targets[:, :, None] - MultiGoal.goals) ** 2).sum(axis=-1).min(axis=-1)
    reached = distances < MultiGoal.goal_radius**2
    rewards = -MultiGoal.action_cost * (ACTIONS**2).sum(axis=1) - distances + MultiGoal.goal_reward * reached
    return rewards, reached, targets


def interpolation(points: np.ndarray) -> csr_matrix:
    """:return: The matrix that turns values on the grid into bilinear ones at the points ``[n, n_grid^2]``."""
    cell = np.clip(((points - GRID[0]) / SPACING).astype(int), 0, len(GRID) - 2)
    part = (points - GRID[cell]) / SPACING
    columns, weights = [], []
    for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
        columns.append((cell[:, 0] + dx) * len(GRID) + cell[:, 1] + dy)
        weights.append(np.where(dx, part[:, 0], 1 - part[:, 0]) * np.where(dy, part[:, 1], 1 - part[:, 1]))
    rows = np.tile(np.arange(len(points)), 4)
    return csr_matrix((np.concatenate(weights), (rows, np.concatenate(columns))), shape=(len(points), len(GRID) ** 2))


def solve() -> np.ndarray:
    """Soft value iteration; the value between the points of the grid is linear in each coordinate."""
    positions = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), axis=-1).reshape(-1, 2)
    rewards, reached, targets = rewards_and_targets(positions)
    matrix = interpolation(targets.reshape(-1, 2))
    v, change = np.zeros(len(positions)), np.inf
    while change > 1e-3:
        q = rewards + GAMMA * np.where(reached, 0.0, (matrix @ v).reshape(rewards.shape))
        new = ALPHA * logsumexp(q / ALPHA + LOG_WEIGHTS, axis=1)
        change, v = np.abs(new - v).max(), new
    return v


def act_exactly(v: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """:return: Actions drawn from the exact policy, spread over their cells of the grid."""
    rewards, reached, targets = rewards_and_targets(positions.astype(np.float64))
    q = rewards + GAMMA * np.where(reached, 0.0, (interpolation(targets.reshape(-1, 2)) @ v).reshape(rewards.shape))
    log_p = q / ALPHA + LOG_WEIGHTS
    chosen = (log_p + rng.gumbel(size=log_p.shape)).argmax(axis=1)
    return (ACTIONS[chosen] + rng.uniform(-1 / 40, 1 / 40, (len(chosen), 2))).clip(-1, 1)


def play(act, episodes: int = EPISODES, seed: int = 1_000) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """:return: Returns of the episodes, how many reached each goal, and the positions of each episode ``[n_steps + 1, 2]``."""
    envs = [MultiGoal() for _ in range(episodes)]
    obs = np.stack([env.reset(seed=seed + number)[0] for number, env in enumerate(envs)])
    returns, goals = np.zeros(episodes), np.full(episodes, -1)
    for _ in range(TIME_LIMIT):
        running = np.flatnonzero(goals < 0)
        if not len(running):
            break
        for number, action in zip(running, act(obs[running]), strict=True):
            obs[number], reward, _, _, info = envs[number].step(action)
            returns[number] += reward
            goals[number] = info["goal"]
    return returns, [int((goals == goal).sum()) for goal in range(4)], [np.array(env.path) for env in envs]


def row(name: str, returns: np.ndarray, goals: list[int], deterministic: str) -> list[str]:
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    return [name, f"{returns.mean():.1f}", f"{error:.1f}", f"{returns.max():.1f}", deterministic, *map(str, goals)]


def keep_paths(name: str, act) -> None:
    """Add those of 50 episodes to the file; where a goal was reached, the episode stays."""
    file = RESULTS / "multigoal_paths.npz"
    found = dict(np.load(file)) if file.exists() else {}
    paths = [np.pad(path, ((0, TIME_LIMIT + 1 - len(path)), (0, 0)), mode="edge") for path in play(act, 50, seed=0)[2]]
    np.savez_compressed(file, **found | {name: np.stack(paths).astype(np.float16)})


def train(name: str, seed: int) -> list[str]:
    algorithm, settings = ALGORITHMS[name]
    model = algorithm("MlpPolicy", "MultiGoal-v0", seed=seed, device="cpu", **settings).learn(STEPS)
    if seed == 0:
        keep_paths(name, lambda obs: model.predict(obs)[0])
    if seed == 0 and name == "SQL":
        draw_multigoal(model).savefig(RESULTS / "multigoal.png", dpi=100)
    best, _, _ = play(lambda obs: model.predict(obs, deterministic=True)[0])
    returns, goals, _ = play(lambda obs: model.predict(obs)[0])
    return row(f"{name} seed {seed}", returns, goals, f"{best.mean():.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    th.set_num_threads(1)
    path = RESULTS / "multigoal.csv"
    rows = list(csv.reader(path.read_text().splitlines())) if path.exists() else [HEADER]
    known = {cells[0] for cells in rows}
    if "exact" not in known:
        v, rng = solve(), np.random.default_rng(0)
        returns, goals, _ = play(lambda obs: act_exactly(v, obs, rng), 1_000)
        rows.append(row("exact", returns, goals, ""))
        keep_paths("exact", lambda obs: act_exactly(v, obs, rng))
    for seed in arguments.seeds:
        for name in ALGORITHMS:
            if f"{name} seed {seed}" not in known:
                rows.append(train(name, seed))
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows(rows)
    for cells in rows:
        print("  ".join(f"{cell:>25}" for cell in cells))


if __name__ == "__main__":
    main()
