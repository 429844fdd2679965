"""Composed soft Q-functions against exact Boltzmann policies of the sums, and what can be composed and distilled."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_softac import SQL
from sb3_softac.nets.candidates import smallest_q
from sb3_softac.sql import MlpPolicy, composition
from sb3_softac.tabular import BoltzmannOracle, TabularMDP, ks_distance, soft_value_iteration
from tests.softac_v1.helpers import make_model as make_softac
from tests.sql.helpers import make_model, sample, solve_bandit


def right(a):
    return -4.0 * (a[:, 0] - 0.6) ** 2


def left(a):
    return -4.0 * (a[:, 0] + 0.2) ** 2


@pytest.fixture(scope="module")
def skills():
    return [solve_bandit(reward, 1, steps=300, kernel_particles=16) for reward in (right, left)]


@pytest.mark.parametrize(("weights", "numbers"), [("sum", (1.0, 1.0)), ("mean", (0.5, 0.5)), ([2.0, 0.5], (2.0, 0.5))])
def test_a_composed_model_acts_at_once(skills, weights, numbers):
    composed = SQL.compose(skills, weights)
    oracle = BoltzmannOracle(lambda a: numbers[0] * right(a) + numbers[1] * left(a), 1.0)
    assert ks_distance(oracle, sample(composed, 2_000)[:, 0]) < 0.06
    best, _ = composed.predict(np.zeros(50, dtype=np.int64), deterministic=True)
    mode = (numbers[0] * 0.6 - numbers[1] * 0.2) / sum(numbers)
    assert np.abs(best - mode).max() < 0.15


def test_temperature_of_the_composition(skills):
    oracle = BoltzmannOracle(lambda a: right(a) + left(a), 0.1)
    assert ks_distance(oracle, sample(SQL.compose(skills, "sum", ent_coef=0.1), 2_000)[:, 0]) < 0.1


def test_distilled_without_an_environment_saved_and_loaded(skills, tmp_path):
    particles = dict(kernel_particles=32)  # with 16 the distance below is 0.101
    composed = SQL.compose(skills, "sum", policy_kwargs=dict(net_arch=[64, 64]), learning_rate=1e-3, seed=0, **particles)
    composed.distil([skill.replay_buffer for skill in skills], gradient_steps=500)
    composed.save(tmp_path / "composed")
    loaded = SQL.load(tmp_path / "composed", device="cpu")
    assert loaded.policy.distilled and loaded.env is None
    oracle = BoltzmannOracle(lambda a: right(a) + left(a), 1.0)
    th.manual_seed(0)
    assert ks_distance(oracle, sample(loaded, 2_000)[:, 0]) < 0.1


def test_skills_stay_as_they_are(skills):
    before = [parameter.clone() for skill in skills for parameter in skill.policy.parameters()]
    composed = SQL.compose(skills)
    composed.distil([skills[0].replay_buffer], gradient_steps=3, batch_size=16)
    after = [parameter for skill in skills for parameter in skill.policy.parameters()]
    assert all((x == y).all() for x, y in zip(before, after, strict=True))
    for own, skill in zip(composed.policy.critic.critics, skills, strict=True):
        for x, y in zip(own.parameters(), skill.policy.critic.parameters(), strict=True):
            assert (x == y).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        *[(weights, r"'mean', 'sum' or one number per model \(2\)") for weights in ([1.0], 0.5)],
        *[(weights, "each of the weights must be a finite number") for weights in ([1.0, np.nan], ["a", "b"])],
        ("product", "'mean', 'sum' or one number"),
    ],
)
def test_bad_weights(skills, weights, message):
    with pytest.raises(ValueError, match=message):
        SQL.compose(skills, weights)


def normalized(clip_obs=10.0, mean=0.0, norm_obs=True):
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), clip_obs=clip_obs, norm_obs=norm_obs, training=False)
    if norm_obs:
        env.obs_rms.mean[:] = mean
    return env


def filled(n_envs, rows, obs, space=None):
    space = space or spaces.Box(-np.array([1, 1, 8], np.float32), np.array([1, 1, 8], np.float32))
    buffer = ReplayBuffer(1_000, space, spaces.Box(-2.0, 2.0, (1,)), "cpu", n_envs=n_envs)
    for _ in range(rows):
        columns = np.full((n_envs, *space.shape), obs, np.float32)
        buffer.add(columns, columns, np.zeros((n_envs, 1)), np.zeros(n_envs), np.zeros(n_envs), [{}] * n_envs)
    return buffer


def seen_while_distilling(model, buffers, monkeypatch, **kwargs):
    """The observations that the sampler is trained on."""
    seen, loss = [], model._sampler_loss
    monkeypatch.setattr(model, "_sampler_loss", lambda obs, *rest: seen.append(obs) or loss(obs, *rest))
    model.distil(buffers, **kwargs)
    return th.cat(seen)


def test_learning_on_is_refused_before_the_environment_is_touched(tmp_path):
    class Untouched(gym.Wrapper):
        def reset(self, **kwargs):
            raise AssertionError("reset")

    composed = SQL.compose([make_model()])
    composed.save(tmp_path / "composed")
    for model in (composed, SQL.load(tmp_path / "composed", device="cpu")):
        model.set_env(Untouched(gym.make("Pendulum-v1")))
        with pytest.raises(ValueError, match=r"train its sampler with distil\(\), or train the skills further"):
            model.learn(200)
        assert model.num_timesteps == 0
        with pytest.raises(ValueError, match="train its sampler"):
            model.train(1)
    with pytest.raises(ValueError, match=r"give it one with set_env\(\)"):
        SQL.compose([make_model()], env="Pendulum-v1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_model("MultiGoal-v0"), "equal spaces, model 1"),
        (make_softac, "needs models of class SQL, model 1 is a SoftAC_v1"),
        (lambda: SQL.compose([make_model()]), "Model 1 is itself composed"),
        (lambda: make_model(normalized()), "The observations of model 1 are normalized differently"),
    ],
)
def test_models_that_cannot_be_composed(make, message):
    with pytest.raises(ValueError, match=message):
        SQL.compose([make_model(), make()])
    for nothing in ([], make_model(), {"skill": make_model()}):
        with pytest.raises(ValueError, match="a list of at least one model"):
            SQL.compose(nothing)
    with pytest.raises(ValueError, match=r"SQL\.compose"):
        make_model().distil([], gradient_steps=1)


@pytest.mark.parametrize("ent_coef", ["auto", 0.0, -1.0])
def test_bad_temperatures(ent_coef):
    with pytest.raises(ValueError, match="must be a number, got 'auto'" if ent_coef == "auto" else "greater than 0"):
        SQL.compose([make_model()], ent_coef=ent_coef)


def test_normalized_skills():
    first, same = make_model(normalized(mean=1.0)), make_model(normalized(mean=1.0))
    assert SQL.compose([first, same]).get_vec_normalize_env() is first.get_vec_normalize_env()
    for other in (normalized(mean=2.0), normalized(1.0, mean=1.0), normalized(norm_obs=False)):
        with pytest.raises(ValueError, match="The observations of model 1 are normalized differently"):
            SQL.compose([first, make_model(other)])
    rewards_only = [make_model(normalized(norm_obs=False)) for _ in range(2)]
    SQL.compose([make_model(), *rewards_only])
    rewards_only[1].get_vec_normalize_env().ret_rms.var = np.array(100.0)
    with pytest.warns(UserWarning, match="rewards of model 1 by another number .* different units"):
        SQL.compose(rewards_only)


def test_distilled_on_normalized_observations(monkeypatch):
    skill = make_model(normalized(mean=0.5))
    obs = seen_while_distilling(SQL.compose([skill]), [filled(1, 5, 0.75)], monkeypatch, gradient_steps=2, batch_size=4)
    assert obs.shape == (8, 3) and obs.numpy() == pytest.approx(0.25, abs=1e-4)


def test_buffers_count_by_their_transitions(monkeypatch):
    wide, long = filled(4, 10, 0.0), filled(1, 40, 1.0)
    obs = seen_while_distilling(
        SQL.compose([make_model()]), [wide, long, filled(2, 0, 0.0)], monkeypatch, gradient_steps=4, batch_size=100
    )
    assert 0.4 < (obs == 0.0).float().mean() < 0.6


@pytest.mark.parametrize(
    ("buffers", "kwargs", "message"),
    [
        ([], {}, "contain no transitions to distil from"),
        (filled(1, 3, 0.0), {}, "needs a list of replay buffers, got a ReplayBuffer"),
        ([filled(1, 0, 0.0)], {}, r"contain no transitions .* load_replay_buffer\(\)"),
        ([filled(1, 3, 0.0, spaces.Box(-1, 1, (2,)))], {}, "Replay buffer 0 contains observations of Box"),
        ([filled(1, 3, 0.0)], dict(gradient_steps=0), "gradient_steps must be an integer, at least 1, got 0"),
        ([filled(1, 3, 0.0)], dict(batch_size=0), "batch_size must be an integer, at least 1, got 0"),
        ([filled(1, 3, np.nan)], {}, "A loss was not finite while distilling"),
    ],
)
def test_nothing_to_distil_from(buffers, kwargs, message):
    composed = SQL.compose([make_model()])
    before = {name: value.clone() for name, value in composed.policy.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        composed.distil(buffers, **{"gradient_steps": 1, "batch_size": 4, **kwargs})
    assert all((value == before[name]).all() for name, value in composed.policy.state_dict().items())
    composed.distil([filled(1, 3, 0.0)], gradient_steps=1, batch_size=4)  # as if nothing had happened
    assert composed.policy.distilled and composed.policy._acts_by_sampler


def test_dictionaries_have_the_extractor_of_the_skills():
    env = SimpleMultiObsEnv(discrete_actions=False)
    skill = make_model(env, "MultiInputPolicy", buffer_size=50, batch_size=4).learn(12)
    composed = SQL.compose([skill, skill])
    obs = env.reset()[0]
    assert env.action_space.contains(composed.predict(obs)[0])
    composed.distil([skill.replay_buffer] * 2, gradient_steps=2, batch_size=6)
    assert env.action_space.contains(composed.predict(obs, deterministic=True)[0])


def test_skills_of_a_policy_class_of_ones_own(tmp_path):
    composed = SQL.compose([make_model(policy=Marked)])
    composed.save(tmp_path / "composed")
    for model in (composed, SQL.load(tmp_path / "composed", device="cpu")):
        obs, actions = th.zeros(1, 3), th.zeros(1, 2, 1)
        critic = model.policy.critic.critics[0]
        assert critic.marked
        assert smallest_q(model.policy.critic, obs, actions).shape == (1, 2)


@pytest.mark.parametrize("given", [dict(scale=5.0), {}])
def test_skills_keep_the_arguments_of_their_policy(given, tmp_path):
    skill = make_model(policy=Scaled, policy_kwargs=given)
    composed = SQL.compose([skill])
    composed.save(tmp_path / "composed")
    obs, actions = th.zeros(1, 3), th.full((1, 2, 1), 0.5)
    expected = smallest_q(skill.policy.critic, obs, actions)
    for model in (composed, SQL.load(tmp_path / "composed", device="cpu")):
        assert th.equal(smallest_q(model.policy.critic, obs, actions), expected)


class Scaled(MlpPolicy):
    """Multiplies its Q-values, and decides on its networks itself."""

    def __init__(self, *args, scale=2.0, **kwargs):
        super().__init__(*args, **kwargs, net_arch=[8])
        q_particles = self.critic.q_particles
        self.critic.q_particles = lambda *values: scale * q_particles(*values)


def test_another_extractor_does_not_get_the_arguments_of_the_first():
    skill = make_model(
        policy_kwargs=dict(net_arch=[8], features_extractor_class=Wide, features_extractor_kwargs=dict(width=5))
    )
    assert SQL.compose([skill]).policy.actor.features_extractor.width == 5
    composed = SQL.compose([skill], policy_kwargs=dict(features_extractor_class=FlattenExtractor))
    assert type(composed.policy.actor.features_extractor) is FlattenExtractor


class Wide(FlattenExtractor):
    def __init__(self, observation_space, width=1):
        super().__init__(observation_space)
        self.width = width


class Marked(MlpPolicy):
    """Marks its critic."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.critic.marked = True


