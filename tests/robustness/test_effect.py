"""Perturbations that change nothing are refused; those that act rarely are not."""

import copy
import random
import threading

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from sb3_softac.robustness import (
    ActionNoise,
    BodyMass,
    DelayedActions,
    DroppedActions,
    Friction,
    Gravity,
    JointDamping,
    ObservationNoise,
    Obstacle,
    Parameter,
    Push,
)


class Cart(gym.Env):
    """A mass on a line. Its attributes act in different ways, or not at all."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    unused, drag, frames = 3.0, 0.1, 2

    def __init__(self):
        self.mass, self.motor, self.wheel = 1.0, 2.0, np.float32(3.0)
        self.gain = self.motor * self.wheel  # read when it is created
        self.drawn = self.limit = 50.0
        self.zero, self.endless = 0.0, float("inf")
        self.ice, self.start, self.wage = 0.5, 0.1, np.float32(4.0)
        self.position, self.speed, self.fuel, self.shown = 0.0, 0.0, 10.0, 1.0
        self._stiffness = 2.0
        self.brake = 0.3

    @property
    def inertia(self):
        return 2 * self.mass

    @property
    def stiffness(self):
        return self._stiffness

    @stiffness.setter
    def stiffness(self, value):
        self._stiffness = value

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
            force = self.gain * float(action[0]) - self.drag * self.speed - self._stiffness * self.position * 0.01
            self.speed += 0.05 * slow * force / self.mass
            self.position = float(np.clip(self.position + 0.05 * self.speed, -self.limit, self.limit))
        return self.observe(), self.wage * self.speed, abs(self.position) > 90, False, {}

    def render(self):
        return self.drawn * self.unused


REFUSED = {
    "unused": "made no difference",
    "motor": "only when it is created",
    "wheel": "only when it is created",
    "drawn": "only when it is created or drawn",
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


@pytest.mark.parametrize("strength", [0.5, 2.0])
@pytest.mark.parametrize("name", ["mass", "gain", "limit", "ice", "start", "wage", "stiffness", "drag", "brake", "frames"])
def test_attributes_that_change_something(name, strength):
    """Some of them in all steps, some in few, or only the first observation or the reward."""
    env = Cart()
    nominal = getattr(env, name)
    wrapped = Parameter(env, strength, name)
    assert getattr(env, name) == strength * nominal and type(getattr(env, name)) is type(nominal)
    wrapped.strength = 1
    assert getattr(env, name) == nominal


def test_an_attribute_that_breaks_the_environment():
    with pytest.raises(ValueError, match="'float' object cannot be interpreted as an integer"):
        Parameter(Cart(), 0.75, "frames")


@pytest.mark.parametrize("name", ["total_mass", "polemass_length"])
def test_what_cartpole_derives(name):
    with pytest.raises(ValueError, match=f"'{name}' is computed from other attributes"):
        Parameter(gym.make("CartPole-v1"), 2.0, name)


def test_a_cartpole_of_the_users_own():
    class Mine(CartPoleEnv):
        pass

    env = Mine()
    Parameter(env, 2.0, "masscart")
    assert env.total_mass == 2.1


@pytest.mark.parametrize(
    ("env", "name", "strength"),
    [
        ("CartPole-v1", "x_threshold", 0.5),
        ("CartPole-v1", "x_threshold", 2.0),
        ("MountainCar-v0", "max_speed", 0.5),
        ("MountainCar-v0", "goal_position", 0.8),
    ],
)
def test_limits_that_random_actions_do_not_reach(env, name, strength):
    Parameter(gym.make(env), strength, name)


def test_a_limit_that_is_reached_and_never_passed():
    """Actions are no larger than the torque that Pendulum allows."""
    with pytest.raises(ValueError, match="'max_torque' seems to be a limit that nothing can pass"):
        Parameter(gym.make("Pendulum-v1"), 2.0, "max_torque")
    Parameter(gym.make("Pendulum-v1"), 0.5, "max_torque")
    Parameter(gym.make("Pendulum-v1"), 2.0, "max_speed")


def test_an_option_that_is_off():
    """Found out without touching the environment; switched on, it acts."""
    env = gym.make("LunarLander-v3")
    with pytest.raises(ValueError, match="cannot have the strength 2"):
        Parameter(env, 2.0, "wind_power")
    assert env.unwrapped.wind_power == 15
    Parameter(gym.make("LunarLander-v3", enable_wind=True), 2.0, "wind_power")


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

    def __getattr__(self, name):
        if name.startswith("__") or name == "simulator":
            raise AttributeError(name)
        return getattr(self.simulator, name)

    def reset(self, *, seed=None, options=None):
        return self.simulator.reset(seed=seed)

    def step(self, action):
        return self.simulator.step(action)


@pytest.mark.parametrize("cls", [Randomized, Later, Forwarding])
def test_environments_that_do_not_listen(cls):
    with pytest.raises(ValueError, match="cannot have the strength"):
        Parameter(cls(), 2.0, "mass")


class Random(Cart):
    """Random whatever the seed; its spring is called otherwise than the attribute."""

    def reset(self, *, seed=None, options=None):
        super().reset()
        self.np_random = np.random.default_rng(random.SystemRandom().randrange(2**30))
        return super().reset()


def test_an_environment_that_is_random_by_itself():
    with pytest.raises(ValueError, match="made no difference"):
        Parameter(Random(), 2.0, "unused")
    Parameter(Random(), 2.0, "mass")


class Bound(Cart):
    """A function that a deep copy would share."""

    def __init__(self):
        super().__init__()
        self.pull = lambda: self.unused

    def step(self, action):
        self.speed += self.pull()
        return super().step(action)


def test_functions_that_are_bound_to_the_environment():
    with pytest.warns(UserWarning, match="a function in it would act on the original"):
        Parameter(Bound(), 2.0, "unused")


def test_a_factor_without_end():
    with pytest.raises(ValueError, match="'mass' would be infinite"):
        env = Cart()
        env.mass = 1e300
        Parameter(env, 1e300, "mass")


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


def test_what_cannot_be_copied_is_not_tried():
    with pytest.warns(UserWarning, match="not known whether Parameter has an effect.*cannot pickle"):
        env = Parameter(Uncopied(), 2.0, "mass")
    assert env.unwrapped.mass == 2
    gym.register("Uncopied-v0", entry_point=Uncopied)
    try:
        Parameter(gym.make("Uncopied-v0"), 2.0, "mass")  # created anew
        with pytest.raises(ValueError, match="made no difference"):
            Parameter(gym.make("Uncopied-v0"), 2.0, "unused")
    finally:
        del gym.registry["Uncopied-v0"]


class Masked(gym.Env):
    """Refuses forbidden actions; ``budget`` acts on the masks alone."""

    action_space, observation_space = spaces.Discrete(3), spaces.Discrete(2)
    budget = 1.0

    def action_masks(self):
        return np.array([True, False, self.budget > 1.5])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        assert self.action_masks()[action]
        return 1, 0.0, False, False, {}


def test_masks():
    Parameter(Masked(), 2.0, "budget")


MODEL = """
<mujoco><option gravity="0 0 {gravity}"/><worldbody>
  <geom name="floor" type="plane" size="9 9 1" contype="{floor}" conaffinity="{floor}"/>
  <body name="table" pos="3 0 1"><geom size="0.1" contype="0" conaffinity="0"/></body>
  <body name="lift" pos="0 0 1"><joint type="slide" axis="0 0 1" damping="{damping}"/>
    <geom size="0.1" condim="{condim}" mass="{mass}" contype="1" conaffinity="1"/></body>
  <body name="ball" pos="2 0 0.1"><freejoint/><geom size="0.1" condim="{condim}" contype="{ball}" conaffinity="{ball}"/></body>
