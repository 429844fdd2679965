"""A board game with action masks: tic-tac-toe against an opponent who plays at random."""

from typing import Any

import gymnasium as gym
import numpy as np
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


class TicTacToe(gym.Env):
    """The agent has the crosses (1), the opponent the noughts (-1); the reward is 1 for a win and -1 for a loss."""

    action_space = gym.spaces.Discrete(9)
    observation_space = gym.spaces.Box(-1.0, 1.0, (9,), np.float32)

    def action_masks(self) -> np.ndarray:
        """The free fields. A method of this name is all that DiscreteSAC needs; it is not called when the game is over."""
        return self.board == 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.board = np.zeros(9, np.float32)
        if self.np_random.random() < 0.5:  # half of the games are opened by the opponent
            self.board[self.np_random.integers(9)] = -1
        return self.board.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.board[action] == 0, "a mask that is respected makes this impossible"
        self.board[action] = 1
        if not self.has_won(1) and (self.board == 0).any():
            self.board[self.np_random.choice(np.flatnonzero(self.board == 0))] = -1
        reward = float(self.has_won(1)) - float(self.has_won(-1))
        return self.board.copy(), reward, reward != 0 or bool((self.board != 0).all()), False, {}

    def has_won(self, player: int) -> bool:
        return any((self.board[list(line)] == player).all() for line in LINES)


def main(timesteps: int = 8_000) -> float:
    """Return the mean reward of 200 games: wins minus losses, as a share of the games. Random play has about 0."""
    # A win is worth 1, so the temperature is small; gamma=1 as a game has an end, and a late win is a win
    model = DiscreteSAC("MlpPolicy", TicTacToe(), learning_rate=1e-3, gamma=1.0, ent_coef=0.05, batch_size=64, seed=0)
    model.learn(timesteps)

    board = np.array([1, 1, 0, -1, -1, 0, 0, 0, 0], np.float32)
    action, _ = model.predict(board, deterministic=True, action_masks=board == 0)
    print(f"two crosses in the first row, two noughts in the second: the agent takes field {action}")

    mean_reward, _ = evaluate_policy(model, Monitor(TicTacToe()), n_eval_episodes=200)
    return float(mean_reward)


if __name__ == "__main__":
    print(f"wins minus losses {main():.0%}")
