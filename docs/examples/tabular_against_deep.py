"""Tabular against deep: DiscreteSAC on FrozenLake, next to the policy that is exactly right at the same temperature."""

import gymnasium as gym
import numpy as np
import torch as th

from sb3_softac import DiscreteSAC
from sb3_softac.tabular import TabularEnv, TabularMDP, soft_policy_evaluation, soft_value_iteration

TEMPERATURE = 0.05


def main(timesteps: int = 8_000) -> tuple[float, float, float]:
    """Return the soft value of the start: of the exact policy, of the learned one, and of uniformly random actions."""
    mdp = TabularMDP.from_gymnasium(gym.make("FrozenLake-v1", is_slippery=False), discount=0.95)
    exact = soft_value_iteration(mdp, TEMPERATURE)

    # The same temperature and discount, or the two would be right about different questions
    env = gym.wrappers.TimeLimit(TabularEnv(mdp), 50)
    settings = dict(learning_rate=2e-3, batch_size=64, policy_kwargs=dict(net_arch=[64]), tau=0.02, seed=0)
    model = DiscreteSAC("MlpPolicy", env, ent_coef=TEMPERATURE, gamma=mdp.discount, **settings)
    model.learn(timesteps)

    states, _ = model.policy.obs_to_tensor(np.arange(mdp.n_states))
    with th.no_grad():
        pi = model.policy.get_distribution(states).distribution.probs.double().numpy()
    pi /= pi.sum(axis=1, keepdims=True)  # in single precision they sum to 1 but for the eighth digit
    print(f"start, left down right up: exact {exact.pi[0].round(2)}, learned {pi[0].round(2)}")

    def value_of_start(policy: np.ndarray) -> float:
        return float(soft_policy_evaluation(mdp, policy, TEMPERATURE).v[0])

    return float(exact.v[0]), value_of_start(pi), value_of_start(np.full_like(pi, 1 / mdp.n_actions))


if __name__ == "__main__":
    exact, learned, uniform = main()
    print(f"soft value of the start: {exact:.3f} exact, {learned:.3f} learned, {uniform:.3f} at random")
