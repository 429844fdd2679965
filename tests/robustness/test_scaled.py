"""Factors on numbers of an environment: their effects computed by hand, and several of them on one environment."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.wrappers import TimeLimit

from sb3_softac.resume.environments import read_environments, write_environments
from sb3_softac.robustness import BodyMass, Friction, Gravity, JointDamping, Parameter
from tests.robustness.test_perturbation import same, trajectory

HOPPER, PENDULUM, CARTPOLE = "Hopper-v5", "Pendulum-v1", "CartPole-v1"


@pytest.mark.parametrize(
    ("name", "strength", "speed"),
    [("g", 1.0, 15 + 3), ("g", 1.5, 22.5 + 3), ("m", 2.0, 15 + 1.5), ("l", 0.5, 30 + 12)],
)
def test_pendulum_hand_computed(name, strength, speed):
    """Speed after 0.05 s at angle pi/2, at rest, with a torque of 1: (3 g / (2 l) + 3 / (m l^2)) * 0.05."""
    env = Parameter(gym.make(PENDULUM), strength, name)
    env.reset(seed=0)
    env.unwrapped.state = np.array([np.pi / 2, 0.0])
    env.step(np.array([1.0], np.float32))
    assert env.unwrapped.state[1] == pytest.approx(speed * 0.05)


def test_cartpole_derives_its_sums_again():
    class Mine(CartPoleEnv):
        """Of the user's own."""

    for plain in (gym.make(CARTPOLE), Mine()):
        env = Parameter(plain, 3.0, "masspole")
        plain = env.unwrapped
        assert plain.masspole == pytest.approx(0.3) and plain.total_mass == pytest.approx(1.3)
        assert plain.polemass_length == pytest.approx(0.15)
        env.strength = 1
        assert (plain.masspole, plain.total_mass, plain.polemass_length) == (0.1, 0.1 + 1.0, 0.1 * 0.5)


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("mass", 1.0, "no parameter 'mass'; it has g, m, l"),
        ("isopen", 2.0, "no parameter 'isopen'"),
        (3, 2.0, "no parameter 3"),
        ("l", 0.0, "at least 0.001"),
    ],
)
def test_refused_parameters(name, strength, message):
    with pytest.raises(ValueError, match=message):
        Parameter(gym.make(PENDULUM), strength, name)


KINDS = {
    HOPPER: {
        "mass": lambda env: BodyMass(env, 1.0),
        "torso": lambda env: BodyMass(env, 1.0, body="torso"),
        "friction": lambda env: Friction(env, 1.0),
        "gravity": lambda env: Gravity(env, 1.0),
        "damping": lambda env: JointDamping(env, 1.0),
    },
    CARTPOLE: {name: lambda env, name=name: Parameter(env, 1.0, name) for name in ("masspole", "length")},
}


def numbers(env):
    """All numbers that the perturbations change, and what is derived from them."""
    plain = env.unwrapped
    if not hasattr(plain, "model"):
        return {name: getattr(plain, name) for name in ("masspole", "masscart", "length", "total_mass", "polemass_length")}
    arrays = ("body_mass", "body_inertia", "geom_friction", "dof_damping", "body_subtreemass", "dof_M0", "body_invweight0")
    return {name: getattr(plain.model, name).copy() for name in arrays} | {"gravity": plain.model.opt.gravity.copy()}


def expected(before, product):
    """The numbers times the product of all factors, by kind."""
    if "length" in before:
        return {name: before[name] * product[name] for name in ("masspole", "length")}
    bodies = product["mass"] * np.array([1, product["torso"], 1, 1, 1])
    return {
        "body_mass": before["body_mass"] * bodies,
        "body_inertia": before["body_inertia"] * bodies[:, None],
        "geom_friction": before["geom_friction"] * product["friction"],
        "dof_damping": before["dof_damping"] * product["damping"],
        "gravity": before["gravity"] * product["gravity"],
    }


@pytest.mark.parametrize(("name", "seed"), [(CARTPOLE, 0), (HOPPER, 1), (HOPPER, 2)])
def test_factors_multiply(name, seed):
    """Any stack, strengths set in any order, with episodes and other wrappers in between; and back."""
    generator = np.random.default_rng(seed)
    env = gym.make(name)
    before, plain = numbers(env), trajectory(gym.make(name))
    stack = []
    for kind in generator.choice(list(KINDS[name]), 6):
        env = KINDS[name][kind](TimeLimit(env, 1_000))
        stack.append((kind, env))
        assert same(numbers(env).values(), before.values())
    for _ in range(20):
        stack[generator.integers(len(stack))][1].strength = generator.choice((0.5, 1.0, 1.0, 1.5, 3.0))
        if generator.random() < 0.3:
            env.reset(seed=1)
            env.step(env.action_space.sample())
        product = {kind: np.prod([each.strength for other, each in stack if other == kind]) for kind in KINDS[name]}
        found = numbers(env)
        for key, value in expected(before, product).items():
            assert found[key] == pytest.approx(value, rel=1e-12), key
    for index in generator.permutation(len(stack)):
        stack[index][1].strength = 1
    assert same(numbers(env).values(), before.values())
    assert same(trajectory(env), plain)


def test_side_by_side_and_with_a_nominal_value_of_the_users_own():
    """Two wrappers of one environment, of which neither knows the other."""
    env = gym.make(PENDULUM)
    first, second = Parameter(env, 2.0, "g"), Parameter(env, 1.5, "g")
    found = [env.unwrapped.g]
    for wrapper in (first, second):
        wrapper.strength = 1
        found.append(env.unwrapped.g)
    env.unwrapped.g = 4.0
    for strength in (2, 1):
        second.strength = strength
        found.append(env.unwrapped.g)
    assert found == [30, 15, 10, 8, 4]


def test_a_refused_factor_leaves_the_others():
    env = Parameter(gym.make(CARTPOLE), 2.0, "masspole")
    outer = Parameter(env, 1.0, "total_mass")
    before = numbers(env)
    with pytest.raises(ValueError, match="is computed from other attributes"):
        outer.strength = 2.0
    with pytest.raises(ValueError, match=r"at least 0\.001"):
        env.strength = 0
    assert numbers(env) == before and (outer.strength, env.strength) == (1, 2)


@pytest.mark.parametrize(
    ("name", "twin"),
    [(HOPPER, copy.deepcopy), (HOPPER, lambda env: pickle.loads(pickle.dumps(env))), (CARTPOLE, copy.deepcopy)],
)
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
    read_environments([second], "env", *write_environments([first], "env"))()
    second.env.env.strength = first.env.env.strength = 3.0
    assert same(numbers(second).values(), numbers(first).values())
