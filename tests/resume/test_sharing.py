"""What objects share with one another, they share again when they are restored in a new program."""

import collections
import dataclasses
import enum
import functools
import io
import json
import random
import weakref

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_softac.resume.environments import CannotCapture, read_environments, write_environments
from sb3_softac.resume.serialization import Baseline


class Base(gym.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.begin()
        return self.seen(), {}

    def step(self, action):
        self.move(float(action[0]))
        return self.seen(), 0.0, False, False, {}

    def begin(self):
        pass

    def seen(self):
        return np.array(self.look(), dtype=float).ravel()


def started(make):
    env, baseline = make(), Baseline()
    env.reset(seed=0)
    write_environments([env], "env", baseline, recording=True)
    return env, baseline


def restored(make, steps=5, resets=1):
    """:return: An environment after some steps, and one of a new program that has been restored from it."""
    first, baseline = started(make)
    for _ in range(resets):
        for step in range(steps):
            first.step([0.1 * step])
        first.reset()
    for step in range(steps):
        first.step([0.1 * step])
    written, tensors = write_environments([first], "env", baseline)
    second, baseline = started(make)
    read_environments([second], "env", json.loads(json.dumps(written)), tensors, baseline)()
    return first, second


def check(make, resets=1):
    first, second = restored(make, resets=resets)
    for step in range(12):
        if step == 7:
            assert np.array_equal(first.reset()[0], second.reset()[0])
        one, other = (env.step([0.3 - 0.1 * step])[0] for env in (first, second))
        assert one.tobytes() == other.tobytes(), step


def views():
    class Env(Base):
        def __init__(self):
            self.state = np.zeros(4)
            self.pos, self.speed = self.state[:2], self.state[2:]
            self.backwards = self.state[::-1]

        def move(self, action):
            self.speed += action
            self.pos += self.speed
            self.backwards[0] += 1

        def look(self):
            return self.state

    return Env()


def new_views():
    """Views that are made anew at each reset, of memory that is new too, and of different types."""

    class Env(Base):
        def begin(self):
            self.bytes = np.zeros(64, np.uint8)
            self.pos = self.bytes[8:24].view(np.float64)
            self.one = self.pos[1:]

        def move(self, action):
            self.one += action
            self.pos *= 1.5

        def look(self):
            return [*self.pos, *self.one]

    return Env()


def new_view_of_old():
    class Env(Base):
        def __init__(self):
            self.state = np.zeros((3, 4), order="F")

        def move(self, action):
            self.column = self.state[:, 1]
            self.column += action
            self.state[0] += 1

        def look(self):
            return self.state if not hasattr(self, "column") else [*self.state.ravel(), *self.column]

        def begin(self):
            if not hasattr(self, "column"):
                self.column = self.state[:, 1]

        def step(self, action):
            self.column += 0.5
            return super().step(action)

    return Env()


def tensors():
    class Env(Base):
        def __init__(self):
            self.state = np.zeros(3, np.float32)
            self.tensor = th.from_numpy(self.state)
            self.other = self.tensor[1:]

        def begin(self):
            self.new = np.ones(2)
            self.shared = th.from_numpy(self.new)

        def move(self, action):
            self.other += action
            self.state *= 1.5
            self.shared += 1

        def look(self):
            return [*self.state, *self.tensor.tolist(), *self.new]

    return Env()


def closures():
    class Env(Base):
        def __init__(self):
            state, count, self.box = np.zeros(2), 0, [0.0]

            def move(action):
                nonlocal count
                count += 1
                state[0] += action * count

            self.move, self.look = move, lambda: [*state, *self.box]
            self.add = self.box.append
            self.partial = functools.partial(np.add, state, 1, out=state)

        def step(self, action):
            self.add(len(self.box))
            del self.box[0]
            self.partial()
            return super().step(action)

    return Env()


def generators():
    class Env(Base):
        def __init__(self):
            bits = np.random.SFC64(3)
            self.one, self.other = np.random.Generator(bits), np.random.Generator(bits)
            self.old = np.random.RandomState(np.random.MT19937(1))
            self.mine, self.torch = random.Random(2), th.Generator().manual_seed(4)
            self.draw = self.one.normal

        def begin(self):
            self.renewed = np.random.default_rng(int(self.np_random.integers(99)))
            self.same = self.renewed

        def move(self, action):
            self.values = [self.draw(), self.other.normal(), self.old.normal(), self.mine.gauss(0, 1)]
            self.values += [self.renewed.normal(), self.same.normal(), th.rand(1, generator=self.torch).item()]

        def look(self):
            return getattr(self, "values", [])

    return Env()


def layouts():
    class Env(Base):
        def __init__(self):
            rng = np.random.default_rng(0)
            self.matrix = np.asfortranarray(rng.normal(size=(7, 7)))
            self.x = rng.normal(size=14)[::2]
            self.tensor = th.from_numpy(rng.normal(size=(7, 7))).T

        def begin(self):
            self.renewed = np.asfortranarray(self.np_random.normal(size=(3, 7)))
            self.wide = np.broadcast_to(self.np_random.normal(size=7), (2, 7))

        def move(self, action):
            self.x += action + self.matrix @ self.x / 10
            assert self.matrix.flags.f_contiguous and self.tensor.stride() == (1, 7) and self.renewed.flags.f_contiguous
            assert self.x.strides == (16,) and self.wide.strides == (0, 8) and not self.wide.flags.writeable

        def look(self):
            return [*(self.matrix @ self.x), *(self.renewed @ self.x), *(self.tensor.numpy() @ self.x)]

    return Env()


class Table(dict):
    pass


class Track(np.ndarray):
    pass


class Phase(enum.Enum):
    DAY, NIGHT = "day", "night"


class Bits(enum.Flag):
    A, B = 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: float
    y: list


class Slotted:
    __slots__ = ("__weakref__", "unset", "value")


@dataclasses.dataclass(frozen=True)
class Spot:
    x: int


Pair = collections.namedtuple("Pair", "a b")


def containers():
    class Env(Base):
        def __init__(self):
            self.table, self.track = Table(a=1), np.zeros(2).view(Track)
            self.table.hits = self.track.laps = 0
            self.slotted, self.frozen, self.pair = Slotted(), Frozen(0.0, [1]), Pair(1, [2])
            self.slotted.value = 0
            self.reference = weakref.ref(self.slotted)
            self.phase, self.bits = Phase.DAY, Bits.A
            self.queue, self.ordered = collections.deque([1], maxlen=3), collections.OrderedDict(x=1, y=2)
            self.lists, self.counter = collections.defaultdict(list), collections.Counter()
            self.me, self.alias, self.swap = [self], self.queue, [[0.0], [1.0]]
            self.numbers, self.raw, self.large = set(), bytearray(2), 10**5000  # more digits than Python reads
            self.behave = self.idle

        def idle(self):
            self.behave = self.busy
            return 1.0

        def busy(self):
            return 2.0

        @functools.cached_property
        def scale(self):
            return float(self.np_random.normal())

        def move(self, action):
            self.table[len(self.table)] = action
            self.table.hits += 1
            self.track += action
            self.track.laps += 1
            self.slotted.value += 1
            self.frozen = Frozen(self.frozen.x + action, [*self.frozen.y, 1])
            self.pair = Pair(self.pair.a + 1, self.pair.b)
            self.pair.b[0] += 1
            self.phase, self.bits = Phase.NIGHT, Bits.A | Bits.B
            self.alias.append(action)
            self.ordered.move_to_end("x")
            self.lists[self.table.hits].append(1)
            self.counter["x"] += 1
            self.swap.reverse()
            self.swap[0][0] += 1
            self.numbers.add(self.table.hits)
            self.raw[0] += 1
            self.large += 1
            self.rest = self.behave()
            if self.table.hits == 3:
                self.scale  # noqa: B018

        def look(self):
            self.lists["new"]
            return [
                *(len(self.table), self.table.hits, *self.track, self.track.laps, self.reference().value, self.frozen.x),
                *(len(self.frozen.y), self.pair.a, self.pair.b[0], self.phase is Phase.NIGHT, self.bits.value, *self.queue),
                *(*self.ordered.values(), len(self.lists), self.counter["x"], self.me[0].table.hits, self.swap[0][0]),
                *(sum(self.numbers), self.raw[0], self.large % 7, self.scale, getattr(self, "rest", 0.0)),
            ]

    return Env()


def classes():
    class Env(Base):
        steps, history, best = 0, [], None

        def move(self, action):
            type(self).steps += 1
            self.history.append(action)
            type(self).best = np.array([action])

        def look(self):
            return [self.steps, len(self.history), sum(self.history), *(() if self.best is None else self.best)]

    return Env()


def constants():
    """Where a value was taken from stays as it is when the value is replaced."""

    class Env(Base):
        start, goals = np.ones(2), [1.0, 2.0]

        def begin(self):
            self.state, self.left = self.start, self.goals

        def move(self, action):
            self.state = self.state + action
            self.left = [*self.left[:1], action]

        def look(self):
            return [*self.state, *self.start, *self.left, *self.goals]

    return Env()


def same_at_first():
    """What is one object at the start and several later, and the other way round."""

    class Point:
        def __init__(self):
            self.x = 0.0

    class Env(Base):
        def __init__(self):
            self.now = self.before = Point()
            self.one, self.two = np.zeros(1), np.zeros(1)

        def move(self, action):
            if self.now is self.before:
                self.now = Point()
                self.two = self.one
            self.now.x += action
            self.one += 1

        def look(self):
            return [self.now.x, self.before.x, *self.one, *self.two]

    return Env()


def vanishing():
    """Attributes that are there at the start and not later."""

    class Env(Base):
        def __init__(self):
            self.first, self.table = True, {"a": 1, "b": 2}

        def move(self, action):
            if hasattr(self, "first"):
                del self.first
            self.table.pop("a", None)

        def look(self):
            return [hasattr(self, "first"), len(self.table)]

    return Env()


def keys():
    """Keys that a file cannot create."""

    class Env(Base):
        def __init__(self):
            self.counts = dict.fromkeys([Phase.DAY, Pair(0, 0), Spot(0), int, (Phase.NIGHT, 1), "a"], 0.0)
            self.phases, self.pairs = {Phase.DAY}, collections.Counter({Pair(1, 0): 1})

        def move(self, action):
            self.counts = {key: self.counts[key] + action * i for i, key in enumerate(reversed(self.counts), 1)}
            self.phases, self.pairs = {Phase.NIGHT}, collections.Counter({Pair(2, 1): 2})

        def look(self):
            keys = [Phase.DAY, Pair(0, 0), Spot(0), int, (Phase.NIGHT, 1), "a"]
            found = [Phase.NIGHT in self.phases, self.pairs[2, 1]]
            return [*self.counts.values(), *(self.counts[key] for key in keys), *found]

    return Env()


KINDS_OF_SHARING = [
    *(views, new_views, new_view_of_old, tensors, closures, generators, layouts, containers, classes, constants),
    *(same_at_first, vanishing, keys),
]


@pytest.mark.parametrize("make", KINDS_OF_SHARING)
@pytest.mark.parametrize("resets", [0, 2])
def test_restored_in_a_new_program(make, resets):
    check(make, resets)


def test_each_path_leads_to_its_object():
    """An object that is held by nobody else could get the id of another one later."""
    for make in KINDS_OF_SHARING:
        _, baseline = started(make)
        assert all(id(baseline.objects[path]) == number for number, path in baseline.paths.items())


def iterators(env):
    env.iterator = iter([1, 2])


def generator_functions(env):
    env.generator = (x for x in ())


def maps(env):
    env.mapped = map(int, "12")


def opened(env):
    env.file = open(__file__)


def memory(env):
    env.view = memoryview(b"12")


def new_object(env):
    env.late = [Slotted()]


def new_function(env):
    env.function = restored


def sparse_set(env):
    env.numbers = set(range(2000))
    for number in {*range(2000)} - {15, 1024}:
        env.numbers.discard(number)


def path_as_state(env):
    env.word = "a/b"


def text_for_number(env):
    env.count = "many"


def member_of_a_set(env):
    next(iter(env.crowd)).value = 1


def new_spots(env):
    env.spots = {Spot(1): 1}


@pytest.mark.parametrize(
    "change",
    [
        member_of_a_set,
        new_spots,
        iterators,
        generator_functions,
        maps,
        opened,
        memory,
        new_object,
        new_function,
        sparse_set,
        path_as_state,
        text_for_number,
    ],
)
def test_what_cannot_be_restored_is_named(change):
    env = views()
    env.count, env.word, env.crowd, env.spots, baseline = 0, "a", {Slotted(), Slotted()}, {Spot(0): 0}, Baseline()
    env.reset(seed=0)
    write_environments([env], "env", baseline, recording=True)
    before = set(vars(env))
    write_environments([env], "env", baseline)
    change(env)
    name = next(iter(vars(env).keys() - before), "")
    with pytest.raises(CannotCapture, match=rf"env0\.{name}"):
        write_environments([env], "env", baseline)
    getattr(env, "file", io.StringIO()).close()
