"""Functions that were replaced, in a subclass, on a class, in a module or on an object, are never bypassed by C."""

import sys
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name

import pytest
from gymnasium import spaces
from torch import nn

import sb3_softac
from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm.engine import PyTorchEngine
from sb3_softac.engines.native.native_engine import PLANS as KINDS
from tests.engines.native.helpers import ALGORITHMS, assert_close, both, is_fast, make_model
from tests.toys import train

PLANS = {plan.algorithm: plan for plan in KINDS}
ARGUMENTS = {
    SoftAC_v1: dict(ent_coef="auto"),
    DiscreteSAC: dict(ent_coef="auto", masked=True, actions=spaces.MultiDiscrete([2, 3])),
}
PACKAGE = Path(sb3_softac.__file__).parent
# Sampling, and looking for changes
NOT_OF_THE_STEP = {"buffers.py", "changes.py", "network_checks.py", "engine.py"}
# Called by both ways (sampling and logging, the temperature), or without influence on the numbers
CALLED_BY_BOTH = {
    *("is_distributed", "alpha", "bound", "optimizers", "__get__"),
    *("set_training_mode", "switch_mode", "_is_in_mode", "__setattr__", "require_same_shape", "nats"),
}


def replaceable(model):
    """Pairs of an owner and the name of a function."""
    table = PLANS[type(model)].replaces(model)
    return [(owner, name) for owner, names in table.items() for name in names if callable(getattr(owner, name))]


def replaced(function):
    @wraps(function)
    def other(*args, **kwargs):
        other.calls += 1
        return function(*args, **kwargs)

    other.calls = 0
    return other


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_function_is_noticed(algorithm, monkeypatch):
    """One after the other; C takes over again when the function of the import is back."""
    model = make_model(algorithm, **ARGUMENTS[algorithm])
    train(model)
    assert is_fast(model)
    for owner, name in replaceable(model):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, replaced(getattr(owner, name)))
            train(model)
            assert not is_fast(model), (owner, name)
        train(model)
        assert is_fast(model), (owner, name)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_list_of_functions_is_complete(algorithm):
    """All functions of the package and of SB3 that a step in PyTorch calls are noticed, or called by C as well."""
    model, called = make_model(algorithm, fast=False, **ARGUMENTS[algorithm]), set()

    def note(frame, event, _):
        file, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if event == "call" and not name.startswith("<") and (PACKAGE in file.parents or "stable_baselines3" in file.parts):
            if file.parent.name != "replay" and file.name not in NOT_OF_THE_STEP:
                called.add(name)

    sys.setprofile(note)
    try:
        engine = PyTorchEngine(model)
        engine.prepare(model.batch_size)
        engine.step([engine.sample(model.batch_size)], [1.0])
    finally:
        sys.setprofile(None)
    known = {name for _, name in replaceable(model)} | CALLED_BY_BOTH
    helpers = {"is_image_space", "max_entropies"}
    assert "_update" in called and called - known - helpers == set()


class OwnPreparation(SoftAC_v1):
    def prepare_networks(self):
        super().prepare_networks()
        self.prepared = getattr(self, "prepared", 0) + 1


class OwnTargets(DiscreteSAC):
    def update_targets(self, weight=1.0):
        super().update_targets(weight)
        self.followed = getattr(self, "followed", 0) + 1


class OwnDeferral(DiscreteSAC):
    def _logs_stay_on_device(self):
        return False


class OwnCritic(SoftAC_v1):
    critic = property(lambda self: self.policy.critic)


@pytest.mark.parametrize("kind", [OwnPreparation, OwnTargets, OwnDeferral, OwnCritic])
def test_subclasses(kind):
    model = make_model(kind)
    train(model), train(model)
    assert not is_fast(model)
    assert getattr(model, "prepared", 3) == getattr(model, "followed", 3) == 3


class OwnHarmless(SoftAC_v1):
    def _on_step(self):
        return super()._on_step()

    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs)


def test_subclasses_that_change_nothing_of_a_step():
    model = make_model(OwnHarmless)
    train(model)
    assert is_fast(model)


def double(function):
    return lambda *args, **kwargs: 2.0 * function(*args, **kwargs)


EFFECTS = {
    "q_loss": (SoftAC_v1, "sb3_softac.softac_v1.softac_v1.q_loss"),
    "log_tanh_jacobian": (SoftAC_v1, "sb3_softac.equations.squashing.log_tanh_jacobian"),
    "StackedMLP": (SoftAC_v1, "sb3_softac.nets.stacked.StackedMLP.forward"),
    "nn.Linear": (SoftAC_v1, "torch.nn.Linear.forward"),
    "policy_entropy": (DiscreteSAC, "sb3_softac.discretesac.discretesac.policy_entropy"),
    "a method that was inherited": (DiscreteSAC, "sb3_softac.discrete.networks.CategoricalActor.features"),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_they_take_effect(name, monkeypatch):
    algorithm, path = EFFECTS[name]
    fast, plain = both(algorithm)
    train(fast), train(plain)
    assert is_fast(fast)
    owner, _, attribute = path.rpartition(".")
    monkeypatch.setattr(path, double(getattr(resolve_name(owner), attribute)), raising=False)
    train(fast, 2), train(plain, 2)
    assert not is_fast(fast)
    assert_close(fast, plain, 1e-5)


CONSTANTS = {
    "LOG_STD_MAX": (SoftAC_v1, "stable_baselines3.sac.policies.LOG_STD_MAX", -3.0),
    "MASKED_LOGIT": (DiscreteSAC, "sb3_softac.discrete.branches.MASKED_LOGIT", -1.0),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_that_are_in_c_too(name, monkeypatch):
    algorithm, path, value = CONSTANTS[name]
    fast, plain = both(algorithm, masked=algorithm is DiscreteSAC)
    monkeypatch.setattr(path, value)
    train(fast, 2), train(plain, 2)
    assert not is_fast(fast)
    assert_close(fast, plain, 1e-5)


@pytest.mark.parametrize("owner", ["model", "actor"])
def test_methods_of_branches(owner):
    fast, plain = both(DiscreteSAC)
    for model in (fast, plain):
        train(model)
        branches = model.branches if owner == "model" else model.actor.branches
        name = "select" if owner == "model" else "log_softmax"
        setattr(branches, name, double(getattr(branches, name)))
        train(model, 2)
    assert not is_fast(fast)
    assert_close(fast, plain, 1e-5)


def test_before_the_first_model(monkeypatch):
    """Those of the import count, not those of the first model."""
    monkeypatch.setattr("sb3_softac.softac_v1.softac_v1.value_loss", double(nn.functional.mse_loss))
    model = make_model(SoftAC_v1)
    train(model)
    assert not is_fast(model)