def test_skills_are_never_in_training_mode():
    policy = SQL.compose([make_model()]).policy
    for mode in (True, False):
        policy.set_training_mode(mode)
        assert policy.actor.network.training is mode
        assert not any(module.training for part in (policy.critic, policy.skill_actors) for module in part.modules())


def test_large_q_values_of_a_composition(monkeypatch):
    """Whole Q-values stay exact when 2^23 is added; divided by the temperature they would not."""
    policy = SQL.compose([make_model()], ent_coef=0.3).policy
    actions = []
    for offset in (0.0, 2.0**23):
        monkeypatch.setattr(composition, "smallest_q", lambda critic, obs, a, o=offset: (4.0 * a[..., 0]).round() + o)
        th.manual_seed(0)
        actions.append(policy(th.zeros(500, 3)))
    assert (actions[0] == actions[1]).float().mean() > 0.99


def test_mean_of_soft_q_functions_and_the_mean_reward():
    """The bound that the page on SQL states, after arXiv:1803.06773, on a random MDP."""
    rng, discount, temperature = np.random.default_rng(0), 0.9, 0.3
    moves, rewards = rng.dirichlet(np.full(6, 0.3), (6, 3)), rng.normal(size=(2, 6, 3))
    first, second, both = (
        soft_value_iteration(TabularMDP.from_arrays(moves, reward, discount), temperature)
        for reward in (*rewards, rewards.mean(axis=0))
    )
    divergence = -2.0 * np.log(np.sqrt(first.pi * second.pi).sum(axis=1))
    gap = np.zeros((6, 3))
    for _ in range(500):
        gap = discount * moves @ (0.5 * temperature * divergence + gap.max(axis=1))
    error = 0.5 * (first.q + second.q) - both.q
    assert (error > 0).all() and (error < gap).all() and gap.max() < 1.5 * error.max()


