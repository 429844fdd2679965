# %% [markdown]
# # A board game with action masks
#
# Tic-tac-toe against an opponent who plays at random. The environment has a method
# `action_masks()` that names the free fields; nothing has to be switched on.

# %%
import gymnasium as gym
import numpy as np
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

ROWS = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
COLUMNS = [(0, 3, 6), (1, 4, 7), (2, 5, 8)]
DIAGONALS = [(0, 4, 8), (2, 4, 6)]


class TicTacToe(gym.Env):
    """The agent plays 1, the opponent -1; the reward is 1 for a win, -1 for a loss."""

    action_space = gym.spaces.Discrete(9)
    observation_space = gym.spaces.Box(-1.0, 1.0, (9,), np.float32)

    def action_masks(self):
        """The free fields. Not called when the game is over."""
        return self.board == 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.board = np.zeros(9, np.float32)
        if self.np_random.random() < 0.5:  # the opponent opens half of the games
            self.board[self.np_random.integers(9)] = -1
        return self.board.copy(), {}

    def step(self, action):
        assert self.board[action] == 0, "with masks this does not happen"
        self.board[action] = 1
        if not self.has_won(1) and (self.board == 0).any():
            self.board[self.np_random.choice(np.flatnonzero(self.board == 0))] = -1
        reward = float(self.has_won(1)) - float(self.has_won(-1))
        over = reward != 0 or bool((self.board != 0).all())
        return self.board.copy(), reward, over, False, {}

    def has_won(self, player):
        lines = [*ROWS, *COLUMNS, *DIAGONALS]
        return any((self.board[list(line)] == player).all() for line in lines)


# A win is worth 1, so the temperature is small. gamma=1: a game ends, and a late win
# is a win
model = DiscreteSAC(
    "MlpPolicy",
    TicTacToe(),
    learning_rate=1e-3,
    gamma=1.0,
    ent_coef=0.05,
    batch_size=64,
    seed=0,
)
model.learn(total_timesteps=8_000, progress_bar=True)

# %% [markdown]
# The agent has two fields in the first row, the opponent two in the second.

# %%
board = np.array([1, 1, 0, -1, -1, 0, 0, 0, 0], np.float32)
action, _ = model.predict(board, deterministic=True, action_masks=board == 0)
print(f"the agent takes field {action}")

# %% [markdown]
# Wins minus losses as a share of 200 games; random play has about 0.

# %%
share, _ = evaluate_policy(model, Monitor(TicTacToe()), n_eval_episodes=200)
print(f"wins minus losses {share:.0%}")
