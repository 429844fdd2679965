"""Train DiscreteSAC on CartPole, save, load, and act."""

import tempfile
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC


def main(timesteps: int = 25_000) -> float:
    """Return the mean return of the deterministic policy over ten episodes, at most 500."""
    env = Monitor(gym.make("CartPole-v1"))
    small = dict(net_arch=[64, 64])  # by default two layers of 256 units
    model = DiscreteSAC(
        "MlpPolicy", env, 1e-3, target_entropy="ratio_0.5", batch_size=128, tau=0.01, policy_kwargs=small, seed=0
    )
    model.learn(timesteps)

    path = Path(tempfile.mkdtemp()) / "discretesac_cartpole.zip"
    model.save(path)
    model = DiscreteSAC.load(path, env=env)

    obs, _ = env.reset(seed=0)
    probabilities = model.policy.get_distribution(model.policy.obs_to_tensor(obs)[0]).distribution.probs
    print(f"probability of left and right at the start: {probabilities[0].tolist()}")

    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=10)
    return float(mean_return)


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
