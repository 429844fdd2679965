"""
One algorithm in a fresh process: its training loop and its gradient step, as a JSON line for ``run.py``.

All have two hidden layers, one environment and one gradient step per environment step, from step 100 on; what is timed:

- ``loop``: milliseconds per environment step of ``learn()`` from step 1000 to step 2000.
- ``train``: one gradient step as the loop calls it, sampling included.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th

STEPS, STEADY, STARTS = 2_000, 1_000, 100
CONTINUOUS, DISCRETE = "Walker2d-v4", "CartPole-v1"
BATCH = {CONTINUOUS: 256, DISCRETE: 64}
BLOCKS, CALLS = 9, 25


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


def milliseconds(step: Callable[[], Any]) -> float:
    """:return: Milliseconds per call: the median over blocks."""
    times = []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for _ in range(CALLS):
            step()
        times.append(1e3 * (time.perf_counter() - start) / CALLS)
    return float(np.median(times))


def measure_sb3(name: str) -> dict[str, float]:
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
    return {
        "loop": 1e3 * (clock.at[STEPS] - clock.at[STEADY]) / (STEPS - STEADY),
        "train": milliseconds(lambda: model.train(gradient_steps=1, batch_size=BATCH[env_id])),
    }


def measure_other(name: str) -> dict[str, float]:
    """As :func:`measure_sb3`, for learners with a loop of their own, which have made 5000 random steps before."""
    from peers import check, make_learner

    learner = make_learner(name, [256, 256])
    learner.loop(STEADY)
    steady = time.time()
    learner.loop(STEPS - STEADY)
    result = {"loop": 1e3 * (time.time() - steady) / (STEPS - STEADY), "train": milliseconds(learner.update)}
    check(learner)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not get into the answer
    warnings.simplefilter("ignore")
    th.set_num_threads(args.threads)
    np.random.seed(0)
    measure = measure_other if args.name.startswith(("tianshou", "torchrl")) else measure_sb3
    print(json.dumps(measure(args.name)), file=answers)


if __name__ == "__main__":
    main()
