"""Perturbations of MuJoCo: effects computed by hand, and what has none."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from sb3_softac.robustness import BodyMass, Friction, Gravity, JointDamping, Push

HOPPER = "Hopper-v5"


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_gravity_hand_computed(strength):
    """Speed of the Hopper's root after one step in the air, without contact and action."""
    env = Gravity(gym.make(HOPPER), strength)
    env.reset(seed=0)
    plain = env.unwrapped
    plain.set_state(np.array([0, 5.0, 0, 0, 0, 0]), np.zeros(6))
    env.step(np.zeros(3))
    assert plain.data.qvel[1] == pytest.approx(-9.81 * strength * plain.dt, rel=1e-3)


def forces_in_steps(env):
    """The forces on the bodies during each step of the simulator."""
    forces, plain = [], env.unwrapped
    simulate = plain.do_simulation

    def do_simulation(ctrl, n_frames):
        forces.append(plain.data.xfrc_applied.copy())
        simulate(ctrl, n_frames)

    plain.do_simulation = do_simulation
    return forces


def test_a_push_is_a_force_for_a_time():
    """In the air, without damping of the root, the momentum along x is force times time."""
    env = Push(gym.make(HOPPER), 50.0, body="leg", steps=2, every=1)  # one begins in the first step
    env.reset(seed=0)
    plain = env.unwrapped
    model, data = plain.model, plain.data
    plain.set_state(np.array([0, 5.0, 0, 0, 0, 0]), np.zeros(6))
    forces = forces_in_steps(env)
    for _ in range(2):
        env.step(np.zeros(3))
    for force in forces:
        assert np.flatnonzero(force).tolist() == [6 * 3] and abs(force[3, 0]) == 50  # x of the leg, no torque
    assert len(forces) == 2 and not data.xfrc_applied.any()
    mujoco.mj_forward(model, data)
    momentum = 0.0
    for body in range(model.nbody):
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jacBodyCom(model, data, jacobian, None, body)
        momentum += model.body_mass[body] * (jacobian @ data.qvel)[0]
    assert abs(momentum) == pytest.approx(50 * 2 * plain.dt, rel=0.01)


def pushes(seed, n=4_000):
    env = Push(gym.make(HOPPER), 10.0, steps=3, every=20)
    env.env, forces = env.unwrapped, []  # only the forces count: no simulation, no time limit

    def step(action):
        forces.append(env.unwrapped.data.xfrc_applied[1, 0])
        return np.zeros(11), 0.0, False, False, {}

    env.env.step = step
    env.reset(seed=seed)
    for _ in range(n):
        env.step(np.zeros(3))
    return np.array(forces)


def test_times_and_directions_of_pushes():
    forces = pushes(0)
    assert set(forces) == {-10.0, 0.0, 10.0}
    share = 3 / (3 + 20 - 1)  # of 3 steps with a push after 19 without, in the mean
    assert (forces != 0).mean() == pytest.approx(share, rel=0.2)
    assert (forces > 0).sum() == pytest.approx((forces < 0).sum(), rel=0.35)
    starts = np.flatnonzero((forces != 0) & (np.roll(forces, 1) == 0))
    assert all((forces[start : start + 3] == forces[start]).all() for start in starts[:-1])
    assert np.array_equal(forces, pushes(0)) and not np.array_equal(forces, pushes(1))


def test_a_reset_ends_a_push():
    env = Push(gym.make(HOPPER), 10.0, steps=1000, every=1)
    env.reset(seed=0)
    env.step(np.zeros(3))
    env.every = 10**9
    env.reset()
    forces = forces_in_steps(env)
    env.step(np.zeros(3))
    assert len(forces) == 1 and not forces[0].any()


