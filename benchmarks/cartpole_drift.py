"""
Why DiscreteSAC can fall back on CartPole-v1 after its first success, and what prevents it: ten seeds of three settings.

    OMP_NUM_THREADS=1 python benchmarks/cartpole_drift.py    # about fifteen minutes; writes results/cartpole_drift.csv

The environment is deterministic, and so is the policy that is evaluated: the discounted return of an action in a state is
found by trying it. Every 2500 steps, 50 episodes are played and 300 of their states drawn; there the Q-values (the mean of the
two critics) are compared with those returns. Settings: the Zoo's entry with two layers of 64 units, and what is said below.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac import DiscreteSAC

RESULT = Path(__file__).parent / "results" / "cartpole_drift.csv"
ENTRY = yaml.safe_load((Path(__file__).parents[1] / "hyperparams" / "discretesac.yml").read_text())["CartPole-v1"]
SETTINGS: dict[str, dict[str, Any]] = {
    "one step": {"n_steps": 1, "buffer_size": 100_000},
    "ten steps": {"n_steps": 10, "buffer_size": 100_000},
    "ten steps, recent data": {"n_steps": 10, "buffer_size": 5_000},
}
SEEDS, STEPS, EVERY = range(1_000, 1_010), 25_000, 2_500
EPISODES, STATES, LIMIT = 50, 300, 500
GAMMA = 0.99
HORIZON = 1_000  # 0.99^1000 is 4e-5


class Simulator(CartPoleVectorEnv):
    """CartPole from given states ``[n, 4]``; no episode is started anew."""

    def __init__(self, states: np.ndarray):
        super().__init__(len(states), max_episode_steps=HORIZON + 1)
        self.reset(seed=0)
        self.state = states.T.astype(float)  # type: ignore[assignment]  # declared as None

    def move(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:return: The states, and where the episode has ended."""
        states, _, ended, _, _ = self.step(actions)
        self.prev_done[:] = False
        return states, ended


def play(model: DiscreteSAC, states: np.ndarray, steps: int, first: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """
    Play by the mode of the policy.

    :param first: The first actions, if they are not the policy's.
    :return: Lengths and discounted returns ``[n]``, where the cart left the track ``[n]``, and all states that were visited.
    """
    simulator, alive, visited = Simulator(states), np.ones(len(states), bool), []
    lengths, returns, off_track = np.zeros(len(states)), np.zeros(len(states)), np.zeros(len(states), bool)
    for step in range(steps):
        visited.append(states[alive])
        actions = model.predict(states, deterministic=True)[0] if first is None or step else first
        states, ended = simulator.move(actions)
        lengths += alive
        returns += alive * GAMMA**step
        off_track |= alive & (np.abs(states[:, 0]) > simulator.x_threshold)
        alive &= ~ended
        if not alive.any():
            break
    return {"length": lengths, "return": returns, "off track": off_track, "states": np.concatenate(visited)}


class Look(BaseCallback):
    """Compare what the critics say with what is true."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps % EVERY == 0:
            self.rows.append(self.look(np.random.default_rng(self.num_timesteps)))
        return True

    def look(self, rng: np.random.Generator) -> dict[str, float]:
        assert isinstance(self.model, DiscreteSAC)
        episodes = play(self.model, rng.uniform(-0.05, 0.05, (EPISODES, 4)).astype(np.float32), LIMIT)
        states = rng.choice(episodes["states"], STATES)
        true = np.stack([play(self.model, states, HORIZON, np.full(STATES, action))["return"] for action in (0, 1)], axis=1)
        with th.no_grad():
            q = self.model.critic(th.as_tensor(states)).mean(dim=0).numpy()
        gap, true_gap = q[:, 1] - q[:, 0], true[:, 1] - true[:, 0]
        return {
            "return": episodes["length"].mean(),
            "share off the track": episodes["off track"].mean(),
            "q": q.mean(),
            "true return": true.mean(),
            "difference": np.median(np.abs(gap)),
            "true difference": np.median(np.abs(true_gap)),
            "correlation": np.corrcoef(gap, true_gap)[0, 1] if true_gap.any() else np.nan,
        }


def train(name: str, seed: int) -> list[dict[str, float]]:
    settings = {**ENTRY, **SETTINGS[name], "policy_kwargs": {"net_arch": [64, 64]}}
    del settings["n_timesteps"]
    look = Look()
    DiscreteSAC(env="CartPole-v1", seed=seed, device="cpu", **settings).learn(STEPS, callback=look)
    return look.rows


def main() -> None:
    th.set_num_threads(1)
    table = []
    for name in SETTINGS:
        runs = [train(name, seed) for seed in SEEDS]
        for number, rows in enumerate(zip(*runs, strict=True), start=1):
            means = {column: f"{np.nanmean([row[column] for row in rows]):.3g}" for column in rows[0]}
            table.append({"targets": name, "steps": number * EVERY, "seeds": len(rows), **means})
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