</worldbody><actuator><motor joint="{motor}" gear="20" ctrlrange="-1 1"/></actuator></mujoco>
"""
WHOLE = dict(gravity=-9.81, floor=1, ball=1, damping=1, condim=3, mass=1, motor="up")


class Lift(gym.Env):
    """A lift and a ball, which lies where the lift never comes."""

    observation_space = spaces.Box(-np.inf, np.inf, (15,))
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, **change):
        text = MODEL.format(**WHOLE | change).replace('<joint type="slide"', '<joint name="up" type="slide"')
        self.model = mujoco.MjModel.from_xml_string(text)
        self.data = mujoco.MjData(self.model)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        return self.observe(), {}

    def observe(self):
        return np.concatenate([self.data.qpos, self.data.qvel])

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        return self.observe(), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("wrapper", "options", "change"),
    [
        (Gravity, {}, {"gravity": 0}),
        (JointDamping, {}, {"damping": 0}),
        (Friction, {}, {"floor": 0, "ball": 0}),
        (Friction, {}, {"condim": 1, "floor": 0}),
        (BodyMass, {"body": "table"}, {}),
    ],
)
def test_a_simulator_in_which_nothing_changes(wrapper, options, change):
    env = Lift(**change)
    before = env.model.body_mass.copy()
    with pytest.raises(ValueError, match=f"{wrapper.__name__} cannot have the strength 2"):
        wrapper(env, 2.0, **options)
    assert np.array_equal(env.model.body_mass, before)
    wrapper(env, 1.0, **options)


@pytest.mark.parametrize(
    ("wrapper", "options", "change"),
    [
        (Gravity, {}, {}),
        (JointDamping, {}, {}),
        (Friction, {}, {"gravity": 0, "damping": 0}),  # nothing touches, but could
        (BodyMass, {"body": "ball"}, {"gravity": 0}),  # it lies still, but could be pushed
        (BodyMass, {"body": "lift"}, {}),
        (Push, {"body": "ball"}, {}),
    ],
)
def test_a_simulator_in_which_something_changes(wrapper, options, change):
    wrapper(Lift(**change), 2.0, **options)


@pytest.mark.parametrize("body", ["lift", "table"])
def test_a_body_that_no_push_moves(body):
    with pytest.raises(ValueError, match=f"no joint of .* lets the body '{body}' move along the x axis"):
        Push(Lift(), 2.0, body=body)


def test_gravity_across_a_plane():
    with pytest.raises(ValueError, match="Gravity cannot have the strength 2"):
        Gravity(gym.make("Reacher-v5"), 2.0)


def test_an_environment_that_randomizes_its_model():
    class Random(HopperEnv):
        def reset_model(self):
            self.model.body_mass[:] = 1.0
            return super().reset_model()

    with pytest.raises(ValueError, match="the environment itself sets 'body_mass'"):
        BodyMass(Random(), 2.0)


class Constant(gym.Env):
    action_space = observation_space = spaces.Box(1.0, 1.0, (2,), np.float32)


class OneAction(gym.Env):
    action_space = observation_space = spaces.Discrete(1)


class OneOfEach(gym.Env):
    action_space = observation_space = spaces.MultiDiscrete([1, 1])


@pytest.mark.parametrize(
    ("wrapper", "env"),
    [
        *((wrapper, Constant) for wrapper in (ActionNoise, ObservationNoise, DroppedActions, DelayedActions)),
        (DroppedActions, OneAction),
        (DroppedActions, OneOfEach),
    ],
)
def test_signals_of_one_value(wrapper, env):
    with pytest.raises(ValueError, match=f"{wrapper.__name__} has no effect where there is only one"):
        wrapper(env(), 1)


def test_signals_that_change_rarely():
    for wrapper, strength in ((DroppedActions, 1e-9), (ActionNoise, 1e-6), (ObservationNoise, 1e-6), (DelayedActions, 1_000)):
        wrapper(Cart(), strength)
    Push(Lift(), 1e-3, body="ball", every=10**9)


def test_an_obstacle_out_of_the_way():
    with pytest.raises(ValueError, match="lies outside of the plane"):
        Obstacle(gym.make("MultiGoal-v0"), 0.5, x=8.0, y=3.0)
    with pytest.raises(ValueError, match="Obstacle: y must be a number, got nan"):
        Obstacle(gym.make("MultiGoal-v0"), 0.5, y=float("nan"))
