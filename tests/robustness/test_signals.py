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

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.actions = []
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.actions.append(action)
        return np.asarray(action, np.float32), float(action[0]), False, False, {}


def play(env, actions, seed=0):
    env.reset(seed=seed)
    observations = [env.step(action)[0] for action in actions]
    return np.array(env.unwrapped.actions), np.array(observations)


MIDDLE = np.array([0.0, 5.0], np.float32)


def test_action_noise_is_a_fraction_of_half_the_range():
    actions, _ = play(ActionNoise(Echo(), 0.1), [MIDDLE] * 20_000)
    noise = actions - MIDDLE
    assert actions.dtype == np.float32
    assert noise.std(axis=0) == pytest.approx([0.1 * 2, 0.1 * 5], rel=0.02)
    assert abs(noise.mean(axis=0)) == pytest.approx([0, 0], abs=0.02)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03 and abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.03


def test_noisy_actions_stay_in_the_action_space():
    actions, _ = play(ActionNoise(Echo(), 2.0), [MIDDLE] * 200)
    assert all(Echo.action_space.contains(action) for action in actions)
    assert {-2.0, 2.0} <= set(actions[:, 0]) and {0.0, 10.0} <= set(actions[:, 1])


def test_noise_on_whole_numbers_has_no_direction():
    class Whole(Echo):
        action_space = spaces.Box(0, 10, (2,), np.int64)

    actions, _ = play(ActionNoise(Whole(), 0.2), [np.array([5, 5])] * 5_000)
    assert actions.dtype == np.int64 and abs(actions.mean(axis=0) - 5).max() < 0.05


def test_observation_noise_is_in_units_of_the_observation():
    env = ObservationNoise(Echo(), 0.5)
    actions, observations = play(env, [MIDDLE] * 20_000)
    noise = observations - MIDDLE
    assert (actions == MIDDLE).all() and observations.dtype == np.float32
    assert noise.std(axis=0) == pytest.approx([0.5, 0.5], rel=0.02) and abs(noise.mean(axis=0)) == pytest.approx(
        [0, 0], abs=0.02
    )
    first, _ = env.reset(seed=1)
    assert (first != 0).all()
    assert env.step(MIDDLE)[1] == 0.0  # the reward is that of the true state


def test_noisy_observations_stay_in_the_observation_space():
    _, observations = play(ObservationNoise(Echo(), 100.0), [MIDDLE] * 100)
    assert abs(observations).max() == 100.0


def numbered(n):
    return [np.array([0.01 * k, k % 10], np.float32) for k in range(n)]


def test_dropped_actions_repeat_the_last_that_arrived():
    sent = np.array(numbered(100))
    actions, _ = play(DroppedActions(Echo(), 0.5), sent)
    same = [np.array_equal(acted, given) for acted, given in zip(actions, sent, strict=True)]
    assert same[0] and 35 <= sum(same) <= 65
    for k in range(1, 100):
        assert np.array_equal(actions[k], sent[k] if same[k] else actions[k - 1])
    nothing_arrives, _ = play(DroppedActions(Echo(), 1.0), sent)
    assert (nothing_arrives == sent[0]).all()  # the first of an episode


def test_a_new_episode_forgets_what_arrived():
    env = DroppedActions(Echo(), 1.0)
    play(env, [MIDDLE])
    actions, _ = play(env, numbered(2))
    assert (actions == numbered(1)[0]).all()


def test_an_action_that_is_changed_afterwards_has_arrived_as_it_was():
    """Vectorized environments write the next actions into the same array."""
    for env, expected in ((DroppedActions(Echo(), 1.0), [1, 1]), (DelayedActions(Echo(), 1), [0, 1])):
        action = np.array([1.0, 5.0], np.float32)
        env.reset(seed=0)
        for _ in range(2):
            env.step(action)
            action[:] = 2.0
        assert [float(acted[0]) for acted in env.unwrapped.actions] == expected


