# %% [markdown]
# # Evaluate, log and stop during training
#
# Callbacks are SB3's. One evaluates the agent and would stop training at a mean return
# of 475, which it does not reach in these 15,000 steps. Another, written here, logs the
# angle of the pole. All of it goes to TensorBoard.

# %%
import gymnasium as gym
import matplotlib.pyplot as plt
from stable_baselines3.common.callbacks import (
    BaseCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_softac import DiscreteSAC


class PoleAngle(BaseCallback):
    """Log the angle of the pole, averaged between two dumps of the log."""

    def _on_step(self):
        # locals are the variables of SB3's collecting loop; new_obs is [n_envs, ...]
        angle = float(abs(self.locals["new_obs"][:, 2]).mean())
        self.logger.record_mean("rollout/pole_angle", angle)
        return True  # False would end the training


model = DiscreteSAC(
    "MlpPolicy",
    "CartPole-v1",
    learning_rate=1e-3,
    target_entropy="ratio_0.5",
    tau=0.02,
    batch_size=64,
    policy_kwargs=dict(net_arch=[64, 64]),
    tensorboard_log="tb",
    seed=0,
)
# Evaluations have an environment of their own; the best model is best/best_model.zip
evaluate = EvalCallback(
    Monitor(gym.make("CartPole-v1")),
    callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=475),
    eval_freq=1_000,
    best_model_save_path="best",
    verbose=0,
)
model.learn(
    total_timesteps=15_000,
    callback=[evaluate, PoleAngle()],
    log_interval=10,  # a dump every 10 episodes
    progress_bar=True,
)

# %% [markdown]
# `tensorboard --logdir tb` shows the curves while the training runs. Here they are read
# from the file.

# %%
events = EventAccumulator("tb/DiscreteSAC_1").Reload()
names = ["rollout/ep_rew_mean", "rollout/pole_angle", "train/entropy"]
axes = plt.figure(figsize=(9, 2.6), layout="constrained").subplots(1, 3)
for axis, name in zip(axes, names, strict=True):
    axis.plot(*zip(*((e.step, e.value) for e in events.Scalars(name)), strict=True))
    axis.set(title=name, xlabel="steps")
plt.savefig("callbacks.png")
print("logged:", *sorted(events.Tags()["scalars"]), sep="\n  ")
