"""
Demonstrations in the replay buffer: a car that has to swing up a hill, and is only rewarded at the top.

Each push costs a little, so an agent that has never been at the top learns to stay where it is. Ten episodes of a simple
controller, put into the replay buffer before the training, show that the top is worth it.
"""

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import SoftAC_v1


def demonstrate(model: SoftAC_v1, episodes: int) -> None:
    """Fill the model's replay buffer with episodes of a controller that pushes in the direction of the motion."""
    env = gym.make("MountainCarContinuous-v0")
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        done = False
        while not done:
            action = np.array([1.0 if obs[1] >= 0 else -1.0], np.float32)
            next_obs, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            # Everything has a first axis for the environments. Actions are stored scaled to [-1, 1], as they are here already;
            # elsewhere: model.policy.scale_action(action). TimeLimit.truncated says that a time limit ended the episode.
            info = {"TimeLimit.truncated": truncated and not terminated}
            model.replay_buffer.add(obs[None], next_obs[None], action[None], np.array([reward]), np.array([done]), [info])
            obs = next_obs


def train(timesteps: int, demonstrations: int) -> float:
    env = Monitor(gym.make("MountainCarContinuous-v0"))
    # random_steps=0: act by the policy from the start, instead of uniformly
    model = SoftAC_v1("MlpPolicy", env, learning_rate=1e-3, ent_coef=0.1, batch_size=128, random_steps=0, train_freq=2, seed=0)
    demonstrate(model, demonstrations)
    model.learn(timesteps)
    mean_return, _ = evaluate_policy(model, env, n_eval_episodes=5)
    return float(mean_return)


def main(timesteps: int = 5_000) -> tuple[float, float]:
    """Return the mean returns without and with demonstrations; more than 90 is solved, 0 is standing still."""
    return train(timesteps, demonstrations=0), train(timesteps, demonstrations=10)


if __name__ == "__main__":
    without, with_them = main()
    print(f"mean return {without:.0f} without demonstrations, {with_them:.0f} with them")
