"""Values come back from JSON and tensors as they were, in their places."""

import collections
import enum
import json

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_softac.resume.codecs import CODECS
from sb3_softac.resume.serialization import Reader, ResumeError, Writer
from tests.resume.harness import same


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


class Thing:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def there_and_back(value, live=None):
    writer = Writer(CODECS)
    written = json.loads(json.dumps(writer.write(value, "value"), allow_nan=False))
    assert writer.unknown == []
    reader = Reader(writer.tensors, CODECS)
    value = reader.read(written, live, "value")
    reader.apply()
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        10**40,
        -0.1,
        float("inf"),
        "text",
        b"bytes",
        [1, [2.5], (3, "x")],
        (),
        {"a": 1, 2: [None], (3, 4): "x"},
        {1, 2},
        np.float32(0.1),
        np.float64("-inf"),
        np.bool_(True),
        np.uint8(200),
        np.str_("text"),
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.array(2.5),
        np.zeros((0, 3)),
        np.arange(12.0).reshape(3, 4).T,
        th.tensor([1.5, float("nan")]),
    ],
    ids=str,
)
def test_values(value):
    back = there_and_back(value)
    assert type(back) is type(value) and same(back, value)


def test_arrays_of_objects():
    value = np.empty(2, dtype=object)
    value[0], value[1] = [1, 2], [3, 4]
    back = there_and_back(value)
    assert back.dtype == object and back.tolist() == [[1, 2], [3, 4]]
    assert there_and_back(np.array([["a", "bc"]])).tolist() == [["a", "bc"]]


def test_containers_of_their_own_type():
    queue = there_and_back(collections.deque([1, 2], maxlen=5))
    assert queue == collections.deque([1, 2]) and queue.maxlen == 5
    assert there_and_back(Point(1, 2), Point(0, 0)) == Point(1, 2)
    counts = there_and_back(collections.defaultdict(list, a=[1]), collections.defaultdict(list, b=[2]))
    assert counts == {"a": [1]} and counts["new"] == []
    assert there_and_back(Colour.RED, Colour.RED) is Colour.RED


def test_what_is_one_object_stays_one():
    array = np.zeros(2)
    thing = Thing(first=array, second=[array], me=None)
    thing.me = thing
    live = Thing(first=None, second=None, me=None)
    assert there_and_back(thing, live) is live is live.me
    assert live.first is live.second[0] and live.first is not array


def test_in_place():
    live = Thing(weights=th.zeros(2, requires_grad=True), inner=Thing(x=0), function=len, other=3)
    weights, inner = live.weights, live.inner
    there_and_back(Thing(weights=th.ones(2), inner=Thing(x=np.float32(2)), function=print), live)
    assert live.weights is weights and (weights == 1).all() and live.inner is inner and inner.x == 2
    assert live.function is len and live.other == 3


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_generators(kind):
    for live in (None, np.random.Generator(kind(1)), np.random.default_rng(2)):
        value = np.random.Generator(kind(0))
        value.normal(size=3)
        back = there_and_back(value, live)
        assert np.array_equal(back.normal(size=5), value.normal(size=5))
        assert (back is live) == (live is not None and type(live.bit_generator) is kind)


@pytest.mark.parametrize("seeded", [False, True])
def test_spaces(seeded):
    def make():
        return spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Tuple([spaces.Discrete(9)] * 2))

    value, live = make(), make()
    live.seed(1)
    if seeded:
        value.seed(0)
        value.sample()
    assert there_and_back(value, live) is live
    if seeded:
        first, second = value.sample(), live.sample()
        assert np.array_equal(first["a"], second["a"]) and first["b"] == second["b"]
    else:
        assert live["a"]._np_random is None


def test_objects_are_not_made():
    with pytest.raises(ResumeError, match=r"value.part is nothing now, but a Thing was saved"):
        there_and_back(Thing(part=Thing()), Thing(part=None))


@pytest.mark.parametrize("value", [iter([]), memoryview(b""), type("Words", (str,), {})("x"), zip(), (i for i in ())])
def test_what_is_no_data_is_named(value):
    writer = Writer(CODECS)
    writer.write(Thing(part=[value]), "value")
    assert len(writer.unknown) == 1 and writer.unknown[0].startswith("value.part.0 (")


@pytest.mark.parametrize("value", [len, same, Thing, np, th.float32])
def test_what_carries_no_state_is_not_named(value):
    writer = Writer(CODECS)
    assert writer.write(value, "value") == {"kept": None} and writer.unknown == []
