"""A features extractor and a policy of one's own: the Pendulum by its angle, with an actor that starts gently."""

import gymnasium as gym
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_softac import SoftAC_v1
from sb3_softac.nets.gaussian import SquashedGaussianActor
from sb3_softac.softac_v1 import SoftACPolicy


class AngleFeatures(BaseFeaturesExtractor):
    """From the cosine, the sine and the speed of the Pendulum to features: one layer on these and on the angle itself."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 32):
        super().__init__(observation_space, features_dim)  # SB3 needs to know how many features come out
        self.layer = nn.Linear(4, features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """From ``[batch, 3]`` to ``[batch, features_dim]``."""
        cosine, sine, speed = observations.unbind(dim=1)
        angle = th.atan2(sine, cosine) / th.pi
        return th.relu(self.layer(th.stack([cosine, sine, speed / 8, angle], dim=1)))


class AnglePolicy(SoftACPolicy):
    """The policy of SoftAC_v1 with these features, and an actor that starts near the middle of the actions."""

    default_features_extractor_class = AngleFeatures

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> SquashedGaussianActor:
        """Make SB3's actor with a last layer that is small at first. ``make_critic`` and ``make_value_net`` work alike."""
        actor = super().make_actor(features_extractor)
        with th.no_grad():
            actor.mu.weight.mul_(0.01)
        return actor


def main(timesteps: int = 6_000) -> float:
    """Return the mean return of the deterministic policy over ten episodes."""
    env = Monitor(gym.make("Pendulum-v1"))
    # A class instead of a name. What else can be said in policy_kwargs (net_arch, activation_fn, ...) still can.
    kwargs = dict(features_extractor_kwargs=dict(features_dim=16), net_arch=dict(pi=[64], qf=[128], vf=[64]))
    model = SoftAC_v1(AnglePolicy, env, learning_rate=2e-3, ent_coef=0.2, batch_size=128, policy_kwargs=kwargs, seed=0)
    model.learn(timesteps)
    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
    return float(mean_return)


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
