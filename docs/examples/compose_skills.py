"""
Two skills make a third: A goes to a vertical line, B to a horizontal one, and the sum of their soft Q-functions to the
crossing, for which neither was ever rewarded (after the crossing lines of arXiv:1803.06773).

The sum is exact here, but for a constant, as the coordinates do not disturb each other. In general it hopes for too much: each
skill counts on freedom that the other takes. Where neither has been, it is a guess; random starts let both see the plane here.
"""

import sys
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import SQL

LINE, MAX_STEPS = 0.5, 20  # the lines x = 0.5 and y = 0.5; steps per episode


class Plane(gym.Env):
    """A point in [-1, 1] x [-1, 1]; the reward is minus its distance to the line of one coordinate (0: x, 1: y)."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, coordinate: int):
        self.coordinate = coordinate

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by a quarter of the action. The task never ends; at the time limit around it, the values bootstrap."""
        self.position = np.clip(self.position + 0.25 * action, -1.0, 1.0)
        return self.position, -float(abs(self.position[self.coordinate] - LINE)), False, False, {}


def train(coordinate: int, timesteps: int, seed: int) -> SQL:
    env = gym.wrappers.TimeLimit(Plane(coordinate), MAX_STEPS)
    settings: dict[str, Any] = dict(gamma=0.9, train_freq=2, batch_size=64, kernel_particles=16, value_particles=32)
    # The temperature keeps a skill random in what it does not care for, so that there the other may decide.
    model = SQL("MlpPolicy", env, 1e-3, ent_coef=0.1, policy_kwargs=dict(net_arch=[64, 64]), seed=seed, **settings)
    return model.learn(timesteps)


def walk(model: SQL) -> np.ndarray:
    """Return the positions in 20 episodes of the stochastic policy ``[MAX_STEPS, 20, 2]``; no reward is looked at."""
    env = make_vec_env(lambda: gym.wrappers.TimeLimit(Plane(0), MAX_STEPS), n_envs=20, seed=0)
    positions = [env.reset()]
    while len(positions) < MAX_STEPS:
        positions.append(env.step(model.predict(positions[-1])[0])[0])
    return np.array(positions)


def main(timesteps: int = 4_000, picture: str = "compose_skills.png", seed: int = 0) -> dict[str, np.ndarray]:
    """Return each model's mean distances to the two lines in the second half of the episodes."""
    a, b = (train(coordinate, timesteps, seed) for coordinate in (0, 1))
    # "sum": the mean at the temperature of the skills would be half as decided as they are
    both = SQL.compose([a, b], "sum", learning_rate=1e-3, policy_kwargs=dict(net_arch=[64, 64]))
    walks = {"skill A": walk(a), "skill B": walk(b), "A + B at once": walk(both)}
    both.distil([a.replay_buffer, b.replay_buffer], gradient_steps=timesteps // 4)  # on stored observations alone
    walks["A + B distilled"] = walk(both)

    figure = Figure(figsize=(10, 2.9), layout="constrained")
    for axes, (name, positions) in zip(figure.subplots(1, 4), walks.items(), strict=True):
        axes.plot([LINE, LINE], [-1, 1], "0.7", [-1, 1], [LINE, LINE], "0.7")
        axes.plot(*np.moveaxis(positions, 2, 0), "C0", linewidth=0.7)
        axes.plot(*positions[-1].T, "k.", markersize=4)
        axes.set(title=name, xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    figure.savefig(picture, dpi=80)
    return {name: abs(positions[MAX_STEPS // 2 :] - LINE).mean(axis=(0, 1)) for name, positions in walks.items()}


if __name__ == "__main__":
    for name, (x, y) in main(picture=sys.argv[1] if len(sys.argv) > 1 else "compose_skills.png").items():
        print(f"{name}: {x:.2f} from the vertical line, {y:.2f} from the horizontal line")
