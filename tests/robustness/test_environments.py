"""Perturbations of what is simulated: effects computed by hand, and nothing at their neutral strength."""

import functools

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env

from sb3_softac import SoftAC_v1
from sb3_softac.resume.environments import read_environments, write_environments
from sb3_softac.robustness import (
    PERTURBATIONS,
    ActionNoise,
    BodyMass,
    DelayedActions,
    DroppedActions,
    Friction,
    Gravity,
    JointDamping,
    MovedGoals,
    ObservationNoise,
    Obstacle,
    Parameter,
    Push,
)
from tests.resume.test_exact import check, maker

PENDULUM, HOPPER, PLANE, CARTPOLE = "Pendulum-v1", "Hopper-v5", "MultiGoal-v0", "CartPole-v1"
SIGNALS = ("action_noise", "observation_noise", "dropped_actions", "delayed_actions")
# Environment, perturbation, its options and a strength that has an effect
CASES = [
    *((env, name, {}, 2 if name == "delayed_actions" else 0.3) for env in (PENDULUM, HOPPER) for name in SIGNALS),
    *((PENDULUM, "parameter", {"name": name}, 1.5) for name in ("g", "m", "l")),
    (CARTPOLE, "parameter", {"name": "masspole"}, 3.0),
    (CARTPOLE, "dropped_actions", {}, 0.5),
    (HOPPER, "push", {"every": 3}, 100.0),
    (HOPPER, "mass", {}, 1.5),
    (HOPPER, "mass", {"body": "torso"}, 1.5),
    *((HOPPER, name, {}, 1.5) for name in ("friction", "gravity", "damping")),
    (PLANE, "moved_goals", {}, 1.0),
    (PLANE, "obstacle", {"x": 1.0}, 0.4),
]
IDS = ["-".join(map(str, (env, name, *options.values()))) for env, name, options, _ in CASES]


def make(env, name=None, options=None, strength=None):
    made = gym.make(env)
    return made if name is None else PERTURBATIONS[name](made, strength, **options)


def trajectory(env, seed=3, steps=60):
    """Everything that an agent sees of two episodes, and the random numbers that the environment has left."""
    env.action_space.seed(seed)
    seen = [env.reset(seed=seed)[0]]
    for k in range(steps):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen += [obs, reward, terminated, truncated]
        if terminated or truncated or k == steps // 2:
            seen.append(env.reset()[0])
    return [*seen, env.unwrapped.np_random.random()]


def same(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("env", "name", "options", "strength"), CASES, ids=IDS)
def test_the_neutral_strength_is_the_environment_itself(env, name, options, strength):
    plain = trajectory(make(env))
    neutral = PERTURBATIONS[name].neutral
    assert same(trajectory(make(env, name, options, neutral)), plain)
    perturbed = make(env, name, options, strength)
    assert not same(trajectory(perturbed), plain)
    perturbed.strength = neutral  # restored
    assert same(trajectory(perturbed), plain)


@pytest.mark.parametrize(("env", "name", "options", "strength"), CASES, ids=IDS)
def test_the_random_numbers_of_the_environment_are_left_alone(env, name, options, strength):
    draws = []
    for perturbed in (make(env), make(env, name, options, strength)):
        perturbed.action_space.seed(0)
        perturbed.reset(seed=5)
        for _ in range(3):
            perturbed.step(perturbed.action_space.sample())
        draws.append(perturbed.unwrapped.np_random.random())
    assert draws[0] == draws[1]


@pytest.mark.parametrize(("env", "name", "options", "strength"), CASES, ids=IDS)
def test_an_interrupted_episode_goes_on(env, name, options, strength):
    """In an environment made anew, which is where exact resume puts the state back."""
    first, second = (make(env, name, options, strength) for _ in range(2))
    second.reset(seed=99)
    first.action_space.seed(0)
    first.reset(seed=5)
    for _ in range(4):
        first.step(first.action_space.sample())
    written, tensors = write_environments([first], "env")
    second.strength = PERTURBATIONS[name].neutral  # it comes back from the file
    read_environments([second], "env", written, tensors)
    assert second.strength == strength
    for _ in range(40):
        action = first.action_space.sample()
        one, other = first.step(action), second.step(action)
        assert np.array_equal(one[0], other[0]) and one[1:4] == other[1:4]
        if one[2] or one[3]:
            assert np.array_equal(first.reset()[0], second.reset()[0])


@pytest.mark.parametrize(
    ("env", "wrapper", "strength"), [(PENDULUM, DelayedActions, 2), (PENDULUM, DroppedActions, 0.5), (HOPPER, Push, 50.0)]
)
def test_a_training_under_a_perturbation_is_resumed_exactly(env, wrapper, strength, tmp_path):
    venv = dict(wrapper_class=wrapper, wrapper_kwargs=dict(strength=strength))
    check(maker(SoftAC_v1, env, venv=venv), tmp_path, cuts=(60,))


