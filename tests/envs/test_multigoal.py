import gymnasium as gym
import matplotlib
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_env_gymnasium
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import sb3_softac.envs


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_checkers_have_nothing_to_say(render_mode):
    check_env_gymnasium(gym.make("MultiGoal-v0", render_mode=render_mode).unwrapped)
    check_env_sb3(gym.make("MultiGoal-v0", render_mode=render_mode))


def test_reward_hand_computed():
    env = gym.make("MultiGoal-v0").unwrapped
    env.reset(options={"position": [1.0, 0.0]})
    obs, reward, terminated, truncated, info = env.step(np.array([0.5, -0.25]))
    # nearest goal (5, 0) from (1.5, -0.25): 3.5^2 + 0.25^2; action 0.5^2 + 0.25^2
    assert obs == pytest.approx([1.5, -0.25]) and reward == pytest.approx(-30 * 0.3125 - 12.3125)
    assert not terminated and not truncated and info == {"goal": -1}


@pytest.mark.parametrize(("start", "action", "goal"), [((4, 0), (0.5, 0), 0), ((-4, 0), (-1, 0), 1), ((0, 3.9), (0, 1), 2)])
def test_a_goal_ends_the_episode_and_is_counted(start, action, goal):
    env = gym.make("MultiGoal-v0")
    env.reset(options={"position": start})
    *_, terminated, truncated, info = env.step(np.array(action, np.float32))
    assert terminated and not truncated and info["goal"] == goal


def test_anchors_of_the_notes():
    """Straight at 0.573 a step ends at -119.4 after seven steps; standing still costs 25 a step for thirty steps."""
    env = gym.make("MultiGoal-v0")
    for velocity, expected, steps in ((0.573, -119.4, 7), (0.0, -750.0, 30)):
        env.reset(options={"position": [0.0, 0.0]})
        total, length, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(np.array([velocity, 0.0], np.float32))
            total, length, over = total + reward, length + 1, terminated or truncated
        assert total == pytest.approx(expected, abs=0.1) and length == steps


def test_the_wall_and_actions_out_of_range():
    env = gym.make("MultiGoal-v0").unwrapped
    env.reset(options={"position": [6.8, 6.8]})
    obs, reward, *_ = env.step(np.array([9.0, 0.0]))
    assert obs == pytest.approx([7.0, 6.8])
    assert reward == pytest.approx(-30.0 - (2.0**2 + 6.8**2))


@pytest.mark.parametrize("position", [[0.0, np.nan], [0.0], 1.0])
def test_starts_that_are_no_position_are_refused(position):
    with pytest.raises(ValueError, match="must be two finite numbers"):
        gym.make("MultiGoal-v0").unwrapped.reset(options={"position": position})


def test_seeded_starts():
    env = gym.make("MultiGoal-v0")
    starts = np.array([env.reset(seed=seed)[0] for seed in range(500)])
    assert starts.std(axis=0) == pytest.approx(0.1, rel=0.15) and (env.reset(seed=3)[0] == starts[3]).all()


def test_pictures():
    env = gym.make("MultiGoal-v0", render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(np.array([1.0, 1.0], np.float32))
    after = env.render()
    assert before.shape == (360, 360, 3) and before.dtype == np.uint8 and (before != after).any()


def test_a_window_is_drawn_at_every_step(monkeypatch):
    matplotlib.use("Agg")
    pauses = []
    monkeypatch.setattr("matplotlib.pyplot.pause", pauses.append)
    env = gym.make("MultiGoal-v0", render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    env.close()
    assert len(pauses) == 2


def test_an_unknown_render_mode_is_refused():
    with pytest.raises(ValueError, match="render_mode must be one of"):
        sb3_softac.envs.MultiGoal(render_mode="ansi")
