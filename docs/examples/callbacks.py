"""Callbacks and TensorBoard: evaluate on the way, log a number of one's own, and stop when the task is solved."""

import tempfile
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.monitor import Monitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_softac import DiscreteSAC


class PoleAngle(BaseCallback):
    """Log the angle of the pole, averaged between two dumps of the log."""

    def _on_step(self) -> bool:
        # locals are the variables of SB3's collecting loop; new_obs is [n_envs, ...]
        self.logger.record_mean("rollout/pole_angle", float(abs(self.locals["new_obs"][:, 2]).mean()))
        return True  # False would end the training


def main(timesteps: int = 15_000, folder: str | None = None) -> dict[str, float]:
    """Return the last value of each number in the log, by its name in TensorBoard."""
    folder = folder or tempfile.mkdtemp()
    model = DiscreteSAC(
        "MlpPolicy",
        "CartPole-v1",
        1e-3,
        target_entropy="ratio_0.5",
        tau=0.02,
        batch_size=64,
        policy_kwargs=dict(net_arch=[64, 64]),
        tensorboard_log=folder,
        seed=0,
    )
    solved = StopTrainingOnRewardThreshold(reward_threshold=475, verbose=1)
    # Evaluations need an environment of their own; the best model so far is kept as best_model.zip
    evaluate = EvalCallback(
        Monitor(gym.make("CartPole-v1")),
        callback_on_new_best=solved,
        eval_freq=timesteps // 15,
        best_model_save_path=folder,
        verbose=0,
    )
    model.learn(timesteps, callback=[evaluate, PoleAngle()], log_interval=10)  # a dump every 10 episodes

    print(f"look at the curves: tensorboard --logdir {folder}")
    events = EventAccumulator(str(Path(folder, "DiscreteSAC_1"))).Reload()
    return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}


if __name__ == "__main__":
    for tag, value in main().items():
        print(f"{tag}: {value:.4g}")
