"""A callback that stops one of several processes."""

from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac.algorithm.distributed import rank


class StopOne(BaseCallback):
    """Stop the training in one process after a number of steps."""

    def __init__(self, rank: int, steps: int):
        super().__init__()
        self.rank, self.steps = rank, steps

    def _on_step(self) -> bool:
        return rank() != self.rank or self.num_timesteps < self.steps
