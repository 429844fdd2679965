"""Libraries whose parts the user puts together in a loop of their own."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.wrappers import DtypeObservation, FlattenObservation

from sb3_softac.conformance import NotApplicable, Subject
from sb3_softac.conformance.subject import SETTINGS


def one_hot(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return DtypeObservation(FlattenObservation(env), np.float32)


class Loop(Subject):
    """SB3's loop around what a library offers, which ``build`` puts together for ``collect`` and ``update``."""

    takes: ClassVar[set[str]] = {"learning_starts", "train_freq", "gradient_steps", "batch_size", "tau", "ent_coef"}
    """What a check may set."""

    def __init__(self, env: Any, seed: int = 0, **settings: Any):
        if unknown := sorted(settings.keys() - self.takes - {"target_entropy"}):
            raise NotApplicable(f"takes no {', '.join(unknown)}")
        self.given, self.seed, self.steps = settings, seed, 0
        self.options = {**SETTINGS, "target_entropy": None, "n_steps": 1, **settings}
        envs = [make() for make in env] if isinstance(env, list) else [env]
        self.model = envs[0]  # for its spaces
        self.envs = [one_hot(each) for each in envs]
        self.seed_everything(seed)
        self.build()

    def build(self) -> None:
        """Create networks, optimizers and a replay buffer."""
        raise NotImplementedError

    def collect(self, steps: int, random: bool) -> None:
        """Take environment steps, by random actions or the policy's."""
        raise NotImplementedError

    def update(self, learning_rate: float) -> None:
        """Take one gradient step."""
        raise NotImplementedError

    def learn(self, steps: int, callback: Any = None) -> None:
        if callback is not None:
            raise NotApplicable("has no callbacks")
        end = self.steps + steps
        while self.steps < end:
            taken = min(self.options["train_freq"] * len(self.envs), end - self.steps)
            self.collect(taken, random=self.steps < self.options["learning_starts"])
            self.steps += taken
            if self.steps > self.options["learning_starts"]:
                for _ in range(self.options["gradient_steps"]):
                    self.update(self.options["learning_rate"](1.0 - self.steps / end))

    def alpha(self) -> tuple[float, bool]:
        """:return: The first temperature, and whether it is learned."""
        start = self.options["ent_coef"]
        return (float((start + "_1").split("_")[1]), True) if isinstance(start, str) else (start, False)

    def has_actor(self) -> bool:
        return True

    def accepts_masks(self) -> bool:
        return False

    def targets(self) -> np.ndarray:
        return np.concatenate([parameter.detach().numpy().ravel() for parameter in self.target_parameters()])

    @th.no_grad()
    def scale_targets(self, factor: float) -> None:
        for parameter in self.target_parameters():
            parameter.mul_(factor)

    def target_parameters(self) -> list[th.Tensor]:
        raise NotImplementedError

    def _obs(self, states: Any) -> np.ndarray:
        return np.eye(self.model.observation_space.n, dtype=np.float32)[np.asarray(states)]
