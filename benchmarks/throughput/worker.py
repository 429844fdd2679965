"""
One algorithm in a fresh process: its start, its training loop and the parts of it, as a JSON line for ``run.py``.

All have two hidden layers, one environment and one gradient step per environment step, from step 100 on; what is timed:

- ``1k``: seconds from the start of the process to environment step 1000, imports and compilation included.
- ``loop``: milliseconds per environment step of ``learn()`` from step 1000 to step 2000.
- ``train``: one gradient step as the loop calls it, sampling included; ``sample``: its sampling alone.
- ``act``, ``env``, ``store``: choosing an action, stepping the environment, storing the transition.
- ``memory``: most memory that the process had, in MiB.

Tianshou and TorchRL have other loops: only ``1k``, ``loop``, ``train`` and ``memory`` are measured for them
(``benchmarks/discrete_update.py`` says how).
The name ``limit`` measures no algorithm, but the matrix products that an update of each cannot do without.
"""

import argparse
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

sys.path.insert(0, str(Path(__file__).parents[1]))
STEPS, STEADY, STARTS = 2_000, 1_000, 100
CONTINUOUS, DISCRETE = "Walker2d-v4", "CartPole-v1"
BATCH = {CONTINUOUS: 256, DISCRETE: 64}
BLOCKS, CALLS = 9, 25
Parts = dict[str, Callable[[], Any]]


def make_sb3(name: str) -> tuple[Any, str]:
    """:return: A model with SB3's interface, and its environment."""
    common: dict[str, Any] = dict(learning_starts=STARTS, buffer_size=100_000, seed=0)
    if name == "sbx_sac":
        from sbx import SAC

        return SAC("MlpPolicy", CONTINUOUS, **common), CONTINUOUS
    common["device"] = "cpu"
    fused = dict(optimizer_kwargs=dict(fused=True))
    if name in ("sac", "sac_fused"):
        from stable_baselines3 import SAC as SB3SAC

        return SB3SAC("MlpPolicy", CONTINUOUS, policy_kwargs=fused if name == "sac_fused" else None, **common), CONTINUOUS
    os.environ["SB3_SOFTAC_FAST"] = "0" if name.endswith("_plain") else "1"
    if name.startswith("softac_v1"):
        from sb3_softac import SoftAC_v1

        return SoftAC_v1("MlpPolicy", CONTINUOUS, **common), CONTINUOUS
    common["policy_kwargs"], common["batch_size"] = dict(net_arch=[256, 256]), BATCH[DISCRETE]
    if name == "dqn":
        from stable_baselines3 import DQN

        return DQN("MlpPolicy", DISCRETE, train_freq=1, gradient_steps=1, **common), DISCRETE
    from sb3_softac import DiscreteSAC

    return DiscreteSAC("MlpPolicy", DISCRETE, **common), DISCRETE


def parts_of(model: Any, env_id: str) -> Parts:
    """:return: What one turn of the training loop consists of."""
    env, buffer = model.get_env(), model.replay_buffer
    action, buffer_action = model._sample_action(0, None, 1)
    transition = env.step(action)
    return {
        "train": lambda: model.train(gradient_steps=1, batch_size=BATCH[env_id]),
        "sample": lambda: buffer.sample(BATCH[env_id]),
        "act": lambda: model._sample_action(0, None, 1),
        "env": lambda: env.step(action),
        "store": lambda: model._store_transition(buffer, buffer_action, *transition),
    }


