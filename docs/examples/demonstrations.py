# %% [markdown]
# # Start from demonstrations
#
# A car has to swing up a hill and is only rewarded at the top. Each push costs a
# little, so an agent that has never been at the top learns to stay where it is. Ten
# episodes of a simple controller, put into the replay buffer before the training, show
# that the top is worth it.

# %%
import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import SoftAC_v1

env = Monitor(gym.make("MountainCarContinuous-v0"))


def demonstrate(model, episodes):
    """Store episodes of a controller that pushes in the direction of the motion."""
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        done = False
        while not done:
            action = np.array([1.0 if obs[1] >= 0 else -1.0], np.float32)
            next_obs, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            # The first axis is that of parallel environments. Actions are stored scaled
            # to [-1, 1], as these are; elsewhere use model.policy.scale_action(action).
            model.replay_buffer.add(
                obs[None],
                next_obs[None],
                action[None],
                np.array([reward]),
                np.array([done]),
                [{"TimeLimit.truncated": truncated and not terminated}],
            )
            obs = next_obs


# %% [markdown]
# With `random_steps=0` there are no uniform actions at the start. A return near
# 90 means that the car reaches the top (90 is solved); 0 is standing still.

# %%
for episodes in (0, 10):
    model = SoftAC_v1(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        ent_coef=0.1,
        batch_size=128,
        random_steps=0,
        train_freq=2,
        seed=0,
    )
    demonstrate(model, episodes)
    model.learn(total_timesteps=5_000, progress_bar=True)
    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=5)
    print(f"after {episodes} demonstrations: mean return {mean_return:.0f}")
