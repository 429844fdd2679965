"""Two CartPoles at once: one action with two branches, MultiDiscrete([2, 2])."""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC


class TwoCarts(gym.Env):
    """The episode ends when one of the poles falls; the observation holds both carts."""

    def __init__(self) -> None:
        self.carts = [gym.make("CartPole-v1"), gym.make("CartPole-v1")]
        self.action_space = gym.spaces.MultiDiscrete([2, 2])
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset both carts."""
        seeds = [None, None] if seed is None else [seed, seed + 1]
        return np.concatenate([cart.reset(seed=s)[0] for cart, s in zip(self.carts, seeds, strict=True)]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Push each cart to its side."""
        obs, rewards, terminated, truncated, _ = zip(
            *(cart.step(int(a)) for cart, a in zip(self.carts, action, strict=True)), strict=True
        )
        return np.concatenate(obs), float(np.mean(rewards)), any(terminated), any(truncated), {}


def main(timesteps: int = 30_000) -> float:
    """Return the mean return of the deterministic policy over ten episodes, at most 500."""
    env = Monitor(TwoCarts())
    small = dict(net_arch=[64, 64])
    model = DiscreteSAC(
        "MlpPolicy", env, 1e-3, target_entropy="ratio_0.5", batch_size=128, tau=0.02, policy_kwargs=small, seed=0
    )
    model.learn(timesteps)

    obs, _ = env.reset(seed=0)
    distribution = model.policy.get_distribution(model.policy.obs_to_tensor(obs)[0])
    for cart, branch in enumerate(distribution.distributions):
        print(f"cart {cart}: probability of left and right {branch.probs[0].tolist()}")

    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
    return float(mean_return)


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
