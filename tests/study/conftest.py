import tempfile

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_softac.study.training import work
from tests.study.small import ENVIRONMENT, declared


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A study of one small run, trained. Tests leave it as it is, except for returns under perturbations."""
    perturbations = {
        "observation_noise": [0.3],
        "half gravity": {"perturbation": "parameter", "name": "g", "strengths": [0.5, 2.0]},
    }
    study = declared(tmp_path_factory.mktemp("trained"), robustness={"episodes": 3, "perturbations": perturbations})
    work(study, study.runs[0])
    return study


@pytest.fixture
def ray_environment():
    """Environment variables of a process whose Ray neither finds nor is found by another one."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'sb3_softac[cluster]'")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # sockets: short paths
        yield {**ENVIRONMENT, "RAY_TMPDIR": folder, "RAY_ADDRESS": "local"}


class Board(gym.Env):
    """Nothing of it can be perturbed by default: action masks, or observations that are no Box."""

    action_space = spaces.Discrete(2)
    spaces_by_kind = {
        "masked": spaces.Discrete(3),
        "dict": spaces.Dict({"a": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
        "multi": spaces.MultiDiscrete([2, 3]),
    }
    wage = 1.0

    def __init__(self, kind="masked"):
        self.observation_space = self.spaces_by_kind[kind]

    def action_masks(self):
        return np.array([True, True])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action) * self.wage, self.np_random.random() < 0.3, False, {}


@pytest.fixture
def boards():
    """Ids of environments to which no perturbation applies by default."""
    with gym.envs.registration.namespace("boards"):
        for kind in Board.spaces_by_kind:
            gym.register(f"{kind}-v0", entry_point=Board, max_episode_steps=9, kwargs={"kind": kind})
    names = [f"boards/{kind}-v0" for kind in Board.spaces_by_kind]
    yield names
    for name in names:
        del gym.registry[name]
