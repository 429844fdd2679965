"""What holds for every perturbation: nothing at its neutral strength, random numbers of its own, exact resume."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

from sb3_softac import SoftAC_v1
from sb3_softac.resume.environments import read_environments, write_environments
from sb3_softac.robustness import PERTURBATIONS, ActionNoise, DelayedActions, ObservationNoise, Push
from tests.resume.test_exact import check, maker

PENDULUM, HOPPER, PLANE, CARTPOLE = "Pendulum-v1", "Hopper-v5", "MultiGoal-v0", "CartPole-v1"
# Environment, perturbation, its options and a strength that has an effect
CASES = [
    (PENDULUM, "action_noise", {}, 0.3),
    (PENDULUM, "observation_noise", {}, 0.3),
    (CARTPOLE, "dropped_actions", {}, 0.5),
    (HOPPER, "delayed_actions", {}, 2),
    (PENDULUM, "parameter", {"name": "l"}, 1.5),
    (CARTPOLE, "parameter", {"name": "masspole"}, 3.0),
    (HOPPER, "push", {"every": 3}, 100.0),
    (HOPPER, "mass", {"body": "torso"}, 1.5),
    *((HOPPER, name, {}, 1.5) for name in ("friction", "gravity", "damping")),
    (PLANE, "moved_goals", {}, 1.0),
    (PLANE, "obstacle", {"x": 1.0}, 0.4),
]
IDS = [f"{env}-{name}" for env, name, *_ in CASES]


def test_all_perturbations_are_tried():
    assert {name for _, name, *_ in CASES} == PERTURBATIONS.keys()


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
    """In an environment made again, which is where exact resume puts the state back."""
    first, second = (make(env, name, options, strength) for _ in range(2))
    second.reset(seed=99)
    first.action_space.seed(0)
    first.reset(seed=5)
    for _ in range(4):
        first.step(first.action_space.sample())
    written, tensors = write_environments([first], "env")
    second.strength = PERTURBATIONS[name].neutral  # it comes back from the file
    read_environments([second], "env", written, tensors)()
    assert second.strength == strength
    for _ in range(40):
        action = first.action_space.sample()
        one, other = first.step(action), second.step(action)
        assert np.array_equal(one[0], other[0]) and one[1:4] == other[1:4]
        if one[2] or one[3]:
            assert np.array_equal(first.reset()[0], second.reset()[0])


@pytest.mark.parametrize(("env", "wrapper", "strength"), [(PENDULUM, DelayedActions, 2), (HOPPER, Push, 50.0)])
def test_a_training_under_a_perturbation_is_resumed_exactly(env, wrapper, strength, tmp_path):
    venv = dict(wrapper_class=wrapper, wrapper_kwargs=dict(strength=strength))
    check(maker(SoftAC_v1, env, venv=venv), tmp_path)


@pytest.mark.parametrize("value", [PENDULUM, gym.Env, None], ids=str)
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_what_is_no_environment_is_named(name, value):
    options = {"name": "g"} if name == "parameter" else {}
    with pytest.raises(ValueError, match=f"{PERTURBATIONS[name].__name__} needs an environment, got") as error:
        PERTURBATIONS[name](value, 1, **options)
    assert ("gymnasium.make('Pendulum-v1')" in str(error.value)) == (value == PENDULUM)


@pytest.mark.parametrize("make", [make_vec_env, gym.make_vec])
def test_vectorized_environments_are_perturbed_one_by_one(make):
    with pytest.raises(ValueError, match=r"wrap each environment in it, for example .*wrapper_class=ActionNoise"):
        ActionNoise(make(PENDULUM), 0.1)


@pytest.mark.parametrize("wrapper", [ActionNoise, ObservationNoise])
def test_checkers_have_nothing_to_say(wrapper):
    check_env(wrapper(gym.make(PLANE), 0.1), skip_render_check=True)
