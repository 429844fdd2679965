"""What a function reads is found out by watching it."""

import collections
import enum
import functools
import threading
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_softac.cuda.reads import Reads

CPU = th.device("cpu")


class Colour(enum.Enum):
    RED, BLUE = 1, 2


@dataclass(frozen=True, slots=True)
class Frozen:
    number: int = 1


class Part:
    def __init__(self):
        self.number = 1

    def double(self):
        return 2 * self.number


class Whole:
    in_class = 1

    def __init__(self):
        self.part, self.parts, self.by_name = Part(), [Part()], {"a": Part()}
        self.number, self.other, self.frozen, self.colour = 1, 1, Frozen(), Colour.RED
        self.callback = Part().double
        self.tensor, self.array, self.empty = th.zeros(2), np.zeros(2), []
        self.module = nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU())

    @property
    def computed(self):
        return self.number + th.ones(1)

    @functools.cached_property
    def cached(self):
        return self.number

    def method(self):
        return self.number


def changes(function, change, whole=None):
    whole = whole or Whole()
    reads = Reads((whole,), CPU)
    with reads.watch():
        function(whole)
    before = reads.snapshots()
    assert reads.changed(before) == []
    change(whole)
    return reads.changed(before)


NUMBER = lambda whole: setattr(whole, "number", 2)  # noqa: E731


@pytest.mark.parametrize(
    ("function", "change", "name"),
    [
        (lambda whole: whole.number, NUMBER, "Whole.number"),
        (lambda whole: whole.number, lambda whole: setattr(whole, "number", 1.0), "Whole.number"),
        (lambda whole: whole.number, lambda whole: delattr(whole, "number"), "Whole.number"),
        (lambda whole: whole.method(), NUMBER, "Whole.number"),
        (lambda whole: whole.method(), lambda whole: setattr(whole, "method", lambda: 0), "Whole.method"),
        (lambda whole: whole.method(), lambda whole: setattr(whole, "method", whole.part.double), "Whole.method"),
        (lambda whole: whole.callback(), lambda whole: setattr(whole.callback.__self__, "number", 2), "Part.number"),
        (lambda whole: whole.computed, NUMBER, "Whole.number"),
        (lambda whole: whole.cached, lambda whole: vars(whole).update(cached=2), "Whole.cached"),
        (lambda whole: whole.in_class, lambda whole: setattr(whole, "in_class", 2), "Whole.in_class"),
        (lambda whole: hasattr(whole, "late"), lambda whole: setattr(whole, "late", 2), "Whole.late"),
        (lambda whole: hasattr(whole.module, "late"), lambda whole: setattr(whole.module, "late", 2), "Sequential.late"),
        (lambda whole: whole.empty, lambda whole: whole.empty.append(1), "Whole.empty"),
        (lambda whole: whole.part.number, lambda whole: setattr(whole.part, "number", 2), "Part.number"),
        (lambda whole: whole.part.double(), lambda whole: setattr(whole.part, "number", 2), "Part.number"),
        (lambda whole: whole.part.number, lambda whole: setattr(whole, "part", Part()), "Whole.part"),
        (lambda whole: whole.parts[0].number, lambda whole: setattr(whole.parts[0], "number", 2), "Part.number"),
        (lambda whole: whole.parts[0].number, lambda whole: whole.parts.append(Part()), "Whole.parts"),
        (lambda whole: whole.by_name["a"].number, lambda whole: setattr(whole.by_name["a"], "number", 2), "Part.number"),
        (lambda whole: whole.frozen.number, lambda whole: object.__setattr__(whole.frozen, "number", 2), "Frozen.number"),
        (lambda whole: whole.colour, lambda whole: setattr(whole, "colour", Colour.BLUE), "Whole.colour"),
        (lambda whole: whole.tensor, lambda whole: setattr(whole, "tensor", th.zeros(2)), "Whole.tensor"),
        (lambda whole: whole.tensor, lambda whole: whole.tensor.requires_grad_(), "Whole.tensor"),
        (lambda whole: whole.array, lambda whole: whole.array.fill(1), "Whole.array"),
        (lambda whole: whole.module(th.zeros(2)), lambda whole: whole.module.append(nn.ReLU()), "Sequential._modules"),
        (
            lambda whole: whole.module(th.zeros(2)),
            lambda whole: setattr(whole.module[1], "negative_slope", 2),
            "negative_slope",
        ),
        (lambda whole: whole.module(th.zeros(2)), lambda whole: whole.module[0].requires_grad_(False), "Linear.weight"),
        (lambda whole: whole.module(th.zeros(2)), lambda whole: setattr(whole.module[0], "bias", None), "Linear.bias"),
    ],
)
def test_changes_are_seen(function, change, name):
    assert any(name in found for found in changes(function, change))


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (lambda whole: whole.other, NUMBER),
        (lambda whole: whole.part, lambda whole: setattr(whole.part, "number", 2)),
        (lambda whole: whole.number, lambda whole: setattr(whole, "number", 1)),
        (lambda whole: whole.tensor, lambda whole: whole.tensor.fill_(3.0)),
        (lambda whole: (setattr(whole, "other", th.ones(1)), whole.other), lambda whole: setattr(whole, "other", 3)),
        (lambda whole: Part().number, lambda whole: None),
    ],
    ids=["not read", "not read of a part", "equal", "elements of a tensor", "set before it was read", "made by the function"],
)
def test_what_is_no_change(function, change):
    assert changes(function, change) == []


@pytest.mark.parametrize(
    "value",
    [
        np.random.default_rng(0),
        threading.Lock(),
        types.SimpleNamespace(number=1),
        np.zeros(5_000),
        np.array([None]),
        iter([1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_followed_counts_as_changed(value):
    whole = Whole()
    whole.value = value
    reads = Reads((whole,), CPU)
    with reads.watch():
        assert whole.value is value
    assert reads.changed(reads.snapshots()) == ["Whole.value"]


@pytest.mark.parametrize(
    "value", [collections.deque([1, {2}]), frozenset({1}), types.MappingProxyType({"a": (1, None)}), functools.partial(int, 1)]
)
def test_what_can_be_followed(value):
    whole = Whole()
    whole.value = value
    assert changes(lambda whole: whole.value, lambda whole: None, whole) == []


def test_tensors_elsewhere_are_read_by_the_host():
    whole = Whole()
    reads = Reads((whole,), th.device("cuda"))
    with reads.watch():
        _ = whole.tensor
    before = reads.snapshots()
    assert reads.changed(before) == []
    whole.tensor.fill_(3.0)
    assert reads.changed(before) == ["Whole.tensor"]


def test_classes_come_back_after_an_error():
    whole = Whole()
    reads = Reads((whole,), CPU)
    with pytest.raises(ZeroDivisionError), reads.watch():
        assert type(whole.part) is not Part and isinstance(whole.part, Part)
        _ = whole.number / 0
    assert type(whole) is Whole and type(whole.part) is Part and type(whole.module) is nn.Sequential


def test_errors_stay_as_they_are():
    whole = Whole()
    with Reads((whole,), CPU).watch():
        with pytest.raises(AttributeError, match="'Whole' object has no attribute 'missing'"):
            _ = whole.missing
        with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'missing'"):
            _ = whole.module.missing
