import itertools
import os
import random
from collections.abc import Generator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy and PyTorch are imported
# The plain way is the specification, and what most tests look into; tests/engines/native compares the fast way with it
os.environ.setdefault("SB3_SOFTAC_FAST", "0")
# Most tests compare numbers of a CPU; TEST_GPU=0 is for tests/engines/cuda_graphs
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("TEST_GPU", "")

import numpy as np
import pytest
import torch as th
from gymnasium.utils import seeding


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The networks of the tests are small: a second thread would only wait for the first."""
    th.set_num_threads(1)


def seed_everything(patch: pytest.MonkeyPatch) -> None:
    """Start all random number generators that are not seeded anew, those that Gymnasium is going to make among them."""
    random.seed(0)
    np.random.seed(0)
    th.manual_seed(0)
    seeds, np_random = itertools.count(1_000), seeding.np_random
    patch.setattr(seeding, "np_random", lambda seed=None: np_random(next(seeds) if seed is None else seed))


@pytest.fixture(autouse=True)
def reproducible(monkeypatch):
    """
    What a test leaves unseeded is the same in every run of the test, but never the same twice within it, so that a test of
    seeding still fails where a seed is forgotten.
    """
    seed_everything(monkeypatch)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """The same for fixtures that several tests share: whichever test comes first, in whatever process, they are the same."""
    if fixturedef.scope == "function":
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        seed_everything(patch)
        return (yield)
