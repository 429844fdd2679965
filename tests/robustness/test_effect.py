"""Factors that change nothing are refused; those that act rarely are not."""

import copy
import random
import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_softac.robustness import Parameter


class Cart(gym.Env):
    """A mass on a line. Its attributes act in different ways, or not at all."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    unused, frames = 3.0, 2

    def __init__(self):
        self.mass, self.motor = 1.0, np.float32(2.0)
        self.gain = 3 * self.motor  # read when it is created
        self.drawn = self.limit = 50.0
        self.zero, self.endless = 0.0, float("inf")
        self.ice, self.start, self.wage, self.brake = 0.5, 0.1, np.float32(4.0), 0.3
        self.position, self.speed, self.fuel, self.shown = 0.0, 0.0, 10.0, 1.0
        self._stiffness = 2.0

    inertia = property(lambda self: 2 * self.mass)
    stiffness = property(lambda self: self._stiffness, lambda self, value: setattr(self, "_stiffness", value))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.speed, self.fuel = self.np_random.normal(0, self.start), 0.0, 10.0
        return self.observe(), {}

    def observe(self):
        return np.array([self.position, self.speed], np.float32)

    def step(self, action):
        self.shown = self.mass / 3
        if abs(float(action[0])) == 1:  # at the bounds of the actions
            self.speed *= 1 - self.brake
        slow = self.ice if self.position > 20 else 1.0
        for _ in range(self.frames):
            force = self.gain * float(action[0]) - 0.1 * self.speed - self._stiffness * self.position * 0.01
            self.speed += 0.05 * slow * force / self.mass
            self.position = float(np.clip(self.position + 0.05 * self.speed, -self.limit, self.limit))
        return self.observe(), self.wage * self.speed, abs(self.position) > 90, False, {}

    def render(self):
        return self.drawn * self.unused


REFUSED = {
    "unused": "made no difference",
    "motor": "only when it is created",
    "drawn": "only when it is created or rendered",
    "zero": "no factor changes",
    "endless": "no factor changes",
    "inertia": "'inertia' cannot be set",
    "fuel": "the environment itself sets 'fuel'",
    "shown": "the environment itself sets 'shown'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_attributes_that_change_nothing(name):
    env = Cart()
    before = dict(vars(env))
    with pytest.raises(ValueError, match=REFUSED[name]):
        Parameter(env, 2.0, name)
    wrapped = Parameter(env, 1.0, name)  # the neutral strength is always allowed
    with pytest.raises(ValueError, match="Parameter cannot have the strength 3"):
        wrapped.strength = 3
    assert wrapped.strength == 1 and {key: vars(env)[key] for key in before} == before


@pytest.mark.parametrize("name", ["gain", "limit", "ice", "start", "wage", "stiffness", "brake", "frames"])
def test_attributes_that_change_something(name):
    """Some of them in all steps, some in few, or only the first observation or the reward."""
    env = Cart()
    nominal = getattr(env, name)
    wrapped = Parameter(env, 2.0, name)
    assert getattr(env, name) == 2 * nominal and type(getattr(env, name)) is type(nominal)
    wrapped.strength = 1
    assert getattr(env, name) == nominal


@pytest.mark.parametrize(
    ("env", "name", "strength", "message"),
    [
        (Cart, "frames", 0.75, "'float' object cannot be interpreted as an integer"),
        (Cart, "mass", 1.7e308, "'mass' would be infinite"),
        ("CartPole-v1", "total_mass", 2.0, "'total_mass' is computed from other attributes"),
        # Actions are no larger than the torque that Pendulum allows
        ("Pendulum-v1", "max_torque", 2.0, "'max_torque' seems to be a limit that nothing can pass"),
        # An option that is off; found out without a deep copy, which is not possible
        ("LunarLander-v3", "wind_power", 2.0, "cannot have the strength 2"),
    ],
)
def test_reasons(env, name, strength, message):
    env = gym.make(env) if isinstance(env, str) else env()
    if name == "mass":
        env.mass = 2.0
    before = getattr(env.unwrapped, name)
    with pytest.raises(ValueError, match=message):
        Parameter(env, strength, name)
    assert getattr(env.unwrapped, name) == before


@pytest.mark.parametrize(
    ("env", "name", "strength", "options"),
    [
        ("Pendulum-v1", "max_torque", 0.5, {}),
        ("LunarLander-v3", "wind_power", 2.0, {"enable_wind": True}),
        *(("CartPole-v1", "x_threshold", 2.0, {}), ("Pendulum-v1", "max_speed", 2.0, {})),  # out of reach of random actions
    ],
)
def test_limits_and_options_that_act(env, name, strength, options):
    Parameter(gym.make(env, **options), strength, name)


class Randomized(Cart):
    def reset(self, *, seed=None, options=None):
        self.mass = 1.0
        return super().reset(seed=seed)


class Later(Cart):
    """Sets it at the second reset only."""

    episodes = 0.0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        if self.episodes > 1:
            self.mass = 1.0
        return super().reset(seed=seed)


class Forwarding(gym.Env):
    """Shows the attributes of a simulator as its own, which are set in vain."""

    action_space, observation_space = Cart.action_space, Cart.observation_space

    def __init__(self):
        self.simulator = Cart()
        self.reset, self.step = self.simulator.reset, self.simulator.step

    def __getattr__(self, name):
        if name.startswith("__") or name == "simulator":
            raise AttributeError(name)
        return getattr(self.simulator, name)


@pytest.mark.parametrize("cls", [Randomized, Later, Forwarding])
def test_environments_that_do_not_listen(cls):
    with pytest.raises(ValueError, match="cannot have the strength"):
        Parameter(cls(), 2.0, "mass")


class Random(Cart):
    """Random whatever the seed."""

    def reset(self, *, seed=None, options=None):
        super().reset()
        self.np_random = np.random.default_rng(random.SystemRandom().randrange(2**30))
        return super().reset()


def test_an_environment_that_is_random_by_itself():
    with pytest.raises(ValueError, match="made no difference"):
        Parameter(Random(), 2.0, "unused")
    Parameter(Random(), 2.0, "mass")


def test_the_trial_leaves_no_trace():
    env = gym.make("CartPole-v1")
    env.reset(seed=3)
    env.step(0)
    random.seed(5)
    np.random.seed(5)
    state, generator = env.unwrapped.state, copy.deepcopy(env.unwrapped.np_random)
    drawn = random.Random(5).random(), np.random.RandomState(5).random()
    Parameter(env, 2.0, "gravity")
    assert np.array_equal(env.unwrapped.state, state) and env.unwrapped.np_random.random() == generator.random()
    assert (random.random(), np.random.random()) == drawn


class Uncopied(Cart):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Bound(Cart):
    """A function that a deep copy would share."""

    def __init__(self):
        super().__init__()
        self.pull = lambda: self.mass

    def step(self, action):
        self.speed += self.pull()
        return super().step(action)


@pytest.mark.parametrize(
    ("cls", "reason"), [(Uncopied, "cannot pickle"), (Bound, "a function in it would act on the original")]
)
def test_what_cannot_be_copied_is_not_tried(cls, reason):
    with pytest.warns(UserWarning, match=f"unknown whether Parameter has an effect.*{reason}"):
        env = Parameter(cls(), 2.0, "mass")
    assert env.unwrapped.mass == 2
    gym.register("Uncopied-v0", entry_point=cls)
    try:
        Parameter(gym.make("Uncopied-v0"), 2.0, "mass")  # created again
        with pytest.raises(ValueError, match="made no difference"):
            Parameter(gym.make("Uncopied-v0"), 2.0, "unused")
    finally:
        del gym.registry["Uncopied-v0"]


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([3])], ids=str)
def test_masks(space):
    class Masked(gym.Env):
        """Refuses forbidden actions; ``budget`` acts on the masks alone."""

        action_space, observation_space = space, spaces.Discrete(2)
        budget = 1.0

        def action_masks(self):
            return np.array([True, False, self.budget > 1.5])

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return 0, {}

        def step(self, action):
            assert self.action_masks()[action]
            return 1, 0.0, False, False, {}

    Parameter(Masked(), 2.0, "budget")