def test_delayed_actions_arrive_later():
    env = DelayedActions(Echo(), 3)
    for _ in range(2):  # a new episode forgets what was under way
        actions, _ = play(env, numbered(6))
        assert np.array_equal(actions, [[0, 0]] * 3 + numbered(6)[:3])


def test_nothing_is_what_is_nearest_to_zero():
    class Positive(Echo):
        action_space = spaces.Box(1.0, 3.0, (2,), np.float32)

    actions, _ = play(DelayedActions(Positive(), 1), [np.array([2, 2], np.float32)] * 2)
    assert actions.tolist() == [[1, 1], [2, 2]]


class Discrete(Echo):
    action_space = spaces.Discrete(3)
    observation_space = spaces.Discrete(3)


class Unbounded(Echo):
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Pixels(Echo):
    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("wrapper", "env", "message"),
    [
        (ActionNoise, Discrete, "needs a bounded Box action space"),
        (ActionNoise, Unbounded, "needs a bounded Box action space"),
        (ObservationNoise, Discrete, "needs a Box observation space of floating-point numbers"),
        (ObservationNoise, Pixels, "needs a Box observation space of floating-point numbers"),
        (DelayedActions, Discrete, "needs a Box action space"),
    ],
)
def test_spaces_that_do_not_fit(wrapper, env, message):
    with pytest.raises(ValueError, match=message):
        wrapper(env(), 0)


@pytest.mark.parametrize(
    ("wrapper", "strength", "message"),
    [
        (ActionNoise, -0.1, r"ActionNoise must be a number of at least 0 \(standard deviation.*got -0.1"),
        (ActionNoise, float("nan"), "got nan"),
        (ActionNoise, float("inf"), "got inf"),
        (ActionNoise, "0.1", "got '0.1'"),
        (ActionNoise, True, "got True"),
        (ObservationNoise, -1, "must be a number of at least 0"),
        (DroppedActions, 1.5, "at least 0 and at most 1"),
        (DelayedActions, 1.5, "must be a whole number of at least 0"),
        (DelayedActions, -1, "must be a whole number of at least 0"),
    ],
)
def test_strengths_that_are_none(wrapper, strength, message):
    with pytest.raises(ValueError, match=message):
        wrapper(Echo(), strength)
    env = wrapper(Echo(), 0)
    with pytest.raises(ValueError, match=message):
        env.strength = strength
    assert env.strength == 0


def test_discrete_actions_may_be_lost():
    class Counter(Discrete):
        def step(self, action):
            self.actions.append(action)
            return int(action), 0.0, False, False, {}

    env = DroppedActions(Counter(), 1.0)
    env.reset(seed=0)
    assert [env.step(action)[0] for action in (2, 1, 0)] == [2, 2, 2]


def test_masked_actions_are_not_repeated():
    """They may be invalid by then."""

    class Masked(Discrete):
        def action_masks(self):
            return np.ones(3, bool)

    with pytest.raises(ValueError, match="the masks of"):
        DroppedActions(gym.Wrapper(Masked()), 0.5)


def test_a_seed_repeats_and_another_does_not():
    env = ActionNoise(Echo(), 0.1)
    first, again, other = (play(env, [MIDDLE] * 5, seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    env.reset()  # without a seed the numbers go on
    env.step(MIDDLE)
    assert not np.array_equal(env.unwrapped.actions[0], other[0])


def test_two_perturbations_draw_different_numbers():
    env = ActionNoise(gym.wrappers.TimeLimit(ActionNoise(Echo(), 0.1), 10), 0.1)
    env.reset(seed=0)
    assert env.generator.random() != env.env.env.generator.random()


def test_unseeded_perturbations_differ():
    first, second = (ActionNoise(Echo(), 0.1) for _ in range(2))
    for env in (first, second):
        env.reset()
        env.step(MIDDLE)
    assert not np.array_equal(first.unwrapped.actions, second.unwrapped.actions)
