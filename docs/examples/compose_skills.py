# %% [markdown]
# # Compose two skills
#
# Skill A goes to a vertical line and skill B to a horizontal one. Their composition
# goes to the intersection, for which neither was ever rewarded
# (after [arXiv:1803.06773](https://arxiv.org/abs/1803.06773)).

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import SQL

LINE, MAX_STEPS = 0.5, 20  # the lines x = 0.5 and y = 0.5; steps of an episode


class Plane(gym.Env):
    """A point in a square; the reward is minus its distance to one of the lines."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, coordinate=0):
        self.coordinate = coordinate

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.position, {}

    def step(self, action):
        self.position = np.clip(self.position + 0.25 * action, -1.0, 1.0)
        reward = -float(abs(self.position[self.coordinate] - LINE))
        return self.position, reward, False, False, {}


def make_env(coordinate=0):
    return gym.wrappers.TimeLimit(Plane(coordinate), MAX_STEPS)


# The temperature keeps a skill random in what it does not care for, so that the other
# one may decide there
skills = []
for coordinate in (0, 1):
    skill = SQL(
        "MlpPolicy",
        make_env(coordinate),
        learning_rate=1e-3,
        ent_coef=0.1,
        gamma=0.9,
        train_freq=2,
        batch_size=64,
        kernel_particles=16,
        value_particles=32,
        policy_kwargs=dict(net_arch=[64, 64]),
        seed=0,
    )
    skills.append(skill.learn(total_timesteps=4_000, progress_bar=True))

# %% [markdown]
# `compose` adds the skills' soft Q-functions, and `distil` trains a sampler for the sum
# on the observations that the skills have stored. With `"mean"` in place of `"sum"` the
# composition would be half as decisive as the skills.
#
# A sum of soft Q-functions is not the soft Q-function of the summed rewards: each skill
# assumes a freedom that the other takes away. Here the coordinates do not disturb each
# other, and the sum is right up to a constant.

# %%
both = SQL.compose(
    skills, "sum", learning_rate=1e-3, policy_kwargs=dict(net_arch=[64, 64])
)


def walk(model):
    """Return the positions in 20 episodes of the stochastic policy."""
    env = make_vec_env(make_env, n_envs=20, seed=0)
    positions = [env.reset()]
    while len(positions) < MAX_STEPS:
        positions.append(env.step(model.predict(positions[-1])[0])[0])
    return np.array(positions)  # [MAX_STEPS, 20, 2]


walks = {"skill A": walk(skills[0]), "skill B": walk(skills[1]), "A + B": walk(both)}
both.distil([skill.replay_buffer for skill in skills], gradient_steps=1_000)
walks["A + B distilled"] = walk(both)

# %%
figure = plt.figure(figsize=(9, 2.6), layout="constrained")
for axis, (name, positions) in zip(figure.subplots(1, 4), walks.items(), strict=True):
    axis.plot([LINE, LINE], [-1, 1], "0.7", [-1, 1], [LINE, LINE], "0.7")
    axis.plot(*np.moveaxis(positions, 2, 0), "C0", linewidth=0.7)
    axis.plot(*positions[-1].T, "k.", markersize=4)
    axis.set(title=name, aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    x, y = abs(positions[MAX_STEPS // 2 :] - LINE).mean(axis=(0, 1))
    print(f"{name}: {x:.2f} from the vertical line, {y:.2f} from the horizontal one")
figure.savefig("compose_skills.png", dpi=80)
