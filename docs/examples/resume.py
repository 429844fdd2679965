# %% [markdown]
# # Resume after an interruption
#
# Training is interrupted and resumed, and ends with the same numbers as a run that was
# never interrupted. All it takes is the callback `ExactCheckpoint`: the same program,
# started again, goes on from the newest checkpoint in its folder.

# %%
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint


class PowerCut(BaseCallback):
    """Ends the program in the middle of a training, as a power cut would."""

    not_resumed = ("at",)  # checkpoints hold all attributes of callbacks but these

    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        if self.num_timesteps == self.at:
            raise KeyboardInterrupt
        return True


def train(folder, power_cut=-1):
    model = SoftAC_v1("MlpPolicy", "Pendulum-v1", learning_rate=1e-3, seed=0)
    callbacks = [ExactCheckpoint(folder, every=500, verbose=1), PowerCut(power_cut)]
    return model.learn(total_timesteps=2_000, callback=callbacks)


uninterrupted = train("uninterrupted")

# %%
try:
    train("interrupted", power_cut=1_333)
except KeyboardInterrupt:
    print("cut off")

# %% [markdown]
# The same call once more. The largest difference between the parameters of both models
# is 0: they are equal bit for bit.

# %%
resumed = train("interrupted")
pairs = zip(uninterrupted.policy.parameters(), resumed.policy.parameters(), strict=True)
print("largest difference:", max(float(abs(a - b).max().detach()) for a, b in pairs))
