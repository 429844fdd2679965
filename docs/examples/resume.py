"""A training that is cut off and goes on: in the end it has the same numbers as one that was never cut off."""

import tempfile

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint


class PowerCut(BaseCallback):
    """Ends the program in the middle of a training, as a power cut would."""

    not_resumed = ("at",)  # a checkpoint holds the attributes of callbacks, but for those named here

    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            raise KeyboardInterrupt
        return True


def train(folder: str, timesteps: int, power_cut: int = -1) -> SoftAC_v1:
    """Train, and go on from the newest checkpoint in the folder if there is one. Nothing else has to be called."""
    model = SoftAC_v1("MlpPolicy", "Pendulum-v1", learning_rate=1e-3, seed=0)
    return model.learn(timesteps, callback=[ExactCheckpoint(folder, every=timesteps // 4, verbose=1), PowerCut(power_cut)])


def main(timesteps: int = 2_000) -> float:
    """Return the largest difference between the parameters of the two trainings."""
    uninterrupted = train(tempfile.mkdtemp(), timesteps)
    folder = tempfile.mkdtemp()
    try:
        train(folder, timesteps, power_cut=2 * timesteps // 3)
    except KeyboardInterrupt:
        print("cut off")
    resumed = train(folder, timesteps)  # in practice: the same program, started again

    both = zip(uninterrupted.policy.parameters(), resumed.policy.parameters(), strict=True)
    return max(float(th.max(abs(a - b)).detach()) for a, b in both)


if __name__ == "__main__":
    print(f"largest difference {main()}")
