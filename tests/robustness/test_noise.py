"""Noise, losses and delays: effects computed by hand."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_softac.robustness import ActionNoise, DelayedActions, DroppedActions, ObservationNoise


class Echo(gym.Env):
    """Observes the last action, and notes all of them."""

    action_space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)

    def __init__(self, **others):
        for name, space in others.items():
            setattr(self, name, space)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.actions.append(action)
        return np.asarray(action, np.float32), float(np.ravel(action)[0]), False, False, {}


def play(env, actions, seed=0):
    env.reset(seed=seed)
    observations = [env.step(action)[0] for action in actions]
    return np.array(env.unwrapped.actions), np.array(observations)


def numbered(n):
    return [np.array([0.01 * k, k % 10], np.float32) for k in range(n)]


MIDDLE = np.array([0.0, 5.0], np.float32)


def test_action_noise_is_a_fraction_of_half_the_range():
    actions, _ = play(ActionNoise(Echo(), 0.1), [MIDDLE] * 20_000)
    noise = actions - MIDDLE
    assert actions.dtype == np.float32
    assert noise.std(axis=0) == pytest.approx([0.1 * 2, 0.1 * 5], rel=0.02)
    assert abs(noise.mean(axis=0)) == pytest.approx([0, 0], abs=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03 and abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.03
    actions, _ = play(ActionNoise(Echo(), 2.0), [MIDDLE] * 200)  # clipped
    assert all(Echo.action_space.contains(action) for action in actions)
    assert {-2.0, 2.0} <= set(actions[:, 0]) and {0.0, 10.0} <= set(actions[:, 1])


def test_noise_on_whole_numbers_has_no_direction():
    env = ActionNoise(Echo(action_space=spaces.Box(0, 10, (2,), np.int64)), 0.2)
    actions, _ = play(env, [np.array([5, 5])] * 5_000)
    assert actions.dtype == np.int64 and abs(actions.mean(axis=0) - 5).max() < 0.05


def test_observation_noise_is_in_units_of_the_observation():
    env = ObservationNoise(Echo(), 0.5)
    actions, observations = play(env, [MIDDLE] * 20_000)
    noise = observations - MIDDLE
    assert (actions == MIDDLE).all() and observations.dtype == np.float32
    assert noise.std(axis=0) == pytest.approx([0.5] * 2, rel=0.02) and abs(noise.mean(axis=0)).max() < 0.02
    assert (env.reset(seed=1)[0] != 0).all()
    assert env.step(MIDDLE)[1] == 0.0  # the reward is that of the true state
    env.strength = 100.0
    assert abs(play(env, [MIDDLE] * 100)[1]).max() == 100.0  # clipped


def test_noise_on_observations_of_another_type():
    """Whole numbers, or lists, in a Box of floating-point numbers."""

    class Other(Echo):
        def step(self, action):
            return self.obs, 0.0, False, False, {}

    for obs in (np.array([5]), [5.0]):
        noisy = ObservationNoise(Other(observation_space=spaces.Box(-20.0, 20.0, (1,)), obs=obs), 0.3)
        noisy.reset(seed=0)
        found = np.array([noisy.step(np.zeros(1))[0] for _ in range(1000)])
        assert found.mean() == pytest.approx(5.0, abs=0.05) and found.std() == pytest.approx(0.3, abs=0.03)


def test_noise_over_the_whole_range_of_a_small_type():
    env = ActionNoise(Echo(action_space=spaces.Box(-128, 127, (1,), np.int8)), 0.25)
    actions, _ = play(env, [np.zeros(1, np.int8)] * 500)
    assert actions.std() == pytest.approx(0.25 * 127.5, rel=0.15)


def test_dropped_actions_repeat_the_last_that_arrived():
    sent = np.array(numbered(100))
    actions, _ = play(DroppedActions(Echo(), 0.5), sent)
    same = [np.array_equal(acted, given) for acted, given in zip(actions, sent, strict=True)]
    assert same[0] and 35 <= sum(same) <= 65
    for k in range(1, 100):
        assert np.array_equal(actions[k], sent[k] if same[k] else actions[k - 1])
    env = DroppedActions(Echo(action_space=spaces.Discrete(3)), 1.0)
    for actions in ([2, 1, 0], [1, 2]):  # the first of each episode arrives
        assert (play(env, actions)[0] == actions[0]).all()


def test_delayed_actions_arrive_later():
    env = DelayedActions(Echo(), 3)
    for _ in range(2):  # a new episode forgets what was under way
        assert np.array_equal(play(env, numbered(6))[0], [[0, 0]] * 3 + numbered(6)[:3])
    env = DelayedActions(Echo(action_space=spaces.Box(1.0, 3.0, (2,), np.float32)), 1)
    assert play(env, [np.array([2, 2], np.float32)] * 2)[0].tolist() == [[1, 1], [2, 2]]  # the nearest to zero


def test_an_action_that_is_changed_afterwards_has_arrived_as_it_was():
    """Vectorized environments write the next actions into the same array."""
    for env, expected in ((DroppedActions(Echo(), 1.0), [1, 1]), (DelayedActions(Echo(), 1), [0, 1])):
        action = np.array([1.0, 5.0], np.float32)
        env.reset(seed=0)
        for _ in range(2):
            env.step(action)
            action[:] = 2.0
        assert [float(acted[0]) for acted in env.unwrapped.actions] == expected


def test_seeds():
    env = ActionNoise(Echo(), 0.1)
    first, again, other = (play(env, [MIDDLE] * 5, seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    env.reset()  # without a seed the numbers go on
    env.step(MIDDLE)
    assert not np.array_equal(env.unwrapped.actions[0], other[0])
    one, two = (play(ActionNoise(Echo(), 0.1), [MIDDLE], None)[0] for _ in range(2))
    assert not np.array_equal(one, two)
    env = ActionNoise(gym.wrappers.TimeLimit(ActionNoise(Echo(), 0.1), 10), 0.1)
    env.reset(seed=0)
    assert env.generator.random() != env.env.env.generator.random()


DISCRETE, ONE = spaces.Discrete(3), spaces.Box(1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("wrapper", "space", "message"),
    [
        (ActionNoise, DISCRETE, "needs a bounded Box action space"),
        (ActionNoise, spaces.Box(-np.inf, np.inf, (2,)), "needs a bounded Box action space"),
        (ObservationNoise, DISCRETE, "needs a Box observation space of floating-point numbers"),
        (ObservationNoise, spaces.Box(0, 255, (8, 8, 3), np.uint8), "needs a Box observation space of floating-point numbers"),
        (DelayedActions, DISCRETE, "needs a Box action space"),
        *((wrapper, ONE, "no effect where there is only one") for wrapper in (ActionNoise, ObservationNoise, DelayedActions)),
        (DroppedActions, spaces.Discrete(1), "no effect where there is only one action"),
        (DroppedActions, spaces.MultiDiscrete([1, 1]), "no effect where there is only one action"),
    ],
)
def test_spaces_that_do_not_fit(wrapper, space, message):
    with pytest.raises(ValueError, match=message):
        wrapper(Echo(action_space=space, observation_space=space), 0)


@pytest.mark.parametrize(
    ("wrapper", "strength", "message"),
    [
        (ActionNoise, -0.1, r"ActionNoise must be a number of at least 0 \(standard deviation.*got -0.1"),
        (ActionNoise, float("nan"), "got nan"),
        (ActionNoise, float("inf"), "got inf"),
        (ActionNoise, "0.1", "got '0.1'"),
        (ActionNoise, True, "got True"),
        (DroppedActions, 1.5, "at least 0 and at most 1"),
        (DelayedActions, 1.5, "must be a whole number of at least 0"),
    ],
)
def test_strengths_that_are_none(wrapper, strength, message):
    with pytest.raises(ValueError, match=message):
        wrapper(Echo(), strength)
    env = wrapper(Echo(), 0)
    with pytest.raises(ValueError, match=message):
        env.strength = strength
    assert env.strength == 0


def test_masked_actions_are_not_repeated():
    """They may be invalid by then."""
    with pytest.raises(ValueError, match="the masks of"):
        DroppedActions(gym.Wrapper(Echo(action_masks=lambda: np.ones(3, bool))), 0.5)


def test_signals_that_change_rarely():
    for wrapper, strength in ((DroppedActions, 1e-9), (ActionNoise, 1e-6), (ObservationNoise, 1e-6), (DelayedActions, 1_000)):
        wrapper(Echo(), strength)
