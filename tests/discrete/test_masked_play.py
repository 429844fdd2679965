"""Choosing actions and evaluating with masks, given or not."""

import io
import warnings

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from stable_baselines3.common import evaluation as sb3_evaluation
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_softac import DiscreteSAC
from sb3_softac.discrete.masked_play import MasksForPredict
from tests.discrete.masked_walk import (
    SPACES,
    TERMINAL,
    MaskableWalk,
    MaskedWalk,
    MasksOfWrapper,
    allowed,
    check_stored_masks,
    make_model,
)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
def test_predict(space, deterministic):
    env = MaskableWalk(space)
    model = make_model(env)
    for state in range(TERMINAL):
        env.state, env.steps = state, 0
        obs, mask = env.observe(), env.valid()
        for _ in range(5):
            action, _ = model.predict(obs, deterministic=deterministic, action_masks=mask)
            assert action.shape == space.shape
            env.state, env.steps = state, 0
            env.step(action)  # asserts that the action is allowed
    states = np.arange(TERMINAL)
    masks = np.stack([allowed(state, model.branches.n) for state in states])
    actions, _ = model.predict(np.eye(8)[states], deterministic=deterministic, action_masks=masks)
    for state, action in zip(states, actions, strict=True):
        env.state, env.steps = state, 0
        env.step(action)


def test_predict_with_wrong_masks():
    model = make_model(MaskableWalk())
    obs = np.zeros((3, 8), np.float32)
    with pytest.raises(ValueError, match=r"need shape \(3, 4\)"):
        model.predict(obs, action_masks=np.ones((2, 4)))
    with pytest.raises(ValueError, match="forbids every option"):
        model.predict(obs, action_masks=np.zeros((3, 4)))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_distribution_of_sb3_contrib(space):
    model = make_model(MaskableWalk(space))
    obs, _ = model.policy.obs_to_tensor(np.eye(8, dtype=np.float32))
    masks = np.stack([allowed(state, model.branches.n) for state in range(8)])
    for given in (None, masks):
        distribution = model.policy.get_distribution(obs, given)
        parts = [distribution.distribution] if isinstance(space, spaces.Discrete) else distribution.distributions
        probabilities = th.cat([part.probs for part in parts], dim=1)
        th.testing.assert_close(probabilities, model.policy.log_probs(obs, given).exp())
    assert (probabilities[~th.as_tensor(masks)] == 0.0).all()


def test_evaluation_callback_of_sb3_contrib(tmp_path):
    callback = MaskableEvalCallback(
        Monitor(MaskableWalk()), eval_freq=30, n_eval_episodes=3, best_model_save_path=str(tmp_path), verbose=0
    )
    model = make_model(MaskableWalk()).learn(100, callback=callback)
    assert callback.best_mean_reward > -np.inf
    loaded = DiscreteSAC.load(tmp_path / "best_model", env=MaskableWalk())
    loaded.learn(20)
    assert min(check_stored_masks(model)) >= 3


def monitored(n_envs=1):
    return DummyVecEnv([lambda: Monitor(MaskableWalk())] * n_envs)


def evaluate(model, env):
    """SB3's evaluation, which passes no masks; the environment refuses forbidden actions."""
    for deterministic in (False, True):
        rewards, _ = sb3_evaluation.evaluate_policy(model, env, 10, deterministic, return_episode_rewards=True)
        assert len(rewards) == 10


@pytest.fixture(scope="module")
def model():
    return make_model(MaskableWalk(), learning_starts=1_000).learn(30)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: env,
        lambda env: VecNormalize(env, training=False),
        MasksOfWrapper,
    ],
    ids=["plain", "VecNormalize", "VecEnvWrapper"],
)
def test_an_environment_that_predict_knows(wrap, model):
    evaluate(model, MasksForPredict(wrap(monitored(3))))


def test_predict_knows_the_environment_by_its_last_observation_only(model):
    env, other = MasksForPredict(monitored()), MasksForPredict(monitored())
    first, last = env.reset(), other.reset()
    env.envs[0].unwrapped.state, other.envs[0].unwrapped.state = 0, 1
    for _ in range(30):
        assert allowed(0, 4)[model.predict(first)[0][0]] and allowed(1, 4)[model.predict(last)[0][0]]
    unknown = make_model(MaskableWalk())
    env.reset()
    other.close()
    for given in (first, last, last.copy()):
        unknown._warnings_given = frozenset()
        with pytest.warns(UserWarning, match="predict\\(\\) got no action_masks"):
            unknown.predict(given)


