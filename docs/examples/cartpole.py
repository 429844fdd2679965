# %% [markdown]
# # Discrete actions: CartPole
#
# `DiscreteSAC` balances a pole. The argument that matters most is `target_entropy`: the
# paper's default keeps the policy nearly uniform; half of the largest entropy lets it
# decide.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

env = Monitor(gym.make("CartPole-v1"))
model = DiscreteSAC(
    "MlpPolicy",
    env,
    learning_rate=1e-3,
    target_entropy="ratio_0.5",
    batch_size=128,
    tau=0.01,
    policy_kwargs=dict(net_arch=[64, 64]),  # by default two layers of 256 units
    seed=0,
)
model.learn(total_timesteps=25_000, progress_bar=True)

# %% [markdown]
# The return of each training episode, at most 500. These episodes explore: their
# actions are drawn from the policy.

# %%
plt.figure(figsize=(7, 3))
plt.plot(env.get_episode_rewards())
plt.xlabel("episode")
plt.ylabel("return")
plt.savefig("cartpole.png", bbox_inches="tight")

# %% [markdown]
# The probabilities of both actions in one state, and the mean return of the
# deterministic policy, which takes the most probable action.

# %%
obs, _ = env.reset(seed=0)
policy = model.policy
distribution = policy.get_distribution(policy.obs_to_tensor(obs)[0]).distribution
print(f"left and right: {distribution.probs[0].detach().numpy().round(2)}")
mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
print(f"mean return {mean_return:.0f}")
