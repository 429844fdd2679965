# %% [markdown]
# # Continuous actions: a pendulum
#
# `SoftAC_v1` learns to swing up Pendulum-v1 and is saved, loaded and evaluated. The
# calls are those of Stable-Baselines3.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import SoftAC_v1

env = Monitor(gym.make("Pendulum-v1"))
small = dict(net_arch=[64, 64])  # by default two layers of 256 units
model = SoftAC_v1(
    "MlpPolicy", env, learning_rate=1e-3, ent_coef=0.2, policy_kwargs=small, seed=0
)
model.learn(total_timesteps=10_000, progress_bar=True)

# %% [markdown]
# The return of each training episode. About -150 is a good swing-up; the start is
# random.

# %%
plt.figure(figsize=(7, 3))
plt.plot(env.get_episode_rewards())
plt.xlabel("episode")
plt.ylabel("return")
plt.savefig("pendulum.png", bbox_inches="tight")

# %% [markdown]
# Save, load, evaluate. `evaluate_policy` acts deterministically: here by the mean of
# the Gaussian.

# %%
model.save("softac_v1_pendulum")
model = SoftAC_v1.load("softac_v1_pendulum", env=env)
mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
print(f"mean return {mean_return:.0f}")
