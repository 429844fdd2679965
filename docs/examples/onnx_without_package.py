# %% [markdown]
# # Use a policy without this package
#
# A trained policy becomes an ONNX file, and a program that has neither this package nor
# PyTorch uses it to act. `VecNormalize` is part of what is exported: the program passes
# in raw sensor readings.

# %%
import subprocess
import sys
from pathlib import Path

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SoftAC_v1
from sb3_softac.export import export_onnx

env = VecNormalize(make_vec_env("Pendulum-v1"), norm_reward=False)
model = SoftAC_v1(
    "MlpPolicy",
    env,
    learning_rate=1e-3,
    ent_coef=0.2,
    batch_size=128,
    policy_kwargs=dict(net_arch=[64, 64]),
    seed=0,
)
model.learn(total_timesteps=8_000, progress_bar=True)
export_onnx(model, "pendulum.onnx")  # pip install "sb3_softac[export]" onnxruntime

# %% [markdown]
# What runs on the robot: onnxruntime, NumPy and, in place of the robot, Gymnasium.

# %%
Path("robot.py").write_text("""
import sys

import gymnasium as gym
import onnxruntime

session = onnxruntime.InferenceSession("pendulum.onnx")
env = gym.make("Pendulum-v1")
returns = []
for seed in range(5):
    observation, _ = env.reset(seed=seed)
    returns.append(0.0)
    truncated = False
    while not truncated:
        batch = {"observations": observation[None]}  # of one
        (actions,) = session.run(["actions"], batch)
        observation, reward, _, truncated, _ = env.step(actions[0])
        returns[-1] += reward
assert not {"torch", "stable_baselines3", "sb3_softac"} & sys.modules.keys()
print(f"mean return {sum(returns) / len(returns):.0f}")
""")
robot = [sys.executable, "robot.py"]
print(subprocess.run(robot, check=True, capture_output=True, text=True).stdout)
