"""
Trained policies in motion, rendered without a screen.

    MUJOCO_GL=egl python benchmarks/clip.py

plays policies of ``studies/million_steps.yml`` that are kept in ``benchmarks/results``: ``halfcheetah.safetensors``, seed 0
after a million steps, as the clip ``halfcheetah.gif``, and ``walker2d.safetensors``, seed 1 after a million steps, as the
filmstrip ``walker2d_strip.png``.
"""

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
from PIL import Image

from sb3_softac.export import load_policy

RESULTS = Path(__file__).parent / "results"


def frames(env_id: str, name: str, first: int, last: int, every: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    """:return: Pictures of some steps of an episode, with the deterministic policy and the camera that follows the body."""
    policy = load_policy(RESULTS / f"{name}.safetensors")
    env = gym.make(env_id, render_mode="rgb_array", camera_name="track", width=size[0], height=size[1])
    obs, _ = env.reset(seed=0)
    for step in range(last):
        obs, *_ = env.step(policy.predict(obs, deterministic=True)[0])
        if step >= first and (step - first) % every == 0:
            yield Image.fromarray(env.render())
    env.close()


def clip() -> None:
    every, seconds_per_step = 2, 0.05
    pictures = [picture.quantize(48) for picture in frames("HalfCheetah-v4", "halfcheetah", 4, 64, every, (320, 180))]
    milliseconds = 1000 * every * seconds_per_step
    pictures[0].save(RESULTS / "halfcheetah.gif", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)


def strip() -> None:
    pictures = list(frames("Walker2d-v4", "walker2d", 300, 396, 12, (180, 300)))
    whole = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number * picture.width, 0))
    whole.quantize(64).save(RESULTS / "walker2d_strip.png", optimize=True)


if __name__ == "__main__":
    clip()
    strip()
