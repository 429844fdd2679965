# %% [markdown]
# # Action masks: Taxi
#
# Taxi reports its mask in its own way. sb3-contrib's `ActionMasker` gives it the method
# `action_masks()`, which is all that `DiscreteSAC` looks for: the taxi then never
# drives into a wall, and picks up and drops off only where that does something.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC


def mask(env):
    return env.unwrapped.action_mask(env.unwrapped.s).astype(bool)


monitor = Monitor(gym.make("Taxi-v4"))
env = ActionMasker(monitor, mask)
model = DiscreteSAC(
    "MlpPolicy",
    env,
    learning_rate=1e-3,
    ent_coef=0.1,
    batch_size=64,
    policy_kwargs=dict(net_arch=[64, 64]),
    seed=0,
)
model.learn(total_timesteps=30_000, progress_bar=True)

# %% [markdown]
# An episode returns -200 if the passenger never arrives, and 7 to 8 on average if the
# taxi is driven as well as possible.

# %%
plt.figure(figsize=(7, 3))
plt.plot(monitor.get_episode_rewards())
plt.xlabel("episode")
plt.ylabel("return")
plt.savefig("taxi_masks.png", bbox_inches="tight")

# %% [markdown]
# `predict` gets the mask as an argument. sb3-contrib's `evaluate_policy` passes it on.

# %%
obs, _ = env.reset(seed=0)
action, _ = model.predict(obs, deterministic=True, action_masks=env.action_masks())
print(f"mask {env.action_masks().astype(int)}, action {action}")
mean_return, _ = evaluate_policy(model, env, n_eval_episodes=20)
print(f"mean return {mean_return:.1f}")
