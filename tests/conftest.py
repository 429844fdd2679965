import itertools
import random

import numpy as np
import pytest
import torch as th
from gymnasium.utils import seeding


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The networks of the tests are small: a second thread would only wait for the first."""
    th.set_num_threads(1)


@pytest.fixture(autouse=True)
def reproducible(monkeypatch):
    """
    What a test leaves unseeded is the same in every run of the test, but never the same twice within it, so that a test of
    seeding still fails where a seed is forgotten.
    """
    random.seed(0)
    np.random.seed(0)
    th.manual_seed(0)
    seeds, np_random = itertools.count(1_000), seeding.np_random
    monkeypatch.setattr(seeding, "np_random", lambda seed=None: np_random(next(seeds) if seed is None else seed))