def pendulum(strength, name, state):
    env = Parameter(gym.make(PENDULUM), strength, name)
    env.reset(seed=0)
    env.unwrapped.state = np.array(state)
    env.step(np.array([1.0], np.float32))
    return env.unwrapped.state[1]


def test_pendulum_hand_computed():
    """Speed after 0.05 s at angle pi/2, at rest, with a torque of 1: (3 g / (2 l) + 3 / (m l^2)) * 0.05."""
    state = [np.pi / 2, 0.0]
    assert pendulum(1.0, "g", state) == pytest.approx((15 + 3) * 0.05)
    assert pendulum(1.5, "g", state) == pytest.approx((22.5 + 3) * 0.05)
    assert pendulum(2.0, "m", state) == pytest.approx((15 + 1.5) * 0.05)
    assert pendulum(0.5, "l", state) == pytest.approx((30 + 12) * 0.05)


def test_cartpole_derives_its_sums_anew():
    env = Parameter(gym.make(CARTPOLE), 3.0, "masspole")
    plain = env.unwrapped
    assert plain.masspole == pytest.approx(0.3) and plain.total_mass == pytest.approx(1.3)
    assert plain.polemass_length == pytest.approx(0.15)
    env.strength = 1
    assert (plain.masspole, plain.total_mass, plain.polemass_length) == (0.1, 0.1 + 1.0, 0.1 * 0.5)


def falling(wrapper):
    """Speed of the Hopper's root after one step in the air, without contact and action, and the step's seconds."""
    env = wrapper(gym.make(HOPPER))
    env.reset(seed=0)
    plain = env.unwrapped
    plain.set_state(np.array([0, 5.0, 0, 0, 0, 0]), np.zeros(6))
    env.step(np.zeros(3))
    return plain.data.qvel.copy(), plain.dt


@pytest.mark.parametrize("strength", [1.0, 0.5, 2.0])
def test_gravity_hand_computed(strength):
    speed, seconds = falling(lambda env: Gravity(env, strength))
    assert speed[1] == pytest.approx(-9.81 * strength * seconds, rel=1e-3)


def forces_in_steps(env):
    """The forces on the bodies during each step of the simulator."""
    forces, plain = [], env.unwrapped
    simulate = plain.do_simulation

    def do_simulation(ctrl, n_frames):
        forces.append(plain.data.xfrc_applied.copy())
        simulate(ctrl, n_frames)

    plain.do_simulation = do_simulation
    return forces


def momentum(env):
    masses = env.unwrapped.model.body_mass
    velocities = []
    for body in range(env.unwrapped.model.nbody):
        jacobian = np.zeros((3, env.unwrapped.model.nv))
        mujoco.mj_jacBodyCom(env.unwrapped.model, env.unwrapped.data, jacobian, None, body)
        velocities.append(jacobian @ env.unwrapped.data.qvel)
    return masses @ np.array(velocities)


@pytest.mark.parametrize("strength", [50.0, 80.0])
def test_a_push_is_a_force_for_a_time(strength):
    """In the air, without damping of the root, the momentum along x is force times time."""
    env = Push(gym.make(HOPPER), strength, body="leg", steps=2, every=1)  # one begins in the first step
    env.reset(seed=0)
    plain = env.unwrapped
    plain.set_state(np.array([0, 5.0, 0, 0, 0, 0]), np.zeros(6))
    forces = forces_in_steps(env)
    for _ in range(2):
        env.step(np.zeros(3))
    for force in forces:
        assert np.flatnonzero(force).tolist() == [6 * 3] and abs(force[3, 0]) == strength  # x of the leg, no torque
    assert len(forces) == 2 and not plain.data.xfrc_applied.any()
    mujoco.mj_forward(plain.model, plain.data)
    assert abs(momentum(env)[0]) == pytest.approx(strength * 2 * plain.dt, rel=0.01)


def pushes(seed, every=20, steps=3, n=4_000):
    env = Push(gym.make(HOPPER), 10.0, steps=steps, every=every)
    # Only the forces count: no simulation, no time limit
    env.env, forces = env.unwrapped, []

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
    assert same(before, arrays(env, "body_mass", "body_inertia", "body_subtreemass", "dof_M0", "body_invweight0"))


def test_mass_of_one_body():
    env = gym.make(HOPPER)
    (before,) = arrays(env, "body_mass")
    BodyMass(env, 3.0, body="thigh")
    (after,) = arrays(env, "body_mass")
    assert np.array_equal(after / np.where(before > 0, before, 1), [0, 1, 3, 1, 1])


@pytest.mark.parametrize(("wrapper", "name"), [(Friction, "geom_friction"), (JointDamping, "dof_damping")])
def test_arrays_of_the_model(wrapper, name):
    env = gym.make(HOPPER)
    (before,) = arrays(env, name)
    perturbed = wrapper(env, 0.25)
    assert before.any() and np.array_equal(getattr(env.unwrapped.model, name), before / 4)
    perturbed.strength = 0
    assert not getattr(env.unwrapped.model, name).any()


