"""Train on Pendulum, save, load, and act."""

import tempfile
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import SoftAC_v1


def main(timesteps: int = 10_000) -> float:
    """Return the mean return of the deterministic policy over ten episodes."""
    env = Monitor(gym.make("Pendulum-v1"))
    small = dict(net_arch=[64, 64])  # by default two layers of 256 units
    model = SoftAC_v1("MlpPolicy", env, learning_rate=1e-3, ent_coef=0.2, policy_kwargs=small, seed=0)
    model.learn(timesteps)

    path = Path(tempfile.mkdtemp()) / "softac_v1_pendulum.zip"
    model.save(path)
    model = SoftAC_v1.load(path, env=env)

    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
    return float(mean_return)


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
