"""Taxi with action masks: drive only where there is no wall, pick up and drop off only where that does something."""

import gymnasium as gym
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC


def make_env() -> gym.Env:
    # ActionMasker gives the environment the method action_masks(), which is all that DiscreteSAC looks for
    return ActionMasker(Monitor(gym.make("Taxi-v4")), lambda env: env.unwrapped.action_mask(env.unwrapped.s).astype(bool))


def main(timesteps: int = 20_000) -> float:
    """Return the mean return of the deterministic policy over twenty episodes; 7 to 8 is optimal, -200 is never arriving."""
    env = make_env()
    small = dict(net_arch=[64, 64])
    model = DiscreteSAC("MlpPolicy", env, 1e-3, target_entropy="ratio_0.2", batch_size=64, policy_kwargs=small, seed=0)
    model.learn(timesteps)

    obs, _ = env.reset(seed=0)
    action, _ = model.predict(obs, deterministic=True, action_masks=env.action_masks())
    assert env.action_masks()[action]

    mean_return, _ = evaluate_policy(model, make_env(), n_eval_episodes=20)
    return float(mean_return)


if __name__ == "__main__":
    print(f"mean return {main():.1f}")
