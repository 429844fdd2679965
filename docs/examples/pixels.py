# %% [markdown]
# # Learn from pixels
#
# A ball falls through a picture of 36 x 36 pixels, and a paddle has to catch it.
# `CnnPolicy` is SB3's: the network of the Atari papers, which divides pixels by 255 and
# needs 36 x 36 of them or more. To show an agent several pictures at a time, so that it
# sees speeds, wrap the environment in `VecFrameStack`.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

CELL, N = 6, 6  # pixels of the ball and the paddle; rows and columns


class Catch(gym.Env):
    """Move left, stay or move right; the reward is 1 for a ball that is caught."""

    action_space = gym.spaces.Discrete(3)
    # SB3 takes integers from 0 to 255 with the channel first or last for a picture
    observation_space = gym.spaces.Box(0, 255, (N * CELL, N * CELL, 1), np.uint8)

    def picture(self):
        picture = np.zeros((N, N), np.uint8)
        picture[self.row, self.ball] = picture[N - 1, self.paddle] = 255
        return picture.repeat(CELL, axis=0).repeat(CELL, axis=1)[..., None]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row, (self.ball, self.paddle) = 0, self.np_random.integers(N, size=2)
        return self.picture(), {}

    def step(self, action):
        self.row += 1
        self.paddle = int(np.clip(self.paddle + action - 1, 0, N - 1))
        landed = self.row == N - 1
        caught = float(landed and self.ball == self.paddle)
        return self.picture(), caught, landed, False, {}


env = Monitor(Catch())
model = DiscreteSAC(
    "CnnPolicy",
    env,
    learning_rate=1e-3,
    ent_coef=0.02,
    gamma=0.9,
    batch_size=32,
    buffer_size=2_500,
    policy_kwargs=dict(features_extractor_kwargs=dict(features_dim=64)),
    seed=0,
)
model.learn(total_timesteps=2_500, progress_bar=True)

# %% [markdown]
# An episode as the agent sees it. A paddle that never moves catches a sixth of the
# balls.

# %%
obs, _ = env.reset(seed=0)
axes = plt.figure(figsize=(8, 1.6)).subplots(1, N)
for step, axis in enumerate(axes):
    axis.imshow(obs[..., 0], cmap="gray")
    axis.set(xticks=[], yticks=[], title=f"step {step}")
    if step < N - 1:
        obs, *_ = env.step(int(model.predict(obs, deterministic=True)[0]))
plt.savefig("pixels.png", bbox_inches="tight")

share, _ = evaluate_policy(model, env, n_eval_episodes=100)
print(f"balls caught {share:.0%}")