def test_moved_goals():
    env = MovedGoals(gym.make(PLANE), 1.5)
    plain, seen = env.unwrapped, []
    for seed in (0, None, 0):
        env.reset(seed=seed)
        moves = plain.goals - type(plain).goals
        assert np.hypot(*moves.T) == pytest.approx([1.5] * 4)
        seen.append(moves)
    assert len(np.unique(seen[0][:, 0])) == 4  # each in a direction of its own
    assert np.array_equal(seen[0], seen[2]) and not np.array_equal(seen[0], seen[1])
    env.reset()
    plain.position = plain.goals[0] + np.array([0.0, 1.5])
    _, _, terminated, _, info = env.step(np.array([0.0, -1.0], np.float32))
    assert terminated and info["goal"] == 0


def test_an_obstacle_hand_computed():
    env = Obstacle(gym.make(PLANE), 0.5, x=2.0, y=0.0)

    def move(start, action):
        env.reset(options={"position": start})
        _, reward, *_ = env.step(np.array(action, np.float32))
        return env.unwrapped.position.tolist(), reward

    position, reward = move([1.0, 0.0], [0.6, 0.0])  # to 1.6, in the disk
    # it stays at 1, 4 away from the goal, and pays for the action
    assert position == [1.0, 0.0] and reward == pytest.approx(-30 * 0.36 - 16)
    assert move([1.0, 0.0], [0.4, 0.0])[0] == pytest.approx([1.4, 0.0])  # before it
    assert move([1.45, 0.3], [1.0, 0.0])[0] == [1.45, 0.3]  # across it: 0.3 from the centre
    assert move([1.45, 0.6], [1.0, 0.0])[0] == pytest.approx([2.45, 0.6])  # past it
    assert move([2.6, 0.0], [1.0, 0.0])[0] == pytest.approx([3.6, 0.0])  # away from it
    assert move([1.0, 0.0], [0.0, 0.0])[0] == [1.0, 0.0]
    env.strength = 0
    assert move([1.5, 0.0], [1.0, 0.0])[0] == [2.5, 0.0]  # over where its centre was


def test_pictures_show_them():
    pictures = []
    for strength in (0.0, 1.0):
        env = MovedGoals(gym.make(PLANE, render_mode="rgb_array"), strength)
        for seed in (0, 1):
            env.reset(seed=seed, options={"position": [0.0, 0.0]})
            pictures.append(env.render())
    env = Obstacle(gym.make(PLANE, render_mode="rgb_array"), 1.0)
    env.reset(seed=0, options={"position": [0.0, 0.0]})
    pictures.append(env.render())
    different = [[not np.array_equal(a, b) for b in pictures] for a in pictures]
    assert not different[0][1] and sum(map(sum, different)) == 5 * 4 - 2


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Push(gym.make(PENDULUM), 1.0), "Push needs a MuJoCo environment"),
        (lambda: Gravity(gym.make(PENDULUM), 1.0), "Gravity needs a MuJoCo environment"),
        (lambda: Friction(gym.make(PENDULUM), 1.0), "Friction needs a MuJoCo environment"),
        (lambda: BodyMass(gym.make(PENDULUM), 1.0), "BodyMass needs a MuJoCo environment"),
        (lambda: Push(gym.make(HOPPER), 1.0, body="trso"), "no movable body 'trso'; it has torso, thigh, leg, foot"),
        (lambda: Push(gym.make(HOPPER), 1.0, body="world"), "no movable body 'world'"),
        (lambda: BodyMass(gym.make(HOPPER), 1.0, body="arm"), "no movable body 'arm'"),
        (lambda: BodyMass(gym.make(HOPPER), 0.0), "at least 0.001"),
        (lambda: Push(gym.make(HOPPER), -1.0), r"at least 0 \(force in N\)"),
        (lambda: Push(gym.make(HOPPER), 1.0, steps=0), "steps must be a whole number"),
        (lambda: Push(gym.make(HOPPER), 1.0, every=0.5), "every must be a whole number"),
        (lambda: Gravity(gym.make(HOPPER), -1.0), "at least 0"),
        (lambda: Parameter(gym.make(PENDULUM), 1.0, "mass"), "no parameter 'mass'; it has g, m, l"),
        (lambda: Parameter(gym.make(PENDULUM), 0.0, "l"), "at least 0.001"),
        (lambda: Parameter(gym.make(PENDULUM), 2.0, "isopen"), "no parameter 'isopen'"),
        (lambda: MovedGoals(gym.make(PENDULUM), 1.0), "MovedGoals needs MultiGoal-v0"),
        (lambda: Obstacle(gym.make(PENDULUM), 1.0), "Obstacle needs MultiGoal-v0"),
        (lambda: Obstacle(gym.make(PLANE), 2.1), "covers the start: the radius must be at most 2"),
    ],
)
def test_refused(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


@pytest.mark.parametrize(
    "wrap", [functools.partial(ActionNoise, strength=0.1), functools.partial(ObservationNoise, strength=0.5)]
)
def test_checkers_have_nothing_to_say(wrap):
    check_env(wrap(gym.make(PLANE)), skip_render_check=True)
