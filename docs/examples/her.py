"""Hindsight experience replay: flip bits until they are those of the goal, with a reward only at the goal."""

from typing import Any

from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

N_BITS = 10  # 1024 states: random flips hardly ever meet the goal


def success_rate(timesteps: int, **buffer: Any) -> float:
    """Train on the same task with the given replay buffer, and return the share of 100 goals that are reached."""
    env = Monitor(BitFlippingEnv(n_bits=N_BITS))  # observations are dictionaries with the keys that HER reads
    settings: dict[str, Any] = dict(learning_rate=1e-3, gamma=0.95, ent_coef=0.05, batch_size=64, train_freq=2, seed=0)
    model = DiscreteSAC("MultiInputPolicy", env, **settings, **buffer)
    model.learn(timesteps)
    # An episode has N_BITS steps of reward -1, or less if it reaches the goal; the last step at the goal has reward 0
    returns, _ = evaluate_policy(model, env, n_eval_episodes=100, return_episode_rewards=True)
    return sum(r > -N_BITS for r in returns) / len(returns)


def main(timesteps: int = 4_000) -> tuple[float, float]:
    """Return the success rates without and with HER."""
    her = dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(n_sampled_goal=4))
    return success_rate(timesteps), success_rate(timesteps, **her)


if __name__ == "__main__":
    without, with_her = main()
    print(f"goals reached: {without:.0%} without HER, {with_her:.0%} with it")
