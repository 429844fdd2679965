# %% [markdown]
# # Several discrete actions at once
#
# Two CartPoles side by side. An action has two branches, one for each cart:
# `MultiDiscrete([2, 2])`. The networks have one output for each option of each branch,
# so their size grows with the sum of the options and not with their product.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC


class TwoCarts(gym.Env):
    """The episode ends when one of the poles falls; observations hold both carts."""

    action_space = gym.spaces.MultiDiscrete([2, 2])
    observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)

    def __init__(self):
        self.carts = [gym.make("CartPole-v1"), gym.make("CartPole-v1")]

    def reset(self, *, seed=None, options=None):
        seeds = [None, None] if seed is None else [seed, seed + 1]
        starts = [
            cart.reset(seed=s)[0] for cart, s in zip(self.carts, seeds, strict=True)
        ]
        return np.concatenate(starts), {}

    def step(self, action):
        steps = [cart.step(int(a)) for cart, a in zip(self.carts, action, strict=True)]
        obs, rewards, terminated, truncated, _ = zip(*steps, strict=True)
        return (
            np.concatenate(obs),
            float(np.mean(rewards)),
            any(terminated),
            any(truncated),
            {},
        )


env = Monitor(TwoCarts())
model = DiscreteSAC(
    "MlpPolicy",
    env,
    learning_rate=1e-3,
    target_entropy="ratio_0.5",
    batch_size=128,
    tau=0.02,
    policy_kwargs=dict(net_arch=[64, 64]),
    seed=0,
)
model.learn(total_timesteps=30_000, progress_bar=True)

# %%
plt.figure(figsize=(7, 3))
plt.plot(env.get_episode_rewards())
plt.xlabel("episode")
plt.ylabel("return, at most 500")
plt.savefig("two_carts.png", bbox_inches="tight")

# %% [markdown]
# The policy is a product of independent distributions, one for each branch.

# %%
obs, _ = env.reset(seed=0)
distribution = model.policy.get_distribution(model.policy.obs_to_tensor(obs)[0])
for cart, branch in enumerate(distribution.distributions):
    print(f"cart {cart}, left and right: {branch.probs[0].detach().numpy().round(2)}")
mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
print(f"mean return {mean_return:.0f}")
