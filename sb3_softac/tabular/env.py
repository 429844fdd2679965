"""A finite MDP as a Gymnasium environment, so that deep algorithms can train on an exactly solved problem."""

from typing import Any

import gymnasium as gym
from gymnasium import spaces

from sb3_softac.tabular.mdp import TabularMDP


class TabularEnv(gym.Env[Any, Any]):
    """
    The states and actions are the indices of the MDP; SB3 encodes Discrete observations as one-hot vectors.

    Each step pays the expected reward of its state and action, so returns have less variance than those of an environment with
    random rewards, and the same mean.

    :param mdp: The MDP.
    """

    def __init__(self, mdp: TabularMDP):
        self.mdp = mdp
        self.observation_space = spaces.Discrete(mdp.n_states)
        self.action_space = spaces.Discrete(mdp.n_actions)
        self.state = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """
        :param seed: Seed; None to continue the random number sequence.
        :param options: Not used.
        :return: The first state, drawn from the initial distribution, and an empty dictionary.
        """
        super().reset(seed=seed)
        self.state = int(self.np_random.choice(self.mdp.n_states, p=self.mdp.initial))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """
        :param action: Index of the action.
        :return: Next state, expected reward, whether that state is terminal, False, and an empty dictionary.
        :raises ValueError: if there is no such action.
        """
        if not 0 <= action < self.mdp.n_actions:
            raise ValueError(f"action must be in 0 to {self.mdp.n_actions - 1}, got {action}")
        reward = float(self.mdp.rewards[self.state, action])
        table, row = self.mdp.transitions, self.state * self.mdp.n_actions + int(action)
        # Indexing the matrix by row would make a step three times as slow
        entries = slice(table.indptr[row], table.indptr[row + 1])
        probabilities = table.data[entries]
        self.state = int(self.np_random.choice(table.indices[entries], p=probabilities / probabilities.sum()))
        return self.state, reward, bool(self.mdp.terminal[self.state]), False, {}
