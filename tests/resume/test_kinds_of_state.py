"""Kinds of state that callbacks and environments are known to keep: restored, or named."""

import collections
import random
import time

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, Image
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, ResumeError
from sb3_softac.resume.serialization import without_state
from tests.resume.harness import Cut, differences, interrupted, uninterrupted
from tests.resume.test_environments import Walk
from tests.resume.test_exact import SMALL, check, maker


class Stateful(BaseCallback):
    """Notes at each step what its state is."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.create()

    def _on_step(self):
        self.seen.append(self.change())
        return True


class Opponent(Stateful):
    """Another algorithm, which learns from the one that is trained."""

    def create(self):
        self.opponent, _ = maker(SoftAC_v1)()

    def change(self):
        if self.num_timesteps == 40:
            self.opponent.set_parameters(self.model.get_parameters())
            self.opponent.gamma = 0.5
        return self.opponent.predict(np.ones(3, np.float32), deterministic=True)[0].tolist(), self.opponent.gamma


class Times(Stateful):
    def create(self):
        self.began, self.largest = time.gmtime(0), th.zeros(2).max(dim=0)

    def change(self):
        self.began, self.largest = time.gmtime(self.num_timesteps), th.arange(self.num_timesteps).max(dim=0)
        return list(self.began), self.largest.values.item()


class Spawns(Stateful):
    def create(self):
        self.rng = np.random.default_rng(0)

    def change(self):
        (child,) = self.rng.spawn(1)
        return child.normal()


class DrawsByAMethod(Stateful):
    def create(self):
        self.draw = random.Random(0).random

    def change(self):
        return self.draw()


class OnTheClass(Stateful):
    def create(self):
        type(self).recent, type(self).rng = collections.deque(maxlen=500), np.random.default_rng(0)

    def change(self):
        self.recent.append(self.rng.normal())
        return [*self.recent]


class Deletes(Stateful):
    def create(self):
        self.warm = True

    def change(self):
        if self.num_timesteps == 40:
            del self.warm
        return hasattr(self, "warm")


class Accumulates(Stateful):
    """Gradients, over several steps."""

    def create(self):
        self.layer = th.nn.Linear(1, 1)
        th.nn.init.ones_(self.layer.weight)
        self.optimizer = th.optim.SGD(self.layer.parameters(), lr=0.01)

    def change(self):
        self.layer(th.ones(1, 1)).sum().backward()
        if self.num_timesteps % 20 == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.layer.weight.item()


KINDS = [Opponent, Times, Spawns, DrawsByAMethod, OnTheClass, Deletes, Accumulates]


@pytest.mark.parametrize("kind", KINDS)
def test_restored(kind, tmp_path):
    made = []

    def callbacks():
        made.append(kind())
        return made[-1:]

    make = maker(SoftAC_v1, callbacks=callbacks)
    expected = uninterrupted(make, 70, tmp_path / "a")
    assert differences(expected, interrupted(make, 70, tmp_path / "b", cuts=(58,))) == []
    assert made[0].seen == made[-1].seen and len(made[0].seen) == 70


class Curriculum(Stateful):
    def create(self):
        self.goals = spaces.Box(-1, 1, (1,))

    def change(self):
        self.goals = spaces.Box(-self.num_timesteps, self.num_timesteps, (1,))


class Replaces(Stateful):
    """A function by another one with the same name and the same variables."""

    def create(self):
        self.choose(1.0)

    def choose(self, k, sign=1):
        self.f = (lambda x: k * x) if sign > 0 else (lambda x: -k * x)

    def change(self):
        self.choose(2.0, 1 - self.num_timesteps)


class DoublePrecision(Stateful):
    def create(self):
        self.z = th.zeros(2, dtype=th.complex128)

    def change(self):
        self.z += 1


class Pictures(Stateful):
    def create(self):
        pass

    def change(self):
        others = ("stdout", "log", "json", "csv")
        self.logger.record("picture", Image(np.zeros((3, 4, 4), np.uint8), "CHW"), exclude=others)
        self.logger.record("hparams", HParam({"a": 1}, {"b": 0}), exclude=others)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Curriculum, r"\.goals \(a space that has changed\)"),
        (Replaces, r"\.f \(function Replaces\.choose.*, created while the training runs\)"),
        (DoublePrecision, r"\.z \(torch\.Tensor\)"),
        (Pictures, r"log\.picture \(Image\); log\.hparams \(HParam\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:These attributes cannot be saved")
def test_named(kind, name, tmp_path):
    """And the training goes on, and can be resumed."""
    make = maker(SoftAC_v1, callbacks=lambda: [kind()])
    with pytest.warns(UserWarning, match=f"These attributes cannot be saved.*{name}"):
        expected = uninterrupted(make, 60, tmp_path / "a")
    assert differences(expected, interrupted(make, 60, tmp_path / "b", cuts=(45,))) == []


class Light(Walk):
    """Its text is the same as at the start when the first checkpoint is saved, and changes soon after."""

    phase = "red"

    def reset(self, **kwargs):
        self.count, self.phase = getattr(self, "count", 0), getattr(self, "phase", "red")
        return super().reset(**kwargs)

    def put(self, value):
        self.count += 1
        if self.count % 40 == 0:
            self.phase = "green" if self.phase == "red" else "red"
        self.value = value + (self.phase == "red")

    def get(self):
        return self.value


class AttrDict(dict):
    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__ = self


class MakesAttrDicts(Walk):
    """In each episode anew; their items are their attributes."""

    def reset(self, **kwargs):
        self.part = AttrDict(count=0)
        return super().reset(**kwargs)

    def put(self, value):
        self.part.count += 1
        self.value = value + self.part["count"]

    def get(self):
        return self.value


@pytest.mark.parametrize("env", [Light, MakesAttrDicts])
def test_environments(env, tmp_path):
    check(maker(SoftAC_v1, env), tmp_path, steps=28, cuts=(27,))


class Growing(Walk):
    """A space of its own grows."""

    count = 0

    def put(self, value):
        self.value, self.count = value, self.count + 1
        self.goals = spaces.Box(-self.count, self.count, (1,))

    def get(self):
        return self.value


def test_a_space_that_an_environment_changes(tmp_path):
    model = SoftAC_v1("MlpPolicy", Growing(), **SMALL)
    with pytest.warns(UserWarning, match=r"episodes start over .*goals \(a space that has changed\) is not plain data"):
        model.learn(30, callback=ExactCheckpoint(tmp_path, 10))


@pytest.mark.parametrize(
    ("module", "expected"),
    [("pygame", True), ("pygame.surface", True), ("pygame.math", False), ("pygame_snake", False), ("rich_rewards.a", False)],
)
def test_which_modules_draw_pictures(module, expected):
    assert without_state(type("Thing", (), {"__module__": module})()) == expected


class NoRestart(gym.Env):
    """Its state cannot be saved."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,))
    hidden = None

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.hidden = memoryview(bytearray(2))
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.filterwarnings("ignore:The state of these environments cannot be saved")
def test_environments_that_refuse_to_start_over(tmp_path):
    def make():
        return SoftAC_v1("MlpPolicy", DummyVecEnv([lambda: Monitor(NoRestart(), allow_early_resets=False)]), **SMALL)

    with pytest.raises(KeyboardInterrupt):
        make().learn(50, callback=[ExactCheckpoint(tmp_path, 10), Cut(25)])
    with pytest.raises(ResumeError, match=r"have to start over, which they refuse .*allow_early_resets=True"):
        make().learn(50, callback=[ExactCheckpoint(tmp_path, 10), Cut(100)])


def test_one_checkpoint_at_a_time(tmp_path):
    model, _ = maker(SoftAC_v1)()
    with pytest.raises(ValueError, match=r"learn\(\) has more than one ExactCheckpoint"):
        model.learn(30, callback=[ExactCheckpoint(tmp_path / "a", 10), ExactCheckpoint(tmp_path / "b", 20)])
