"""Learn from pixels: catch a ball that falls through a picture of 36 x 36 pixels."""

from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_softac import DiscreteSAC

SIZE, CELL = 36, 6  # pixels of the picture, and of ball and paddle: six columns and six rows


class Catch(gym.Env):
    """The paddle in the lowest row moves left, stays or moves right; the reward is 1 if it is where the ball comes down."""

    action_space = gym.spaces.Discrete(3)
    # Integers from 0 to 255 with the channel in front or at the end are what SB3 recognises as a picture
    observation_space = gym.spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)

    def picture(self) -> np.ndarray:
        picture = np.zeros((SIZE, SIZE, 1), np.uint8)
        for row, column in ((self.row, self.ball), (SIZE // CELL - 1, self.paddle)):
            picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255
        return picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.row, (self.ball, self.paddle) = 0, self.np_random.integers(SIZE // CELL, size=2)
        return self.picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.row, self.paddle = self.row + 1, int(np.clip(self.paddle + action - 1, 0, SIZE // CELL - 1))
        landed = self.row == SIZE // CELL - 1
        return self.picture(), float(landed and self.ball == self.paddle), landed, False, {}


def main(timesteps: int = 2_500) -> float:
    """Return the share of 100 balls that the deterministic policy catches; a paddle that never moves catches a sixth."""
    settings: dict[str, Any] = dict(learning_rate=1e-3, ent_coef=0.02, gamma=0.9, batch_size=32, buffer_size=timesteps, seed=0)
    # CnnPolicy is SB3's: the network of the Atari papers, which divides by 255 and needs 36 x 36 pixels or more.
    # For more than one picture at a time, such as for speeds, wrap the environment in VecFrameStack.
    model = DiscreteSAC("CnnPolicy", Catch(), policy_kwargs=dict(features_extractor_kwargs=dict(features_dim=64)), **settings)
    model.learn(timesteps)
    mean_reward, _ = evaluate_policy(model, Monitor(Catch()), n_eval_episodes=100)
    return float(mean_reward)


if __name__ == "__main__":
    print(f"balls caught {main():.0%}")
