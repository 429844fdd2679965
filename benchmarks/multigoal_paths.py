"""
Episodes on MultiGoal, where four goals are worth the same: the exact maximum-entropy policy beside what SQL has learned.

    python benchmarks/multigoal_paths.py

plays the exact policy (soft value iteration, see multigoal.py), trains SQL at the same temperature, and writes the paths of 50
episodes each to ``benchmarks/results/multigoal_paths.npz`` (positions ``[50, 31, 2]``, the last one repeated) and the picture
beside it. A policy whose paths are there is not trained again.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch as th
from multigoal import PARTICLES, SETTINGS, STEPS, act_exactly, play, solve

from sb3_softac import SQL
from sb3_softac.envs import MultiGoal
from sb3_softac.study.plots import COLOURS, MARKERS

RESULT = Path(__file__).parent / "results" / "multigoal_paths"
EPISODES, TIME_LIMIT = 50, 30
Act = Callable[[np.ndarray], np.ndarray]


def exact() -> Act:
    v, rng = solve(), np.random.default_rng(0)
    return lambda obs: act_exactly(v, obs, rng)


def trained() -> Act:
    model = SQL("MlpPolicy", "MultiGoal-v0", seed=0, device="cpu", **SETTINGS, **PARTICLES).learn(STEPS)
    return lambda obs: model.predict(obs)[0]


POLICIES: dict[str, Callable[[], Act]] = {
    "exact maximum-entropy policy": exact,
    "SQL after 30000 steps": trained,
}


def paths(act: Act) -> np.ndarray:
    """:return: Positions of all episodes ``[episodes, steps + 1, 2]``; where a goal was reached, the episode stays."""
    found = play(act, EPISODES, seed=0)[2]
    return np.stack([np.pad(path, ((0, TIME_LIMIT + 1 - len(path)), (0, 0)), mode="edge") for path in found])


def draw(found: dict[str, np.ndarray]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(7.4, 4.2), sharex=True, sharey=True, layout="constrained")
    goals = MultiGoal.goals
    for axis, (name, positions) in zip(axes, found.items(), strict=True):
        nearest = ((positions[:, -1, None] - goals) ** 2).sum(axis=-1).argmin(axis=-1)
        for number, goal in enumerate(goals):
            of_goal = positions[nearest == number]
            axis.plot(*of_goal.T, color=COLOURS[number], linewidth=0.7, alpha=0.7)
            axis.plot(*goal, MARKERS[number], color=COLOURS[number], markersize=8)
            towards = goal / np.abs(goal).max()
            axis.text(*(goal + 1.1 * towards), str(len(of_goal)), ha="center", va="center")
        axis.set(title=name, xlim=(-7, 7), ylim=(-7, 7), aspect="equal", xlabel="x")
        axis.title.set_fontsize("medium")
    axes[0].set_ylabel("y")
    figure.savefig(RESULT.with_suffix(".png"), dpi=110)


def main() -> None:
    th.set_num_threads(1)
    file = RESULT.with_suffix(".npz")
    found = dict(np.load(file)) if file.exists() else {}
    for name, make in POLICIES.items():
        if name not in found:
            found[name] = paths(make()).astype(np.float16)
            np.savez_compressed(file, **found)
            print(name, flush=True)
    draw({name: found[name].astype(float) for name in POLICIES})


if __name__ == "__main__":
    main()