def test_pushes_add_up():
    env = gym.make(HOPPER)
    for strength, body in ((10.0, "torso"), (30.0, "torso"), (5.0, "foot")):
        env = Push(env, strength, body=body, steps=1, every=1)
    env.reset(seed=0)
    env.unwrapped.data.xfrc_applied[1, 0] = 1.0  # of the environment itself
    forces = forces_in_steps(env)
    for _ in range(40):
        env.step(np.zeros(3))
    torso, foot = np.array(forces)[:, 1, 0], np.array(forces)[:, 4, 0]
    assert set(torso - 1) == {-40.0, -20.0, 20.0, 40.0} and set(foot) == {-5.0, 5.0}
    assert env.unwrapped.data.xfrc_applied[1, 0] == 1.0


def arrays(env, *names):
    return [getattr(env.unwrapped.model, name).copy() for name in names]


def test_mass_and_what_follows_from_it():
    env = gym.make(HOPPER)
    before = arrays(env, "body_mass", "body_inertia", "body_subtreemass", "dof_M0", "body_invweight0")
    perturbed = BodyMass(env, 2.0)
    after = arrays(env, "body_mass", "body_inertia", "body_subtreemass")
    assert all(np.array_equal(2 * a, b) for a, b in zip(before, after, strict=False))
    # What MuJoCo derives: inertia of the joints, twice that of the bodies beside the joints' own
    inertia, own, weights = arrays(env, "dof_M0", "dof_armature", "body_invweight0")
    assert inertia == pytest.approx(2 * (before[3] - own) + own) and (weights[1:] < before[4][1:]).all()
    perturbed.strength = 1.0
    names = ("body_mass", "body_inertia", "body_subtreemass", "dof_M0", "body_invweight0")
    assert all(map(np.array_equal, before, arrays(env, *names)))


MODEL = """
<mujoco><option gravity="0 0 {gravity}"/><worldbody>
  <geom name="floor" type="plane" size="9 9 1" contype="{floor}" conaffinity="{floor}"/>
  <body name="table" pos="3 0 1"><geom size="0.1" contype="0" conaffinity="0"/></body>
  <body name="lift" pos="0 0 1"><joint name="up" type="slide" axis="0 0 1" damping="{damping}"/>
    <geom size="0.1" condim="{condim}" contype="1" conaffinity="1"/></body>
  <body name="ball" pos="2 0 0.1"><freejoint/><geom size="0.1" condim="{condim}" contype="{ball}" conaffinity="{ball}"/></body>
</worldbody><actuator><motor joint="up" gear="20" ctrlrange="-1 1"/></actuator></mujoco>
"""
WHOLE = dict(gravity=-9.81, floor=1, ball=1, damping=1, condim=3)


class Lift(gym.Env):
    """A lift and a ball, which lies where the lift never comes."""

    observation_space = spaces.Box(-np.inf, np.inf, (15,))
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, **change):
        self.model = mujoco.MjModel.from_xml_string(MODEL.format(**WHOLE | change))
        self.data = mujoco.MjData(self.model)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        return np.concatenate([self.data.qpos, self.data.qvel]), {}

    def step(self, action):
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        return np.concatenate([self.data.qpos, self.data.qvel]), 0.0, False, False, {}


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Push(gym.make(HOPPER), 1.0, body="trso"), "no movable body 'trso'; it has torso, thigh, leg, foot"),
        (lambda: BodyMass(gym.make(HOPPER), 1.0, body="world"), "no movable body 'world'"),
        (lambda: BodyMass(gym.make(HOPPER), 0.0), "at least 0.001"),
        (lambda: Push(gym.make(HOPPER), -1.0), r"at least 0 \(force in N\)"),
        (lambda: Push(gym.make(HOPPER), 1.0, steps=0), "steps must be an integer, at least 1"),
        (lambda: Push(gym.make(HOPPER), 1.0, every=0.5), "every must be an integer, at least 1"),
        (lambda: Gravity(gym.make(HOPPER), -1.0), "at least 0"),
        *(
            (lambda cls=cls: cls(gym.make("Pendulum-v1"), 1.0), f"{cls.__name__} needs a MuJoCo environment")
            for cls in (Push, Gravity, Friction, JointDamping, BodyMass)
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
