"""
What training costs beyond the gradient steps, and next to SB3's algorithms, on one thread::

    OMP_NUM_THREADS=1 python benchmarks/loop.py

Processor time is measured, so that other programs disturb little. In each round all take turns, ratios are taken within a
round. PPO, DQN and DiscreteSAC train with the Zoo's settings for CartPole-v1 for 25000 steps in all, DiscreteSAC with two
layers of 64 units and in one or in eight environments, as PPO; one round is a fifth of it. Writes to ``results/loop.csv``:
medians and ranges over the rounds.
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import rl_zoo3
import torch as th
import yaml
from overhead import MODELS, STARTS
from rl_zoo3.utils import linear_schedule
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import DiscreteSAC

RESULT = Path(__file__).parent / "results" / "loop.csv"
OURS, ZOOS = Path(__file__).parents[1] / "hyperparams", Path(rl_zoo3.__file__).parent / "hyperparams"
ROUNDS, STEPS = 5, 25_000
DISCRETE, CONTINUOUS = MODELS  # titles
EIGHT, SMALL = "DiscreteSAC, 8 environments", dict(net_arch=[64, 64])
Timer = Callable[[], float]


def zoo(algorithm: Any, folder: Path, **changes: Any) -> Any:
    """:return: A model with the Zoo's settings for CartPole-v1."""
    settings = yaml.safe_load((folder / f"{algorithm.__name__.lower()}.yml").read_text())["CartPole-v1"] | changes
    env = make_vec_env("CartPole-v1", settings.pop("n_envs", 1), seed=0)
    del settings["n_timesteps"]
    for name, value in settings.items():
        if isinstance(value, str) and value.startswith("lin_"):
            settings[name] = linear_schedule(value.removeprefix("lin_"))
        elif isinstance(value, str) and value.startswith("dict("):
            settings[name] = eval(value)
    return algorithm(env=env, device="cpu", seed=0, **settings)


def trained(title: str) -> Any:
    return MODELS[title]().learn(STARTS + 50)


def acting(algorithm: Any, env: str) -> Any:
    return algorithm("MlpPolicy", env, device="cpu", buffer_size=100, policy_kwargs=dict(net_arch=[256, 256]))


def milliseconds(call: Callable[[], Any], calls: int) -> float:
    start = process_time()
    for _ in range(calls):
        call()
    return 1e3 * (process_time() - start) / calls


def loop(model: Any, steps: int) -> Timer:
    """:return: Measures milliseconds per environment step of ``learn``."""

    def measure() -> float:
        before, start = model.num_timesteps, process_time()
        model.learn(steps, reset_num_timesteps=False)
        return 1e3 * (process_time() - start) / (model.num_timesteps - before)

    return measure


def predict(model: Any) -> Timer:
    obs = np.zeros(model.observation_space.shape, np.float32)
    return lambda: milliseconds(lambda: model.predict(obs, deterministic=True), 300)


def main() -> None:
    th.set_num_threads(1)
    discrete, continuous = trained(DISCRETE), trained(CONTINUOUS)
    plan, batch = discrete.engines[0].plan, continuous.batch_size
    small = zoo(DiscreteSAC, OURS, policy_kwargs=SMALL)
    whole, turns = STEPS // ROUNDS, 4
    # By what is timed: how often in a round, and how
    timers: dict[str, tuple[int, Timer]] = {
        "DiscreteSAC": (1, loop(small, whole)),
        EIGHT: (1, loop(zoo(DiscreteSAC, OURS, n_envs=8, train_freq=1, gradient_steps=4, policy_kwargs=SMALL), whole)),
        "PPO": (1, loop(zoo(PPO, ZOOS), whole)),
        "DQN": (1, loop(zoo(DQN, ZOOS), whole)),
        f"learn: {DISCRETE}": (turns, loop(discrete, 200)),
        f"C: {DISCRETE}": (turns, lambda: milliseconds(lambda: plan._step(plan.job), 200)),
        f"learn: {CONTINUOUS}": (turns, loop(continuous, 20)),
        f"train: {CONTINUOUS}": (turns, lambda: milliseconds(lambda: continuous.train(1, batch), 20)),
        "SoftAC_v1.predict": (turns, predict(continuous)),
        "SB3 SAC.predict": (turns, predict(acting(SAC, "Walker2d-v4"))),
        "DiscreteSAC.predict": (turns, predict(acting(DiscreteSAC, "CartPole-v1"))),
        "SB3 DQN.predict": (turns, predict(acting(DQN, "CartPole-v1"))),
    }
    comparisons = [
        ("training on CartPole-v1", "DiscreteSAC", "PPO"),
        ("training on CartPole-v1", "DiscreteSAC", "DQN"),
        ("training on CartPole-v1", EIGHT, "PPO"),
        ("training on CartPole-v1", EIGHT, "DQN"),
        ("a step of learn", f"learn: {DISCRETE}", f"C: {DISCRETE}"),
        ("a step of learn", f"learn: {CONTINUOUS}", f"train: {CONTINUOUS}"),
        ("predict, one observation", "SoftAC_v1.predict", "SB3 SAC.predict"),
        ("predict, one observation", "DiscreteSAC.predict", "SB3 DQN.predict"),
    ]
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(ROUNDS):
        found: dict[str, list[float]] = {name: [] for name in timers}
        for turn in range(turns):
            for name, (number, measure) in timers.items():
                if turn < number:
                    found[name].append(measure())
        for name, values in found.items():
            times[name].append(float(np.mean(values)))
    rows = []
    for what, one, other in comparisons:
        ratios = np.divide(times[one], times[other])
        spread = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        rows.append(
            {
                "what": what,
                "of": one,
                "ms": f"{np.median(times[one]):.3f}",
                "next to": other,
                "its ms": f"{np.median(times[other]):.3f}",
                "ratio, median (range)": spread,
            }
        )
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(RESULT.read_text(), os.getloadavg())


if __name__ == "__main__":
    main()