def test_an_environment_without_masks_behind_the_wrapper():
    env = MasksForPredict(DummyVecEnv([_everything_allowed]))
    evaluate(make_model(_everything_allowed()), env)


def _everything_allowed():
    env = Monitor(MaskedWalk())
    env.unwrapped.valid = lambda: np.ones(4, bool)
    return env


def test_evaluating_without_masks_warns_once_per_model(model):
    """The remedies are named. A model that has never met masks is not warned, nor are those who pass masks."""
    fresh = make_model(MaskableWalk())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            fresh.predict(np.zeros(8, np.float32))
            fresh.predict(np.zeros(8, np.float32), action_masks=np.ones(4))
        make_model(_everything_allowed()).predict(np.zeros(8, np.float32))
    (warning,) = caught
    for remedy in ("action_masks=", "MaskableEvalCallback", "evaluate_policy", "MasksForPredict"):
        assert remedy in str(warning.message)
    file = io.BytesIO()
    fresh.save(file)
    file.seek(0)
    with pytest.warns(UserWarning, match="got no action_masks"):
        DiscreteSAC.load(file).predict(np.zeros(8, np.float32))


class Best(BaseCallback):
    """Counts the evaluations, and looks at the model that they hand on."""

    calls = 0

    def _on_step(self):
        assert type(self.model) is DiscreteSAC
        self.calls += 1
        return True


@pytest.mark.parametrize(("inside", "normalize", "n_envs"), [(False, True, 1), (True, False, 2)])
def test_evaluation_callback_of_sb3(inside, normalize, n_envs, tmp_path):
    """It passes no masks; its environment is asked, wrapped as the training environment is or not."""
    env, eval_env = monitored(), monitored(n_envs)
    if normalize:
        env, eval_env = VecNormalize(env), VecNormalize(eval_env, training=False, norm_reward=False)
    best = Best()
    evaluation = EvalCallback(
        eval_env,
        callback_after_eval=best,
        n_eval_episodes=4,
        eval_freq=1 if inside else 20,
        verbose=0,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        warn=False,
    )
    callback = CallbackList([EveryNTimesteps(20, evaluation)]) if inside else evaluation
    model = make_model(env).learn(40, callback=callback)
    model.learn(20, callback=callback, reset_num_timesteps=False)
    assert best.calls >= 2 and len(evaluation.evaluations_results) >= 2
    assert isinstance(evaluation.model, DiscreteSAC) and evaluation.model.num_timesteps == 60
    if normalize:
        assert eval_env.obs_rms.count > 1
    assert DiscreteSAC.load(tmp_path / "best_model").num_timesteps > 0


class Tolerant(MaskableWalk):
    """Has masks, but accepts every action."""

    def valid(self):
        return np.ones(4, bool)

    def action_masks(self):
        return allowed(self.state, 4)


def test_callbacks_of_sb3_contrib_are_left_alone():
    """They may have been told to leave the masks aside."""
    callback = MaskableEvalCallback(Monitor(Tolerant()), use_masking=False, eval_freq=20, verbose=0)
    model = make_model(MaskableWalk())
    with pytest.warns(UserWarning, match="got no action_masks"):
        model.learn(40, callback=callback)
    assert callback.model is model


def test_order_of_wrappers():
    """A wrapper that hands on the observations may be outside; one that changes them makes the environment unknown."""
    stacked = VecFrameStack(MasksForPredict(monitored()), 2)
    other = make_model(VecFrameStack(monitored(), 2))
    with pytest.warns(UserWarning, match="as its outermost wrapper"):
        other.predict(stacked.reset())
    evaluate(other, MasksForPredict(VecFrameStack(monitored(), 2)))


class Odd(BaseCallback):
    """Its attribute with a name of SB3's is not what it is there."""

    def __init__(self, callbacks):
        super().__init__()
        self.callbacks, self.callback = callbacks, None

    def _on_step(self):
        return True


def test_odd_callbacks():
    first, second = Odd(None), Odd({"a": 1})
    first.callback, second.callback = second, first  # they know each other
    make_model(MaskableWalk(SPACES[0])).learn(3, callback=first)
    assert second.num_timesteps == 0
