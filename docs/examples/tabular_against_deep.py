# %% [markdown]
# # Compare a network with the exact answer
#
# FrozenLake is small enough to be solved exactly. `DiscreteSAC` learns it at the same
# temperature and discount, or the two would be right about different questions.

# %%
import gymnasium as gym
import numpy as np
import torch as th

from sb3_softac import DiscreteSAC
from sb3_softac.tabular import (
    TabularEnv,
    TabularMDP,
    soft_policy_evaluation,
    soft_value_iteration,
)

TEMPERATURE = 0.05

lake = gym.make("FrozenLake-v1", is_slippery=False)
mdp = TabularMDP.from_gymnasium(lake, discount=0.95)
exact = soft_value_iteration(mdp, TEMPERATURE)

model = DiscreteSAC(
    "MlpPolicy",
    gym.wrappers.TimeLimit(TabularEnv(mdp), 50),
    learning_rate=2e-3,
    ent_coef=TEMPERATURE,
    gamma=mdp.discount,
    batch_size=64,
    tau=0.02,
    policy_kwargs=dict(net_arch=[64]),
    seed=0,
)
model.learn(total_timesteps=8_000, progress_bar=True)

# %% [markdown]
# The probabilities of left, down, right and up at the start:

# %%
states, _ = model.policy.obs_to_tensor(np.arange(mdp.n_states))
with th.no_grad():
    distribution = model.policy.get_distribution(states).distribution
    learned = distribution.probs.double().numpy()
learned /= learned.sum(axis=1, keepdims=True)  # single precision: 1 up to 8 digits
print("exact  ", exact.pi[0].round(2))
print("learned", learned[0].round(2))

# %% [markdown]
# The soft value of the start under three policies. No policy has more than the exact
# one.

# %%
uniform = np.full_like(learned, 1 / mdp.n_actions)
for name, pi in {"exact": exact.pi, "learned": learned, "uniform": uniform}.items():
    value = soft_policy_evaluation(mdp, pi, TEMPERATURE).v[0]
    print(f"{name:8} {value:.3f}")