def milliseconds(parts: Parts) -> dict[str, float]:
    """:return: Milliseconds per call of each part: medians over blocks in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(BLOCKS):
        for name, part in parts.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                part()
            times[name].append(1e3 * (time.perf_counter() - start) / CALLS)
    return {name: float(np.median(values)) for name, values in times.items()}


def measure_sb3(name: str, born: float) -> dict[str, float]:
    """
    :param name: Name of the algorithm.
    :param born: When the process was started, in seconds since the epoch.
    :return: What the module's text lists.
    """
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        """Notes the time of some environment steps."""

        def __init__(self) -> None:
            super().__init__()
            self.at: dict[int, float] = {}

        def _on_step(self) -> bool:
            if self.num_timesteps in (STEADY, STEPS):
                self.at[self.num_timesteps] = time.time()
            return True

    model, env_id = make_sb3(name)
    clock = Clock()
    model.learn(STEPS, callback=clock)
    result = {"1k": clock.at[STEADY] - born}
    result["loop"] = 1e3 * (clock.at[STEPS] - clock.at[STEADY]) / (STEPS - STEADY)
    return {**result, **milliseconds(parts_of(model, env_id))}


def measure_other(name: str, born: float) -> dict[str, float]:
    """As :func:`measure_sb3`, for learners with a loop of their own, which have made 5000 random steps before."""
    from discrete_update import make_learner

    learner = make_learner(name, [256, 256])
    result = {}
    learner.loop(STEADY, 1)
    steady = time.time()
    result["1k"] = steady - born
    learner.loop(STEPS - STEADY, 1)
    result["loop"] = 1e3 * (time.time() - steady) / (STEPS - STEADY)
    return {**result, **milliseconds({"train": lambda: learner.update(1)})}


def products(batch: int, sizes: list[int], backward: bool, to_input: int = 0) -> list[tuple[int, int, int]]:
    """
    :param batch: Rows.
    :param sizes: Sizes of input, layers and output of a network.
    :param backward: Whether its weights are trained.
    :param to_input: Columns of the input that need a gradient.
    :return: The matrix products ``(m, k, n)`` of a pass.
    """
    layers = list(pairwise(sizes))
    result = [(batch, i, o) for i, o in layers]
    if backward:
        result += [(i, batch, o) for i, o in layers]
    if backward or to_input:
        result += [(batch, o, i) for i, o in layers[1:]]
    if to_input:
        result.append((batch, layers[0][1], to_input))
    return result


def limits() -> dict[str, list[tuple[int, int, int]]]:
    """:return: The matrix products that an update cannot do without, by algorithm."""
    hidden = [256, 256]
    env = gym.make(CONTINUOUS)
    n_obs, n_act, batch = env.observation_space.shape[0], env.action_space.shape[0], BATCH[CONTINUOUS]
    q, v, pi = [n_obs + n_act, *hidden, 1], [n_obs, *hidden, 1], [n_obs, *hidden, 2 * n_act]
    critics = 2 * (products(batch, q, True) + products(batch, q, False, n_act))
    discrete = [4, *hidden, 2]
    small = BATCH[DISCRETE]
    return {
        "softac_v1": critics + products(batch, v, True) + products(batch, v, False) + products(batch, pi, True),
        "sac": critics + 2 * products(batch, q, False) + products(batch, pi, False) + products(batch, pi, True),
        "discrete_sac": 3 * products(small, discrete, True) + 3 * products(small, discrete, False),
    }


def measure_limit() -> dict[str, float]:
    """:return: Milliseconds of the matrix products by algorithm, each by MKL or by oneDNN, whichever is faster."""
    parts: Parts = {}
    for m, k, n in {shape for shapes in limits().values() for shape in shapes}:
        a, b, out = th.randn(m, k), th.randn(k, n), th.empty(m, n)
        parts[f"mkl {m} {k} {n}"] = lambda a=a, b=b, out=out: th.mm(a, b, out=out)
        parts[f"onednn {m} {k} {n}"] = lambda a=a, b=b: th.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], "")
    times = milliseconds(parts)
    return {
        name: sum(min(times[f"{library} {m} {k} {n}"] for library in ("mkl", "onednn")) for m, k, n in shapes)
        for name, shapes in limits().items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--born", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not get into the answer
    warnings.simplefilter("ignore")
    th.set_num_threads(args.threads)
    np.random.seed(0)
    if args.name == "limit":
        result = measure_limit()
    elif args.name.startswith(("tianshou", "torchrl")):
        result = measure_other(args.name, args.born)
    else:
        result = measure_sb3(args.name, args.born)
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result), file=answers)


if __name__ == "__main__":
    main()
