"""Several perturbations of one kind on one environment: factors multiply, forces and obstacles add up, in any order."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from sb3_softac.resume.environments import read_environments, write_environments
from sb3_softac.robustness import BodyMass, Friction, Gravity, JointDamping, MovedGoals, Obstacle, Parameter, Push
from tests.robustness.test_environments import forces_in_steps, same, trajectory

HOPPER = "Hopper-v5"
KINDS = {
    "mass": (HOPPER, lambda env: BodyMass(env, 1.0)),
    "torso": (HOPPER, lambda env: BodyMass(env, 1.0, body="torso")),
    "foot": (HOPPER, lambda env: BodyMass(env, 1.0, body="foot")),
    "friction": (HOPPER, lambda env: Friction(env, 1.0)),
    "gravity": (HOPPER, lambda env: Gravity(env, 1.0)),
    "damping": (HOPPER, lambda env: JointDamping(env, 1.0)),
    "masspole": ("CartPole-v1", lambda env: Parameter(env, 1.0, "masspole")),
    "length": ("CartPole-v1", lambda env: Parameter(env, 1.0, "length")),
}
FACTORS = (0.5, 1.0, 1.0, 1.5, 3.0)


def numbers(env):
    """All numbers that the perturbations change, and what is derived from them."""
    plain = env.unwrapped
    if not hasattr(plain, "model"):
        return {name: getattr(plain, name) for name in ("masspole", "masscart", "length", "total_mass", "polemass_length")}
    arrays = ("body_mass", "body_inertia", "geom_friction", "dof_damping", "body_subtreemass", "dof_M0", "body_invweight0")
    return {name: getattr(plain.model, name).copy() for name in arrays} | {"gravity": plain.model.opt.gravity.copy()}


def expected(before, factors):
    """The numbers times the product of all factors, by kind."""
    product = {kind: np.prod(factors.get(kind, [1.0])) for kind in KINDS}
    if "length" in before:
        return {"masspole": before["masspole"] * product["masspole"], "length": before["length"] * product["length"]}
    bodies = product["mass"] * np.array([1, product["torso"], 1, 1, product["foot"]])
    return {
        "body_mass": before["body_mass"] * bodies,
        "body_inertia": before["body_inertia"] * bodies[:, None],
        "geom_friction": before["geom_friction"] * product["friction"],
        "dof_damping": before["dof_damping"] * product["damping"],
        "gravity": before["gravity"] * product["gravity"],
    }


@pytest.mark.parametrize("seed", range(8))
def test_factors_multiply(seed):
    """Any stack, strengths set in any order, with episodes and other wrappers in between; and back."""
    generator = np.random.default_rng(seed)
    name = "CartPole-v1" if seed % 4 == 0 else HOPPER
    env = gym.make(name)
    before, plain = numbers(env), trajectory(gym.make(name))
    kinds = [kind for kind, (of, _) in KINDS.items() if of == name]
    stack = []
    for kind in generator.choice(kinds, 6):
        env = KINDS[kind][1](TimeLimit(env, 1_000))
        stack.append((kind, env))
        assert same(numbers(env).values(), before.values())

    def check():
        factors = {}
        for kind, wrapper in stack:
            factors.setdefault(kind, []).append(wrapper.strength)
        found = numbers(env)
        for key, value in expected(before, factors).items():
            assert found[key] == pytest.approx(value, rel=1e-12), key

    for _ in range(20):
        _, wrapper = stack[generator.integers(len(stack))]
        wrapper.strength = generator.choice(FACTORS)
        if generator.random() < 0.3:
            env.reset(seed=1)
            env.step(env.action_space.sample())
        check()
    for index in generator.permutation(len(stack)):
        stack[index][1].strength = 1
    assert all(np.array_equal(value, before[key]) for key, value in numbers(env).items())
    assert same(trajectory(env), plain)


def test_a_factor_around_another():
    """The case of two masses: the inner one first set back, then the outer one."""
    env = gym.make(HOPPER)
    before = numbers(env)
    inner = BodyMass(env, 2.0, body="torso")
    outer = BodyMass(inner, 1.5)
    assert outer.unwrapped.model.body_mass[1:] == pytest.approx(before["body_mass"][1:] * [3, 1.5, 1.5, 1.5])
    inner.strength = 1
    assert outer.unwrapped.model.body_mass[1:] == pytest.approx(before["body_mass"][1:] * 1.5)
    outer.strength = 1
    assert all(np.array_equal(value, before[key]) for key, value in numbers(env).items())


def test_side_by_side():
    """Two wrappers of one environment, of which neither knows the other."""
    env = gym.make("Pendulum-v1")
    first, second = Parameter(env, 2.0, "g"), Parameter(env, 1.5, "g")
    assert env.unwrapped.g == 30
    first.strength = 1
    assert env.unwrapped.g == 15
    second.strength = 1
    assert env.unwrapped.g == 10


def test_a_refused_factor_leaves_the_others():
    env = Parameter(gym.make("CartPole-v1"), 2.0, "masspole")
    outer = Parameter(env, 1.0, "total_mass")
    before = numbers(env)
    with pytest.raises(ValueError, match="is computed from other attributes"):
        outer.strength = 2.0
    with pytest.raises(ValueError, match=r"at least 0\.001"):
        env.strength = 0
    assert numbers(env) == before and (outer.strength, env.strength) == (1, 2)


def test_a_nominal_value_of_the_users_own():
    env = gym.make("Pendulum-v1")
    wrapped = Parameter(env, 1.0, "g")
    env.unwrapped.g = 4.0
    wrapped.strength = 2
    assert env.unwrapped.g == 8
    wrapped.strength = 1
    assert env.unwrapped.g == 4


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("name", [HOPPER, "CartPole-v1"])
def test_copies_are_perturbed_alike(name, twin):
    """MuJoCo environments are pickled as the arguments of their constructor, so their numbers have to be scaled again."""
    wrap = BodyMass if name == HOPPER else lambda env, strength: Parameter(env, strength, "masspole")
    env = gym.make(name)
    before = numbers(env)
    first = wrap(wrap(env, 2.0), 1.5)
    second = twin(first)
    assert same(numbers(second).values(), numbers(first).values())
    assert same(trajectory(second), trajectory(first))
    second.strength = second.env.strength = 1
    assert same(numbers(second).values(), before.values())
    assert not same(numbers(first).values(), before.values())


def test_a_stack_goes_on_after_an_interruption():
    def make():
        return BodyMass(Gravity(BodyMass(gym.make(HOPPER), 1.5, body="foot"), 0.5), 1.0)

    first, second = make(), make()
    first.strength = 2.0
    first.reset(seed=0)
    read_environments([second], "env", *write_environments([first], "env"))
    second.env.env.strength = first.env.env.strength = 3.0
    assert same(numbers(second).values(), numbers(first).values())


def test_pushes_add_up():
    env = Push(Push(gym.make(HOPPER), 10.0, steps=1, every=1), 30.0, steps=1, every=1)
    env = Push(env, 5.0, body="foot", steps=1, every=1)
    env.reset(seed=0)
    env.unwrapped.data.xfrc_applied[1, 0] = 1.0  # of the environment itself
    forces = forces_in_steps(env)
    for _ in range(40):
        env.step(np.zeros(3))
    torso, foot = np.array(forces)[:, 1, 0], np.array(forces)[:, 4, 0]
    assert set(torso - 1) == {-40.0, -20.0, 20.0, 40.0} and set(foot) == {-5.0, 5.0}
    assert env.unwrapped.data.xfrc_applied[1, 0] == 1.0


def test_goals_move_by_both():
    inner = MovedGoals(gym.make("MultiGoal-v0"), 1.0)
    outer = MovedGoals(inner, 0.25)
    plane = outer.unwrapped
    for _ in range(3):
        outer.reset(seed=None)
        distance = np.hypot(*(plane.goals - type(plane).goals).T)
        assert ((0.75 <= distance) & (distance <= 1.25)).all() and len(set(distance)) == 4
    inner.strength = outer.strength = 0
    outer.reset()
    assert np.array_equal(plane.goals, type(plane).goals)


def test_two_obstacles():
    env = gym.make("MultiGoal-v0")
    inner = Obstacle(env, 0.5, x=2.0)
    outer = Obstacle(inner, 0.5, x=-2.0)

    def stays(start, action):
        outer.reset(options={"position": start})
        outer.step(np.array(action, np.float32))
        return outer.unwrapped.position.tolist() == start

    assert stays([1.0, 0.0], [0.6, 0.0]) and stays([-1.0, 0.0], [-0.6, 0.0])
    inner.strength = 0
    assert not stays([1.0, 0.0], [0.6, 0.0]) and stays([-1.0, 0.0], [-0.6, 0.0])
    with pytest.raises(ValueError, match=r"the radius must be at most 1\.5"):
        outer.strength = 1.9
    assert outer.strength == 0.5 and stays([-1.0, 0.0], [-0.6, 0.0])
