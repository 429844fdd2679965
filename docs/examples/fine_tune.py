# %% [markdown]
# # Fine-tune a broad skill
#
# A point learns to get away from the middle in any direction, and then to pass a wall
# whose only door is far off (after the ant and the hallways of
# [arXiv:1702.08165](https://arxiv.org/abs/1702.08165)). In the hall the reward leads
# straight against the wall, and small random steps hardly ever find the door. A model
# that was pretrained at a high temperature ("hot") tries long ways in all directions;
# one that was pretrained at a low temperature ("cold") has settled on a few of them.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac import SQL

HOT, COLD = 0.1, 0.01
WALL, DOOR = 0.3, -0.5  # the wall at x = 0.3 is open below y = -0.5
STUCK = 12.0  # 40 steps at the wall; a higher return means it was passed


class Plane(gym.Env):
    """The reward is the distance from the middle, and in the hall the coordinate x."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, hall):
        self.hall = hall

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.15, 0.15, 2).astype(np.float32)
        return self.position, {}

    def step(self, action):
        """Move by at most 0.05, equally far in all directions; slide along the wall."""
        old, move = self.position, 0.05 * action / max(1.0, np.hypot(*action))
        new = np.clip(old + move, -1.0, 1.0).astype(np.float32)
        if self.hall and (old[0] < WALL) != (new[0] < WALL) and new[1] > DOOR:
            new[0] = old[0]
        self.position = new
        reward = new[0] if self.hall else min(1.0, np.hypot(*new))
        return new, float(reward), False, False, {}


def make(hall, ent_coef, seed):
    return SQL(
        "MlpPolicy",
        Monitor(gym.wrappers.TimeLimit(Plane(hall), 40)),
        learning_rate=2e-3,
        ent_coef=ent_coef,
        gamma=0.95,
        train_freq=4,
        batch_size=64,
        kernel_particles=16,
        value_particles=32,
        policy_kwargs=dict(net_arch=[64, 64]),
        seed=seed,
    )


# %% [markdown]
# Load the pretrained model with the new environment, and let the temperature fall, as
# in section 5.2 of the paper. With `random_steps=0` the first actions are those of the
# pretrained model, not uniform. Pretraining takes two thirds more steps; with equal
# budgets, learning from scratch needs as many.

# %%
falling = LinearSchedule(HOT, COLD, 1.0)
returns = {}
for name, pretraining in {"from scratch": None, "hot": HOT, "cold": COLD}.items():
    for seed in (0, 1, 2):
        model = make(True, falling, seed)
        hall = model.get_env()
        if pretraining is not None:
            make(False, pretraining, seed).learn(total_timesteps=4_000).save("skill")
            model = SQL.load("skill", env=hall, ent_coef=falling, random_steps=0)
        model.learn(total_timesteps=6_000, progress_bar=True)
        (episodes,) = hall.env_method("get_episode_rewards")
        returns.setdefault(name, []).append(episodes)

# %%
plt.figure(figsize=(7, 3.2))
for colour, (name, runs) in enumerate(returns.items()):
    passed = [np.mean([r > STUCK for r in run[-len(run) // 5 :]]) for run in runs]
    print(
        f"{name}: passed the wall in {[f'{p:.0%}' for p in passed]} of the last fifth"
    )
    for seed, run in enumerate(runs):
        label = name if seed == 0 else None
        plt.plot(run, color=f"C{colour}", linewidth=0.7, label=label)
plt.legend()
plt.xlabel("episode in the hall")
plt.ylabel("return")
plt.savefig("fine_tune.png", bbox_inches="tight")
