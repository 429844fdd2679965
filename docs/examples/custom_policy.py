# %% [markdown]
# # A policy and a features extractor of your own
#
# The networks also see the pendulum's angle, and the actor starts with small actions. A
# policy is built by `make_...` methods, which a subclass can override; what else
# `policy_kwargs` can say (`net_arch`, `activation_fn`, ...) still counts.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_softac import SoftAC_v1
from sb3_softac.softac_v1 import SoftACPolicy


class AngleFeatures(BaseFeaturesExtractor):
    """One layer on the cosine, the sine, the speed and the angle itself."""

    def __init__(self, observation_space, features_dim=32):
        super().__init__(observation_space, features_dim)  # how many come out
        self.layer = nn.Linear(4, features_dim)

    def forward(self, observations):  # from [batch, 3] to [batch, features_dim]
        cosine, sine, speed = observations.unbind(dim=1)
        angle = th.atan2(sine, cosine) / th.pi
        return th.relu(self.layer(th.stack([cosine, sine, speed / 8, angle], dim=1)))


class AnglePolicy(SoftACPolicy):
    default_features_extractor_class = AngleFeatures

    def make_actor(self, features_extractor=None):
        """Make the actor with small actions at first; `make_critic` works alike."""
        actor = super().make_actor(features_extractor)
        with th.no_grad():
            actor.mu.weight.mul_(0.01)
        return actor


env = Monitor(gym.make("Pendulum-v1"))
model = SoftAC_v1(
    AnglePolicy,  # a class in place of a name
    env,
    learning_rate=2e-3,
    ent_coef=0.2,
    batch_size=128,
    policy_kwargs=dict(
        features_extractor_kwargs=dict(features_dim=16),
        net_arch=dict(pi=[64], qf=[128], vf=[64]),
    ),
    seed=0,
)
model.learn(total_timesteps=6_000, progress_bar=True)

# %%
plt.figure(figsize=(7, 3))
plt.plot(env.get_episode_rewards())
plt.xlabel("episode")
plt.ylabel("return")
plt.savefig("custom_policy.png", bbox_inches="tight")
mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
print(f"mean return {mean_return:.0f}")
