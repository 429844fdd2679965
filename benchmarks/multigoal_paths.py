"""
Episodes on MultiGoal, where four goals are worth the same: a greedy policy, the exact maximum-entropy policy, and what soft
Q-learning has learned.

    python benchmarks/multigoal.py && python benchmarks/multigoal_paths.py

draws ``benchmarks/results/multigoal_paths.png`` from the paths that the first command has recorded.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_softac.envs import MultiGoal
from sb3_softac.study.plots import COLOURS, MARKERS

RESULT = Path(__file__).parent / "results" / "multigoal_paths"
PANELS = {
    "TD3": "TD3: the return alone",
    "exact": "exact maximum-entropy policy",
    "SQL": "SQL: soft Q-learning",
}


def main() -> None:
    found = np.load(RESULT.with_suffix(".npz"))
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharex=True, sharey=True)
    goals = MultiGoal.goals
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        positions = found[name].astype(float)
        nearest = ((positions[:, -1, None] - goals) ** 2).sum(axis=-1).argmin(axis=-1)
        for number, goal in enumerate(goals):
            of_goal = positions[nearest == number]
            axis.plot(*of_goal.T, color=COLOURS[number], linewidth=0.7, alpha=0.7)
            axis.plot(*goal, MARKERS[number], color=COLOURS[number], markersize=8)
            axis.text(*(goal + 1.1 * np.sign(goal)), str(len(of_goal)), ha="center", va="center")
        axis.set(title=title, xlim=(-7, 7), ylim=(-7, 7), aspect="equal", xticks=[], yticks=[])
        axis.title.set_fontsize("medium")
    figure.savefig(RESULT.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
