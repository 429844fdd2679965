"""
Where the time of one step of ``learn`` goes, as parts that add up::

    OMP_NUM_THREADS=1 python benchmarks/overhead.py

The functions of the loop are timed where they are called, each without those that it calls in turn, so every microsecond
belongs to one part; what is left is SB3's own loop. Processor time of one thread is measured, and what timing itself takes is
subtracted. DiscreteSAC has one-step targets and takes one gradient step per environment step, on 64 transitions.

Writes ``benchmarks/results/overhead.csv``: microseconds per environment step, in the block of steps that took least, so that
the parts add up and other programs disturb little. ``--name`` writes another file, to compare two versions of the package.
"""

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
from sb3_softac.nets.base import BaseActor, BaseCritic
from sb3_softac.nets.gaussian import SquashedGaussianActor

RESULT = Path(__file__).parent / "results" / "overhead.csv"
BLOCKS, STEPS, STARTS = 60, 20, 200
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
    "modes of the networks": [
        (kind, "set_training_mode") for kind in (BaseModel, BaseActor, BaseCritic, SquashedGaussianActor)
    ],
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
IN_C, LOOP, WHOLE = "train: C", "loop: the rest, SB3's own", "whole step"


class Clock:
    """Processor time by part; a part's time is without that of the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls = 0
        self._inner = [0.0]
        self.cost = 0.0
        """Seconds that timing one call adds to what called it."""
        nothing, start = self.timed("", lambda: None), thread_time()
        for _ in range(20_000):
            nothing()
        self.cost = (thread_time() - start - self.seconds.pop("")) / self.calls

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """:return: The function, its time added to that of its part."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self._inner.append(0.0)
            start = thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = thread_time() - start
                self.seconds[part] += took - self._inner.pop()
                self._inner[-1] += took + self.cost

        return call


class Blocks(BaseCallback):
    """Reads a clock after each block of steps."""

    def __init__(self, clock: Clock):
        super().__init__()
        self.clock = clock
        self.blocks: list[dict[str, float]] = []
        """Microseconds per environment step by part."""

    def _on_training_start(self) -> None:
        self._start()

    def _start(self) -> None:
        self.clock.seconds.clear()
        self.clock.calls, self._began = 0, thread_time()

    def _on_step(self) -> bool:
        if self.n_calls % STEPS == 0:
            took = thread_time() - self._began - self.clock.calls * self.clock.cost
            rest = took - sum(self.clock.seconds.values())
            parts = {**self.clock.seconds, LOOP: rest}
            self.blocks.append({part: 1e6 / STEPS * seconds for part, seconds in parts.items()})
            self._start()
        return True


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


def main() -> None:
    th.set_num_threads(1)
    clock = Clock()
    watch(clock)
    best = {}
    for title, make in MODELS.items():
        blocks = Blocks(clock)
        make().learn(STARTS + STEPS).learn(BLOCKS * STEPS, blocks, reset_num_timesteps=False)
        best[title] = min(blocks.blocks, key=lambda parts: sum(parts.values()))
    rows = [[part, *(f"{parts.get(part, 0.0):.1f}" for parts in best.values())] for part in [*PARTS, IN_C, LOOP]]
    rows.append([WHOLE, *(f"{sum(parts.values()):.1f}" for parts in best.values())])
    with open(RESULT, "w", newline="") as file:
        csv.writer(file).writerows([["microseconds per environment step", *best], *rows])
    print(RESULT.read_text(), stable_baselines3.__version__, th.__version__)


if __name__ == "__main__":
    main()
