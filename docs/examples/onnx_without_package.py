"""Export a policy as ONNX, and use it in a program that has neither this package nor PyTorch."""

import subprocess
import sys
import tempfile
from pathlib import Path

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SoftAC_v1
from sb3_softac.export import export_onnx

# What runs on the robot: onnxruntime, NumPy and, in place of the robot, Gymnasium
ROBOT = """
import sys

import gymnasium as gym
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
env = gym.make("Pendulum-v1")
returns = []
for seed in range(5):
    observation, _ = env.reset(seed=seed)
    returns.append(0.0)
    truncated = False
    while not truncated:
        (actions,) = session.run(["actions"], {"observations": observation[None]})  # a batch of one
        observation, reward, _, truncated, _ = env.step(actions[0])
        returns[-1] += reward
assert not {"torch", "stable_baselines3", "sb3_softac"} & sys.modules.keys()
print(sum(returns) / len(returns))
"""


def main(timesteps: int = 8_000) -> float:
    """Return the mean return of five episodes on the robot."""
    # VecNormalize is part of what is exported: the robot hands in what its sensors say
    env = VecNormalize(make_vec_env("Pendulum-v1"), norm_reward=False)
    small = dict(net_arch=[64, 64])
    model = SoftAC_v1("MlpPolicy", env, learning_rate=1e-3, ent_coef=0.2, batch_size=128, policy_kwargs=small, seed=0)
    model.learn(timesteps)
    path = Path(tempfile.mkdtemp()) / "pendulum.onnx"
    export_onnx(model, path)
    robot = subprocess.run([sys.executable, "-c", ROBOT, str(path)], check=True, capture_output=True, text=True)
    return float(robot.stdout)


if __name__ == "__main__":
    print(f"mean return {main():.0f}")
