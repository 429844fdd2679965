"""
Fine-tuning: learn to get away in any direction, then to pass a wall (after the ant and the hallways of arXiv:1702.08165).

In the hall the reward leads straight against the wall, and its door is too far off for small random steps. A model that has
learned to get away tries long ways; one that did so at a low temperature has settled for few, and finds the door by luck.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac import SQL

HOT, COLD = 0.1, 0.01
WALL, DOOR = 0.3, -0.5  # the wall stands at x = 0.3 and is open below y = -0.5
STUCK = 12.0  # 40 steps at the wall: who earns more was on its other side


class Plane(gym.Env):
    """A point in [-1, 1] x [-1, 1] that starts near the middle; the reward is its distance from there, in the hall its x."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, hall: bool):
        self.hall = hall

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.15, 0.15, 2).astype(np.float32)
        return self.position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by at most 0.05, equally far in all directions; slide along the wall."""
        old = self.position
        new = np.clip(old + 0.05 * action / max(1.0, np.hypot(*action)), -1.0, 1.0).astype(np.float32)
        if self.hall and (old[0] < WALL) != (new[0] < WALL) and new[1] > DOOR:
            new[0] = old[0]
        self.position = new
        return new, float(new[0] if self.hall else min(1.0, np.hypot(*new))), False, False, {}


def make(hall: bool, ent_coef: Any, seed: int) -> SQL:
    env = Monitor(gym.wrappers.TimeLimit(Plane(hall), 40))
    settings: dict[str, Any] = dict(gamma=0.95, train_freq=4, batch_size=64, kernel_particles=16, value_particles=32)
    return SQL("MlpPolicy", env, 2e-3, ent_coef=ent_coef, policy_kwargs=dict(net_arch=[64, 64]), seed=seed, **settings)


def learn_hall(pretraining: float | None, timesteps: int, seed: int) -> np.ndarray:
    """Return the returns of the training episodes in the hall, after pretraining at that temperature if there is one."""
    annealed = LinearSchedule(HOT, COLD, 1.0)  # the paper lets the temperature fall, too
    model = make(True, annealed, seed)
    if pretraining is not None:
        path = Path(tempfile.mkdtemp()) / "any_direction.zip"
        make(False, pretraining, seed).learn(2 * timesteps // 3).save(path)
        # random_steps=0, lest the first actions are uniform instead of the pretrained model's
        model = SQL.load(path, env=model.get_env(), ent_coef=annealed, random_steps=0)
    model.learn(timesteps)
    return np.array(model.get_env().env_method("get_episode_rewards")[0])


def main(timesteps: int = 6_000, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, np.ndarray]:
    """Print the learning curves; return for each seed the share of the last fifth of the episodes that passed the wall."""
    passed = {}
    for name, temperature in {"from scratch": None, "pretrained hot": HOT, "pretrained cold": COLD}.items():
        curves = [np.array_split(learn_hall(temperature, timesteps, seed), 5) for seed in seeds]
        passed[name] = np.array([(curve[-1] > STUCK).mean() for curve in curves])
        print(
            f"{name}, mean returns in fifths of the training:", *np.mean([[p.mean() for p in c] for c in curves], 0).round(1)
        )
    return passed


if __name__ == "__main__":
    for name, shares in main().items():
        print(f"{name}: in the end passed the wall in {', '.join(f'{share:.0%}' for share in shares)} of the episodes")
