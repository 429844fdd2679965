"""Small models on random data, and twins of them whose gradient steps are PyTorch's."""

import pytest
import torch as th

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.engines.native import NativeEngine
from tests.toys import ALGORITHMS as ALL
from tests.toys import make_trained, state_of

ALGORITHMS = [SoftAC_v1, DiscreteSAC]
"""Those that C knows."""
WAYS = [*((algorithm, True) for algorithm in ALGORITHMS), *((algorithm, False) for algorithm in ALL)]
ways = pytest.mark.parametrize(("algorithm", "fast"), WAYS, ids=[f"{a.__name__}-{'fast' if f else 'plain'}" for a, f in WAYS])


def make_model(algorithm, fast=True, **kwargs):
    model = make_trained(algorithm, **kwargs)
    if not fast:
        use_pytorch(model)
    return model


def use_pytorch(model):
    model.engines.clear()


def plan_of(model):
    """What C has been given; None while the steps are PyTorch's."""
    return next((each.plan for each in model.engines if isinstance(each, NativeEngine)), None)


def is_fast(model):
    return plan_of(model) is not None


def both(algorithm, **kwargs):
    """The same model twice: on the fast way, and on the plain one."""
    models = [make_model(algorithm, fast, **kwargs) for fast in (True, False)]
    assert_close(*models, rtol=0.0)
    return models


def logs_of(model):
    return {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}


def difference(mine, theirs):
    """Largest difference, relative to the largest element where that is greater than 1."""
    scale = max(1.0, theirs.abs().max().item())
    return (mine.double() - theirs.double()).abs().max().item() / scale


def differences(a, b):
    mine, theirs = state_of(a), state_of(b)
    assert mine.keys() == theirs.keys()
    found = {name: difference(mine[name], theirs[name]) for name in mine}
    mine, theirs = logs_of(a), logs_of(b)
    assert list(mine) == list(theirs)
    return found | {name: difference(th.tensor(mine[name]), th.tensor(theirs[name])) for name in mine}


def assert_close(a, b, rtol):
    assert a._n_updates == b._n_updates > 0
    wrong = {name: value for name, value in differences(a, b).items() if not value <= rtol}
    assert not wrong, wrong
