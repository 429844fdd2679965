"""
A short clip of a trained policy, rendered without a screen.

    MUJOCO_GL=egl python benchmarks/clip.py

plays ``benchmarks/results/halfcheetah.safetensors``, the policy of seed 0 of ``studies/million_steps.yml`` after a million
steps, and writes ``benchmarks/results/halfcheetah.gif``: every other one of 60 steps, from the start on.
"""

from pathlib import Path

import gymnasium as gym
from PIL import Image

from sb3_softac.export import load_policy

RESULTS = Path(__file__).parent / "results"
START, STEPS, EVERY = 4, 60, 2


def main() -> None:
    policy = load_policy(RESULTS / "halfcheetah.safetensors")
    env = gym.make("HalfCheetah-v4", render_mode="rgb_array", camera_name="track", width=320, height=180)
    obs, _ = env.reset(seed=0)
    frames = []
    for step in range(START + STEPS):
        obs, *_ = env.step(policy.predict(obs, deterministic=True)[0])
        if step >= START and step % EVERY == 0:
            frames.append(Image.fromarray(env.render()).quantize(48))
    milliseconds = 1000 * EVERY * env.unwrapped.dt
    frames[0].save(RESULTS / "halfcheetah.gif", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


if __name__ == "__main__":
    main()
