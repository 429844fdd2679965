# %% [markdown]
# # FrozenLake, exactly, at three temperatures
#
# Soft value iteration solves the lake without learning. Colours are soft values; an
# arrow is as long as its action is probable. At a high temperature it is worth more to
# wander about at the start than to reach the goal.

# %%
import matplotlib.pyplot as plt
import numpy as np

from sb3_softac.tabular import TabularMDP, soft_value_iteration

# FrozenLake's actions: left, down, right, up (x to the right, y downwards)
DIRECTIONS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
ENDS = [5, 7, 11, 12, 15]  # four holes and the goal
states = np.setdiff1d(np.arange(16), ENDS)

mdp = TabularMDP.from_gymnasium("FrozenLake-v1", discount=0.99)
figure = plt.figure(figsize=(9, 3), layout="constrained")
for axis, temperature in zip(figure.subplots(1, 3), (0.001, 0.01, 0.1), strict=True):
    solution = soft_value_iteration(mdp, temperature)
    v = solution.v[:-1].copy()  # the last state is what all terminal states lead to
    print(f"temperature {temperature}: field {v.argmax()} is worth most")
    v[ENDS] = np.nan  # nobody acts in the holes and at the goal
    image = axis.imshow(v.reshape(4, 4), extent=(-0.5, 3.5, 3.5, -0.5))
    arrows = 0.45 * (solution.pi[states, :, None] * DIRECTIONS).reshape(-1, 2)
    axis.quiver(
        np.repeat(states % 4, 4),
        np.repeat(states // 4, 4),
        *arrows.T,
        angles="xy",
        scale_units="xy",
        scale=1,
        color="white",
        edgecolor="black",
        linewidth=0.5,
        width=0.014,
    )
    axis.text(3, 3, "goal", ha="center", va="center")
    axis.set(title=f"temperature {temperature}", xticks=[], yticks=[])
    figure.colorbar(image, ax=axis, label="soft value")
figure.savefig("frozenlake.png", dpi=80)
