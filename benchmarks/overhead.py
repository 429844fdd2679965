"""
Where the time of one step of ``learn`` goes, as parts that add up::

    OMP_NUM_THREADS=1 python benchmarks/overhead.py

The functions of the loop are timed where they are called, each without those that it calls in turn, so every microsecond
belongs to one part; what is left is SB3's own loop. Processor time of one thread is measured, so that other programs disturb
little. What timing itself takes is measured and subtracted. DiscreteSAC trains with the Zoo's settings for CartPole-v1 but for
one gradient step per environment step of 64 transitions.

Writes ``benchmarks/results/overhead.csv``: microseconds per environment step, in the turn that took the least, so that the
parts add up. ``--name`` writes another file, to compare two versions of the package.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import thread_time
from typing import Any

import stable_baselines3
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.vec_env import VecEnv

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm import off_policy
from sb3_softac.algorithm.changes import Functions, ModelWatch
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.discrete.discrete_algorithm import DiscreteOffPolicyAlgorithm
from sb3_softac.engines.native.native_engine import NativeEngine
from sb3_softac.engines.native.plan import Plan

RESULTS = Path(__file__).parent / "results"
TURNS, STEPS, STARTS = 40, 150, 1_000
SETTINGS: dict[str, Any] = dict(learning_starts=STARTS, buffer_size=100_000, seed=0, device="cpu")
CARTPOLE = dict(learning_rate=1e-3, tau=0.05, target_entropy="ratio_0.5", critic_ent_coef_scale=0.0)
MODELS: dict[str, Callable[[], Any]] = {
    "DiscreteSAC, CartPole-v1, 2 x 64, batch 64": lambda: DiscreteSAC(
        "MlpPolicy", make_vec_env("CartPole-v1"), batch_size=64, policy_kwargs=dict(net_arch=[64, 64]), **CARTPOLE, **SETTINGS
    ),
    "SoftAC_v1, Walker2d-v4, 2 x 256, batch 256": lambda: SoftAC_v1("MlpPolicy", make_vec_env("Walker2d-v4"), **SETTINGS),
}
# By part: the functions that belong to it, by the class or module that has them
PARTS: dict[str, list[tuple[Any, str]]] = {
    "acting": [(SoftOffPolicyAlgorithm, "_sample_action"), (DiscreteOffPolicyAlgorithm, "_sample_action")],
    "environment": [(VecEnv, "step")],
    "storing": [(SoftOffPolicyAlgorithm, "_store_transition"), (DiscreteOffPolicyAlgorithm, "_store_transition")],
    "sampling": [(NativeEngine, "sample")],
    "train: modes of the networks": [(BaseModel, "set_training_mode")],
    "train: detecting changes": [
        (ModelWatch, "look"),
        (Functions, "are_original"),
        (SoftOffPolicyAlgorithm, "_follow_arguments"),
        (off_policy, "check_optimizers"),
    ],
    "train: schedules": [(SoftOffPolicyAlgorithm, "_update_learning_rate"), (SoftOffPolicyAlgorithm, "_follow_schedules")],
    "train: logs": [(SoftOffPolicyAlgorithm, "_flush_logs"), (SoftOffPolicyAlgorithm, "count_steps")],
    "train: call of C": [(NativeEngine, "step")],
    "train: the rest": [(SoftOffPolicyAlgorithm, "train")],
    "callbacks": [(BaseCallback, name) for name in ("on_step", "update_locals", "on_rollout_start", "on_rollout_end")],
    "loop: episode statistics": [(SoftOffPolicyAlgorithm, "_update_info_buffer"), (SoftOffPolicyAlgorithm, "dump_logs")],
}
IN_C, LOOP, WHOLE = "train: C", "loop: SB3's own", "whole step"


class Clock:
    """Processor time by part; a part's time is without that of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]
        self._cost = 0.0
        self._cost = self._cost_of_timing()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """:return: The function, its time added to that of its part."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = thread_time() - start
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took + self._cost

        return call

    def _cost_of_timing(self) -> float:
        """:return: Seconds that timing one call adds to what called it."""
        nothing = self.timed("", lambda: None)
        start = thread_time()
        for _ in range(20_000):
            nothing()
        cost = (thread_time() - start - self.seconds.pop("")) / 20_000
        self._inner = [0.0]
        return cost


def watch(clock: Clock) -> None:
    """Have all parts add their time to a clock; before models are made, or they would notice."""
    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, clock.timed(part, getattr(owner, name)))
    make_step = Plan._prepare_step

    def prepare_step(plan: Plan) -> None:
        make_step(plan)
        plan._step = clock.timed(IN_C, plan._step)

    Plan._prepare_step = prepare_step  # type: ignore[method-assign]


def turn(model: Any, clock: Clock) -> dict[str, float]:
    """:return: Microseconds per environment step by part, and of the whole step."""
    clock.seconds.clear()
    learn = clock.timed(LOOP, model.learn)
    learn(STEPS, reset_num_timesteps=False)
    return {part: 1e6 / STEPS * seconds for part, seconds in clock.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="overhead")
    name = parser.parse_args().name
    th.set_num_threads(1)
    clock = Clock()
    watch(clock)
    models = {title: make().learn(STARTS + STEPS) for title, make in MODELS.items()}
    turns: dict[str, list[dict[str, float]]] = {title: [] for title in models}
    for _ in range(TURNS):
        for title, model in models.items():
            turns[title].append(turn(model, clock))
    best = {title: min(of_model, key=lambda parts: sum(parts.values())) for title, of_model in turns.items()}
    rows = [[part, *(f"{parts.get(part, 0.0):.1f}" for parts in best.values())] for part in [*PARTS, IN_C, LOOP]]
    rows.append([WHOLE, *(f"{sum(parts.values()):.1f}" for parts in best.values())])
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["microseconds per environment step", *best], *rows])
    print((RESULTS / f"{name}.csv").read_text(), stable_baselines3.__version__, th.__version__)


if __name__ == "__main__":
    main()
