"""Action masks: no forbidden action is ever taken, and the replay buffer holds the masks of its states."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_softac import DiscreteSAC
from sb3_softac.discretesac.masks import ActionMaskInfo
from tests.discretesac.test_mask_wrapper import TERMINAL, MaskableWalk, MaskedWalk, allowed

SMALL = dict(policy_kwargs=dict(net_arch=[16]), batch_size=16, learning_starts=40, buffer_size=600, seed=0, device="cpu")
SPACES = [spaces.Discrete(4), spaces.Discrete(4, start=3), spaces.MultiDiscrete([2, 3], start=[1, -1]), spaces.MultiBinary(3)]


def make_model(env, **kwargs) -> DiscreteSAC:
    return DiscreteSAC("MlpPolicy", env, **{**SMALL, **kwargs})


def check_stored_masks(model):
    """
    Compare the masks in the replay buffer with those of the states in it.

    :return: Number of terminations and of time limits.
    """
    buffer, n = model.replay_buffer, model.branches.n
    assert buffer.size() > 0
    rows = slice(buffer.size())
    states, next_states = (store[rows].argmax(axis=-1) for store in (buffer.observations, buffer.next_observations))
    dones, timeouts = buffer.dones[rows], buffer.timeouts[rows]
    masks, next_masks = (buffer.extras[name][rows] for name in ("action_masks", "next_action_masks"))
    for where in np.ndindex(states.shape):
        np.testing.assert_array_equal(masks[where], allowed(states[where], n))
        terminated = dones[where] and not timeouts[where]
        assert terminated == (next_states[where] == TERMINAL)
        np.testing.assert_array_equal(next_masks[where], np.ones(n, bool) if terminated else allowed(next_states[where], n))
    chosen = model.branches.select(th.as_tensor(masks.astype(np.float32)), th.as_tensor(buffer.actions[rows]).long())
    assert (chosen == len(model.branches.sizes)).all()
    return int((dones & ~timeouts).sum()), int(timeouts.sum())


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_no_forbidden_action_is_taken(space, n_envs):
    """The environment asserts it, during warm-up and later."""
    model = make_model(DummyVecEnv([lambda: MaskableWalk(space)] * n_envs)).learn(150)
    assert model._n_updates > 30
    assert min(check_stored_masks(model)) >= 3


@pytest.mark.parametrize("random_steps", [0, 100])
def test_the_warm_up_and_the_policy_alone(random_steps):
    model = make_model(MaskableWalk(), random_steps=random_steps, learning_starts=1_000).learn(100)
    assert min(check_stored_masks(model)) >= 3


def test_a_terminal_state_may_allow_everything():
    model = make_model(DummyVecEnv([MaskableWalk, MaskableWalk, lambda: MaskableWalk(spaces.Discrete(4), True)]))
    assert min(check_stored_masks(model.learn(200))) >= 5


def test_subprocesses():
    """Each process asserts that it gets no forbidden action."""
    env = SubprocVecEnv([lambda: ActionMaskInfo(MaskableWalk())] * 2)
    try:
        assert min(check_stored_masks(make_model(env).learn(100))) >= 3
    finally:
        env.close()


@pytest.mark.parametrize("wrap_in_monitor", [False, True])
def test_action_masker_of_sb3_contrib(wrap_in_monitor):
    env = ActionMasker(MaskedWalk(), lambda env: env.unwrapped.valid())
    assert min(check_stored_masks(make_model(Monitor(env) if wrap_in_monitor else env).learn(100))) >= 3


@pytest.mark.parametrize("n_steps", [1, 3])
def test_normalization_and_n_step_targets(n_steps):
    env = VecNormalize(DummyVecEnv([MaskableWalk] * 2))
    assert min(check_stored_masks(make_model(env, n_steps=n_steps).learn(150))) >= 3


def test_learning_in_two_parts_keeps_the_masks():
    model = make_model(MaskableWalk()).learn(51)
    model.learn(50, reset_num_timesteps=False)
    model.learn(50, reset_num_timesteps=True)
    assert model.replay_buffer.pos == 151 and min(check_stored_masks(model)) >= 3


def test_forbidden_actions_have_no_part_in_the_losses(monkeypatch):
    """Whatever the networks say about them: logits and Q-values of forbidden actions may be anything."""
    model = make_model(MaskableWalk()).learn(60)
    batch = model.replay_buffer.sample(64)
    monkeypatch.setattr(model, "_minimize", lambda losses: None)
    before = model._update(batch)
    masks = {True: batch.extras["action_masks"], False: batch.extras["next_action_masks"]}

    def disturb(network, current, size):
        forward = type(network).forward

        def disturbed(self, x):
            out = forward(self, x)
            mask = masks[current]
            # A chosen action is allowed, so the Q loss does not see these either
            return th.where(mask, out, out + size) if out.shape[-2:] == mask.shape else out

        return disturbed

    for network, current in ((model.critic.q_networks, True), (model.critic_target.q_networks, False)):
        monkeypatch.setattr(network, "forward", disturb(network, current, 1e3).__get__(network))
    after = model._update(batch)
    for name in before:
        assert after[name].item() == pytest.approx(before[name].item(), rel=1e-4, abs=1e-5), name


def test_entropies_are_ratios_of_those_over_allowed_actions(monkeypatch):
    model = make_model(MaskableWalk(), target_entropy="ratio_0.5", learning_starts=1_000).learn(60)
    with th.no_grad():
        for parameter in model.actor.parameters():
            parameter.zero_()  # uniform over what is allowed
    batch = model.replay_buffer.sample(64)
    targets = []
    monkeypatch.setattr(
        model.temperature, "losses", lambda log_pi, target: (targets.append(target), {"ent_coef_loss": log_pi.sum()})[1]
    )
    monkeypatch.setattr(model, "_minimize", lambda losses: None)
    logs = model._update(batch)
    assert logs["entropy_ratio"].item() == pytest.approx(1.0)
    counts = batch.extras["action_masks"].sum(dim=1)
    assert len(set(counts.tolist())) > 1
    th.testing.assert_close(targets[0], 0.5 * counts.log())


class Forced(MaskableWalk):
    """One action allowed in every state."""

    def valid(self):
        return super().valid() & (np.arange(4) == np.flatnonzero(allowed(self.state, 4))[0])


def test_states_without_a_choice():
    logs = {}
    model = make_model(Forced())
    original = model._follow_logs
    model._follow_logs = lambda values: (logs.update(values), original(values))
    model.learn(80)
    assert logs["entropy"] == pytest.approx(0.0)


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


@pytest.mark.parametrize("step", [0, 1, 50])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(4, bool), "environment 0 forbids every option of branch 0"),
        (np.ones(5, bool), r"need shape \(1, 4\)"),
        (np.ones((2, 4), bool), r"need shape \(1, 4\)"),
    ],
)
def test_wrong_masks_are_reported_at_once(mask, message, step):
    model = make_model(Faulty(mask, step))
    with pytest.raises(ValueError, match=message):
        model.learn(100)
    assert model.num_timesteps == step


def test_the_environment_with_the_wrong_mask_is_named():
    model = make_model(DummyVecEnv([MaskableWalk, lambda: Faulty(np.zeros(4, bool), 3)]))
    with pytest.raises(ValueError, match="environment 1 forbids"):
        model.learn(100)


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


@pytest.mark.parametrize("n_envs", [1, 3])
def test_evaluation_by_sb3_contrib(n_envs):
    model = make_model(MaskableWalk())
    env = DummyVecEnv([lambda: Monitor(MaskableWalk())] * n_envs)
    for deterministic in (False, True):
        rewards, lengths = evaluate_policy(
            model, env, n_eval_episodes=6, deterministic=deterministic, return_episode_rewards=True
        )
        assert len(rewards) == 6 and max(lengths) <= 6


def test_evaluation_callback_of_sb3_contrib(tmp_path):
    callback = MaskableEvalCallback(
        Monitor(MaskableWalk()), eval_freq=30, n_eval_episodes=3, best_model_save_path=str(tmp_path), verbose=0
    )
    model = make_model(MaskableWalk()).learn(100, callback=callback)
    assert callback.best_mean_reward > -np.inf
    loaded = DiscreteSAC.load(tmp_path / "best_model", env=MaskableWalk())
    loaded.learn(20)
    assert min(check_stored_masks(model)) >= 3


def test_saving_and_continuing(tmp_path):
    model = make_model(MaskableWalk()).learn(80)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DiscreteSAC.load(tmp_path / "model", env=DummyVecEnv([MaskableWalk]))
    loaded.load_replay_buffer(tmp_path / "buffer")
    obs, masks = np.eye(8, dtype=np.float32), np.stack([allowed(state, 4) for state in range(8)])
    ours, theirs = (m.policy.log_probs(m.policy.obs_to_tensor(obs)[0], masks) for m in (model, loaded))
    assert th.equal(ours, theirs)
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps == 140 and loaded.replay_buffer.pos == 140 and loaded._n_updates == 100
    assert min(check_stored_masks(loaded)) >= 5


def test_a_model_without_masks_refuses_an_environment_with_them(tmp_path):
    model = make_model(MaskableWalk(), buffer_size=100)
    plain = make_model(_without_masks(), learning_starts=10).learn(30)
    assert plain.replay_buffer.extras == {}
    plain.save(tmp_path / "plain")
    plain.save_replay_buffer(tmp_path / "buffer")
    plain.set_env(DummyVecEnv([MaskableWalk]))
    with pytest.raises(ValueError, match="has action masks, but this model was made for one without"):
        plain.learn(10)
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="its replay buffer keeps none"):
        model.learn(10)
    # Loaded for an environment with masks, the model gets a new replay buffer, which keeps them
    loaded = DiscreteSAC.load(tmp_path / "plain", env=MaskableWalk()).learn(50)
    assert min(check_stored_masks(loaded)) >= 1


def _without_masks():
    """The walk, but everything is allowed everywhere and nobody says so."""
    env = MaskedWalk()
    env.valid = lambda: np.ones(4, bool)
    return env


def test_environments_of_a_loaded_model(tmp_path):
    """With masks where there were some, and without; the replay buffer keeps its columns in both cases."""
    model = make_model(MaskableWalk()).learn(60)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DiscreteSAC.load(tmp_path / "model")
    loaded.set_env(DummyVecEnv([MaskableWalk]))
    assert min(check_stored_masks(loaded.learn(150))) >= 3
    loaded = DiscreteSAC.load(tmp_path / "model", env=_without_masks())
    loaded.learn(50)
    assert loaded.replay_buffer.extras["action_masks"][:50].all()
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(50, reset_num_timesteps=False)
    assert loaded.replay_buffer.pos == 110


def test_a_model_with_masks_goes_on_without_them():
    model = make_model(MaskableWalk()).learn(60)
    model.set_env(DummyVecEnv([_without_masks]))
    model.learn(50, reset_num_timesteps=False)
    assert model.replay_buffer.extras["action_masks"][60:110].all()
    assert model.replay_buffer.extras["next_action_masks"][60:110].all()


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(replay_buffer_class=ReplayBuffer),
        dict(replay_buffer_class=HerReplayBuffer),
        dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)),
    ],
)
def test_replay_buffers_that_cannot_keep_masks(kwargs):
    with pytest.raises(ValueError, match=r"has to keep \['action_masks', 'next_action_masks'\]"):
        make_model(MaskableWalk(), **kwargs)
    if kwargs.get("replay_buffer_class") is not HerReplayBuffer:  # which needs goals
        make_model(_without_masks(), **kwargs)
