"""Action masks: no forbidden action is ever taken, and the replay buffer holds the masks of its states."""

import warnings

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_softac.discrete.masks import ActionMaskInfo
from tests.discrete.masked_walk import (
    SPACES,
    TIME_LIMIT,
    MaskableWalk,
    MaskedWalk,
    MasksOfWrapper,
    allowed,
    check_stored_masks,
    make_model,
)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_no_forbidden_action_is_taken(space):
    """The environment asserts it, during warm-up and later."""
    model = make_model(DummyVecEnv([lambda: MaskableWalk(space)] * 3)).learn(150)
    assert model._n_updates > 30
    assert min(check_stored_masks(model)) >= 3


@pytest.mark.parametrize("terminal_mask", [False, True])
def test_terminal_states_may_have_masks(terminal_mask):
    walks = [MaskableWalk, MaskableWalk, lambda: MaskableWalk(spaces.Discrete(4), terminal_mask)]
    assert min(check_stored_masks(make_model(DummyVecEnv(walks)).learn(200))) >= 5


@pytest.mark.parametrize("wrapper_class", [ActionMaskInfo, None])
def test_subprocesses(wrapper_class):
    """Each process asserts that it gets no forbidden action; without the wrapper the last masks are out of reach."""
    env = make_vec_env(MaskableWalk, 2, None, 0, None, wrapper_class, None, SubprocVecEnv, dict(start_method="fork"))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = make_model(env).learn(100)
        assert min(check_stored_masks(model, known_at_time_limits=wrapper_class is not None)) >= 3
    finally:
        env.close()
    said = [str(warning.message) for warning in caught]
    assert len(said) == (wrapper_class is None)  # once, though there were several time limits
    assert all("wrap each environment in sb3_softac.discrete.masks.ActionMaskInfo" in message for message in said)


@pytest.mark.parametrize("wrap", [MasksOfWrapper, lambda env: VecNormalize(MasksOfWrapper(env), norm_reward=False)])
def test_masks_of_a_vectorized_wrapper(wrap):
    model = make_model(wrap(DummyVecEnv([lambda: Monitor(MaskedWalk())] * 3)))
    with pytest.warns(UserWarning, match="The masks of the last states before time limits are not available") as caught:
        model.learn(150)
    assert len(caught) == 1
    assert min(check_stored_masks(model, known_at_time_limits=False)) >= 3


class DeadEnd(MaskableWalk):
    """Nobody can move any more when time is up."""

    def valid(self):
        return super().valid() & (self.steps < TIME_LIMIT)


@pytest.mark.parametrize("n_steps", [1, 2])
def test_time_limits_in_states_that_allow_nothing(n_steps):
    model = make_model(DummyVecEnv([DeadEnd, MaskableWalk]), n_steps=n_steps)
    with pytest.warns(UserWarning, match="environment 0 in a state in which its mask allows no action") as caught:
        model.learn(150)
    assert len(caught) == 1
    dones, timeouts, masks = model.replay_buffer.dones, model.replay_buffer.timeouts, model.replay_buffer.extras
    assert dones[:, 0].sum() >= 5 and timeouts[:, 0].sum() == 0  # there is no value behind them
    assert masks["next_action_masks"][:75, 0][np.asarray(dones[:75, 0], bool)].all()
    assert timeouts[:, 1].sum() >= 2  # other time limits stay what they are


@pytest.mark.parametrize(("callback", "random_steps"), [(MaskableEvalCallback, 0), (EvalCallback, 1_000)])
def test_an_evaluation_in_the_training_environment(callback, random_steps):
    """Between two steps it moves the environment to other states, with other masks."""
    walk = MaskableWalk(terminal_mask=True)  # so that nothing but the time of asking can go wrong
    model = make_model(DummyVecEnv([lambda: Monitor(walk)]), random_steps=random_steps)
    evaluation = callback(model.get_env(), eval_freq=7, n_eval_episodes=2, verbose=0, warn=False)
    model.learn(200, callback=evaluation)
    assert len(evaluation.evaluations_results) == 0 and evaluation.best_mean_reward > -np.inf
    buffer = model.replay_buffer
    masks, next_masks = (buffer.extras[name][:200, 0] for name in ("action_masks", "next_action_masks"))
    assert masks[np.arange(200), np.asarray(buffer.actions[:200, 0, 0], int)].all()  # those that were used
    running = ~np.asarray(buffer.dones[:200, 0], bool)
    states = np.asarray(buffer.next_observations[:200, 0]).argmax(axis=1)
    np.testing.assert_array_equal(next_masks[running], [allowed(state, 4) for state in states[running]])


def test_action_masker_of_sb3_contrib_normalization_and_n_step_targets():
    env = VecNormalize(DummyVecEnv([lambda: Monitor(ActionMasker(MaskedWalk(), lambda env: env.unwrapped.valid()))] * 2))
    assert min(check_stored_masks(make_model(env, n_steps=3).learn(150))) >= 3


def test_learning_in_two_parts_keeps_the_masks():
    model = make_model(MaskableWalk()).learn(51)
    model.learn(50, reset_num_timesteps=False)
    model.learn(50, reset_num_timesteps=True)
    assert model.replay_buffer.pos == 151 and min(check_stored_masks(model)) >= 3


class Faulty(MaskableWalk):
    """Masks that are wrong from a given step of the first episode on."""

    def __init__(self, mask, step):
        super().__init__()
        self.mask, self.faulty_step = mask, step

    def step(self, action):
        self.state, self.steps = 0, self.steps + 1
        return self.observe(), 0.0, False, False, {}

    def valid(self):
        return self.mask if self.steps >= self.faulty_step else allowed(self.state, 4)


@pytest.mark.parametrize(
    ("step", "mask", "message"),
    [
        (0, np.ones(5, bool), r"need shape \(1, 4\)"),
        (1, np.array([0, -np.inf, 0, -np.inf]), "True or 1 where an action is allowed"),
        (50, np.zeros(4, bool), "environment 0 forbids every option of branch 0"),
    ],
)
def test_wrong_masks_are_reported_at_once(step, mask, message):
    model = make_model(Faulty(mask, step))
    with pytest.raises(ValueError, match=message):
        model.learn(100)
    assert model.num_timesteps == step


def test_the_environment_with_the_wrong_mask_is_named():
    model = make_model(DummyVecEnv([MaskableWalk, lambda: Faulty(np.zeros(4, bool), 3)]))
    with pytest.raises(ValueError, match="environment 1 forbids"):
        model.learn(100)
