"""
The conformance suite on other libraries, with their versions. What fails on one seed is tried on another.

Each library has an environment of its own, because their requirements differ. Install PyTorch first, so that nothing later
replaces it by a larger build, then the library, then what this package imports::

    python -m venv sb3-soft && sb3-soft/bin/pip install torch && sb3-soft/bin/pip install sb3-soft
    sb3-soft/bin/pip install sb3-contrib safetensors filelock pyyaml rich scipy
    PYTHONPATH=. sb3-soft/bin/python benchmarks/conformance_field.py SDSAC "SQL of sb3-soft"

``sbx-rl`` in place of ``sb3-soft`` has ``"SAC of SBX"``, and any environment with Stable-Baselines3 has ``"SAC of SB3"``.
"""

import csv
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.wrappers import FlattenObservation

from sb3_softac.conformance import CHECKS, Subject, as_subject
from sb3_softac.conformance.check import KINDS

RESULTS = Path(__file__).parent / "results" / "conformance_field.csv"
HEADER = ["algorithm", "versions", "seed", "check", "kind", "exact", "measured", "low", "high", "tolerance", "verdict"]
SEEDS = (0, 1)


def sac_of_sb3() -> type[Subject]:
    from stable_baselines3 import SAC

    return as_subject(SAC)


def sdsac() -> type[Subject]:
    """Without the entropy penalty and with a range in which nothing is clipped: both are meant to change the fixed point."""
    from sb3_soft import SDSAC

    class Plain(Subject):
        algorithm = SDSAC
        settings: ClassVar[dict[str, Any]] = dict(beta=0.0, clip_range=1e3)

    return Plain


def sql_of_sb3_soft() -> type[Subject]:
    from sb3_soft import SQL

    class OneNetwork(Subject):
        """Its Q-function is one network, and its target follows environment steps, every 10000 of them by default."""

        algorithm = SQL
        settings: ClassVar[dict[str, Any]] = dict(target_update_interval=1)

        @th.no_grad()
        def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
            return self._get(network.replace("critic", "q_net"))(self._obs(states))[None].double().numpy()

        @th.no_grad()
        def scale_targets(self, factor: float) -> None:
            for parameter in self.model.q_net_target.parameters():
                parameter.mul_(factor)

    return OneNetwork


class Jax(Subject):
    """Networks of JAX, and one-hot observations, because SBX takes the index of a state for a number."""

    def __init__(self, env: Any, seed: int = 0, **settings: Any):
        one_hot = [lambda make=make: FlattenObservation(make()) for make in env] if isinstance(env, list) else None
        super().__init__(one_hot or FlattenObservation(env), seed, **settings)

    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        return super().act(self._obs(states), deterministic)

    def density(self, states: Any) -> tuple[np.ndarray, np.ndarray]:
        import jax

        state = self.model.policy.actor_state
        distribution = state.apply_fn(state.params, self._obs(states))
        actions = distribution.sample(seed=jax.random.PRNGKey(0))
        return np.asarray(actions), np.asarray(distribution.log_prob(actions), dtype=np.float64)

    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        state = self.model.policy.qf_state
        parameters = state.params if network == "critic" else state.target_params
        values = state.apply_fn(parameters, self._obs(states), np.asarray(actions, dtype=np.float32))
        return np.asarray(values, dtype=np.float64)[..., 0]

    def temperature(self) -> float:
        state = self.model.ent_coef_state
        return float(state.apply_fn({"params": state.params}))

    def targets(self) -> np.ndarray:
        import jax

        leaves = jax.tree.leaves(self.model.policy.qf_state.target_params)
        return np.concatenate([np.asarray(leaf).ravel() for leaf in leaves])

    def scale_targets(self, factor: float) -> None:
        import jax

        policy = self.model.policy
        scaled = jax.tree.map(lambda leaf: factor * leaf, policy.qf_state.target_params)
        policy.qf_state = policy.qf_state.replace(target_params=scaled)

    def seed_everything(self, seed: int) -> None:
        import jax

        super().seed_everything(seed)
        self.model.key = self.model.policy.key = jax.random.PRNGKey(seed)
        self.model.policy.reset_noise()

    def reloaded(self, env: gym.Env[Any, Any]) -> Subject:
        return super().reloaded(FlattenObservation(env))

    def _obs(self, states: Any) -> np.ndarray:
        return np.eye(self.model.observation_space.shape[0], dtype=np.float32)[np.asarray(states)]


def sac_of_sbx() -> type[Subject]:
    from sbx import SAC

    return type("SAC", (Jax,), {"algorithm": SAC})


FIELD: dict[str, tuple[Callable[[], type[Subject]], list[str]]] = {
    "SAC of SB3": (sac_of_sb3, ["stable-baselines3", "torch"]),
    "SDSAC": (sdsac, ["sb3-soft", "stable-baselines3", "torch"]),
    "SQL of sb3-soft": (sql_of_sb3_soft, ["sb3-soft", "stable-baselines3", "torch"]),
    "SAC of SBX": (sac_of_sbx, ["sbx-rl", "stable-baselines3", "jax"]),
}


def main() -> None:
    th.set_num_threads(1)
    if not RESULTS.exists():
        RESULTS.write_text(",".join(HEADER) + "\n")
    with RESULTS.open(newline="") as file:
        lines = list(csv.reader(file))
    for name in sys.argv[1:] or FIELD:
        subject, packages = FIELD[name][0](), FIELD[name][1]
        versions = " ".join(f"{package}={version(package).partition('+')[0]}" for package in packages)
        for seed in SEEDS:
            for check in CHECKS:
                known = {line[2]: line[-1] for line in lines if (line[0], *line[3:5]) == (name, check.name, check.kind)}
                again = seed == 0 or known.get("0") == "FAIL"  # what has failed is tried on another seed
                if again and str(seed) not in known and not subject.refuses(KINDS[check.kind]):
                    lines.append([str(value) for value in (name, versions, seed, *check.run(subject, seed).as_row())])
                    with RESULTS.open("a", newline="") as file:
                        csv.writer(file, lineterminator="\n").writerow(lines[-1])


if __name__ == "__main__":
    main()