def small_skill(**kwargs):
    return make_model(**kwargs, policy_kwargs=dict(net_arch=[4])).learn(20)


@pytest.mark.parametrize("kind", ["a skill", "a composed model"])
def test_a_number_of_candidates_that_was_set_is_loaded(kind, tmp_path):
    model = small_skill() if kind == "a skill" else SQL.compose([small_skill()] * 2)
    model.policy.n_candidates = 5
    model.save(tmp_path / "model")
    obs = np.ones((3, 3), np.float32)
    for loaded in (SQL.load(tmp_path / "model"), SQL.load(tmp_path / "model", safe=True)):
        assert loaded.policy.n_candidates == 5
        assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_more_skills_than_candidates():
    composed = SQL.compose([small_skill()] * 9, policy_kwargs=dict(n_candidates=1))
    for deterministic in (False, True):
        assert composed.predict(np.ones((2, 3), np.float32), deterministic=deterministic)[0].shape == (2, 1)


def test_the_temperature_of_a_composed_model(tmp_path):
    skill = small_skill(ent_coef="lin_10")
    skill.save(tmp_path / "skill")
    for each in (skill, SQL.load(tmp_path / "skill")):
        assert SQL.compose([each]).policy.temperature == pytest.approx(float(skill.temperature.alpha)) == pytest.approx(0.01)
    SQL.compose([skill], ent_coef=0.3).save(tmp_path / "composed")
    assert SQL.load(tmp_path / "composed").policy.temperature == pytest.approx(0.3)
    assert SQL.load(tmp_path / "composed", ent_coef=5.0).policy.temperature == 5.0


def test_what_is_set_counts_for_distil():
    skill = small_skill()
    composed = SQL.compose([skill], learning_rate=1e-2)
    before = [parameter.clone() for parameter in composed.actor.parameters()]
    composed.learning_rate, composed.ent_coef = 0.0, 2.0
    composed.distil([skill.replay_buffer], 2, 8)
    assert all(map(th.equal, before, composed.actor.parameters())) and composed.policy.temperature == 2.0
    composed.kernel_particles = 3
    with pytest.raises(ValueError, match="kernel_particles must be an integer, at least 4"):
        composed.distil([skill.replay_buffer], 1, 8)
