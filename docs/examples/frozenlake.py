"""FrozenLake solved exactly at three temperatures: the soft value as colours, the policy as arrows."""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from sb3_softac.tabular import SoftSolution, TabularMDP, soft_value_iteration

TEMPERATURES = (0.001, 0.01, 0.1)
# FrozenLake's actions: left, down, right, up (x to the right, y downwards)
DIRECTIONS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
ENDS = [5, 7, 11, 12, 15]  # four holes and the goal


def solve() -> list[SoftSolution]:
    """Return the exact solutions at the three temperatures."""
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1", discount=0.99)
    return [soft_value_iteration(mdp, temperature) for temperature in TEMPERATURES]


def draw(solutions: list[SoftSolution], path: str) -> None:
    """Draw V and the policy of each solution; an arrow is as long as its action is probable."""
    figure, axes = plt.subplots(1, len(solutions), figsize=(11, 3.6))
    for axis, temperature, solution in zip(axes, TEMPERATURES, solutions, strict=True):
        v = solution.v[:-1].copy()  # the last state is the end that every terminal transition leads to
        v[ENDS] = np.nan  # nobody acts in the holes and at the goal
        image = axis.imshow(v.reshape(4, 4), cmap="viridis", extent=(-0.5, 3.5, 3.5, -0.5))
        axis.text(3, 3, "goal", ha="center", va="center")
        states = np.array([state for state in range(16) if state not in ENDS])
        x, y = np.repeat(states % 4, 4), np.repeat(states // 4, 4)
        dx, dy = 0.45 * (solution.pi[states, :, None] * DIRECTIONS).reshape(-1, 2).T
        look = dict(color="white", edgecolor="black", linewidth=0.5, width=0.014, headlength=3, headaxislength=3)
        axis.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, **look)
        axis.set_title(f"temperature {temperature}")
        axis.set(xlim=(-0.5, 3.5), ylim=(3.5, -0.5))
        axis.set_xticks([])
        axis.set_yticks([])
        figure.colorbar(image, ax=axis, label="V")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    draw(solve(), sys.argv[1] if len(sys.argv) > 1 else "frozenlake.png")
