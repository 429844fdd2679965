"""CleanRL: a script of one file, which is run once for each training and leaves its variables behind."""

import os
import runpy
import sys
from contextlib import redirect_stdout
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.wrappers import FlattenObservation

from sb3_softac.conformance import NotApplicable, Subject
from sb3_softac.conformance.subject import SETTINGS

TAKES = {"learning_starts", "train_freq", "gradient_steps", "batch_size", "tau", "ent_coef"}
"""What a check may set. One gradient step for each step of the environments is what the script does."""


class SAC(Subject):
    """The script has no schedule for learning rates, and networks of 256 units. Densities are in the environment's units."""

    def __init__(self, env: Any, seed: int = 0, **settings: Any):
        if unknown := sorted(settings.keys() - TAKES):
            raise NotApplicable(f"takes no {', '.join(unknown)}")
        if isinstance(settings.get("ent_coef"), str):
            raise NotApplicable("starts a learned temperature at 1, with a target entropy of its own")
        self.options, self.seed, self.steps = {**SETTINGS, **settings}, seed, 0
        self.envs = [make() for make in env] if isinstance(env, list) else [env]
        self.model = self.envs[0]  # for its spaces
        if not isinstance(self.model.action_space, gym.spaces.Box):
            raise ValueError("only continuous action space is supported")

    def learn(self, steps: int, callback: Any = None) -> None:
        if callback is not None or "script" in self.__dict__:
            raise NotApplicable("is a script that trains once, without callbacks")
        self.steps = steps // len(self.envs)

    @cached_property
    def script(self) -> dict[str, Any]:
        """:return: The variables of the script at its end."""
        envs = iter(self.envs)
        gym.register("Conformance-v0", lambda **_: FlattenObservation(next(envs)), disable_env_checker=True)
        names = ("buffer_size", "learning_starts", "batch_size", "tau", "gamma")
        given = {name.replace("_", "-"): self.options[name] for name in names}
        given |= {"env-id": "Conformance-v0", "num-envs": len(self.envs), "total-timesteps": self.steps}
        given |= {"seed": self.seed, "alpha": self.options["ent_coef"], "policy-frequency": 1, "policy-lr": 1e-3}
        arguments = [f"--{name}={value}" for name, value in given.items()] + ["--no-autotune", "--no-cuda"]
        before = os.getcwd()
        with TemporaryDirectory() as folder, open(os.devnull, "w") as nothing, redirect_stdout(nothing), th.enable_grad():
            os.chdir(folder)  # it writes its curves into the working directory
            try:
                with patch.object(sys, "argv", ["sac_continuous_action.py", *arguments]):
                    return runpy.run_module("cleanrl.sac_continuous_action", run_name="__main__")
            finally:
                os.chdir(before)

    def has_actor(self) -> bool:
        return True

    def accepts_masks(self) -> bool:
        return False

    @th.no_grad()
    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        actions, _, mean = self.script["actor"].get_action(self._obs(states))
        return ((mean if deterministic else actions).numpy() - self._middle) / self._half

    @th.no_grad()
    def density(self, states: Any) -> tuple[np.ndarray, np.ndarray]:
        actions, log_prob, _ = self.script["actor"].get_action(self._obs(states))
        return (actions.numpy() - self._middle) / self._half, log_prob[:, 0].double().numpy() + np.log(self._half).sum()

    @th.no_grad()
    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        own = th.as_tensor(self._middle + self._half * actions, dtype=th.float32)
        names = [f"qf{i}" + network.removeprefix("critic") for i in (1, 2)]
        return th.stack([self.script[name](self._obs(states), own)[:, 0] for name in names]).double().numpy()

    @th.no_grad()
    def saturate(self, mean: float) -> None:
        self.script["actor"].fc_mean.weight.zero_()
        self.script["actor"].fc_mean.bias.fill_(mean)

    @th.no_grad()
    def squashed_gaussian(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = self.script["actor"](self._obs([state]))
        return mean[0].double().numpy(), log_std[0].exp().double().numpy()

    def targets(self) -> np.ndarray:
        raise NotApplicable("creates its networks when it trains")

    def scale_targets(self, factor: float) -> None:
        self.targets()

    def reloaded(self, env: Any) -> Subject:
        raise NotApplicable("saves nothing")

    @property
    def _middle(self) -> np.ndarray:
        return (self.model.action_space.high + self.model.action_space.low) / 2.0

    @property
    def _half(self) -> np.ndarray:
        return (self.model.action_space.high - self.model.action_space.low) / 2.0

    def _obs(self, states: Any) -> th.Tensor:
        return th.eye(int(self.model.observation_space.n))[np.asarray(states)]
