"""Perturbations of MultiGoal: effects computed by hand."""

import gymnasium as gym
import numpy as np
import pytest

from sb3_softac.robustness import MovedGoals, Obstacle

PLANE = "MultiGoal-v0"


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MovedGoals(gym.make("Pendulum-v1"), 1.0), "MovedGoals needs MultiGoal-v0"),
        (lambda: Obstacle(gym.make("Pendulum-v1"), 1.0), "Obstacle needs MultiGoal-v0"),
        (lambda: Obstacle(gym.make(PLANE), 2.1), "covers the start: the radius must be at most 2"),
        (lambda: Obstacle(gym.make(PLANE), 0.5, x=8.0, y=3.0), "lies outside of the plane"),
        (lambda: Obstacle(gym.make(PLANE), 0.5, y=float("nan")), "Obstacle: y must be a number, got nan"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
