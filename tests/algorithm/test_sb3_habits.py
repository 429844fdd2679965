"""What a user of SB3 may replace, share, stop, change or get wrong: it has its effect here too, or it raises."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1

ALGORITHMS = [SoftAC_v1, SQL, DiscreteSAC]
SMALL = dict(learning_starts=10, batch_size=8, buffer_size=200, seed=0, device="cpu")


class Line(gym.Env):
    """Counts its steps in the observation, so that a transition that never happened shows; rewards are the step's number."""

    def __init__(self, discrete=False, length=7, truncate=False, scale=1.0):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(3) if discrete else spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.truncate, self.scale, self.episode, self.step_number = length, truncate, scale, -1, 0

    def observe(self):
        return self.scale * np.array([self.episode, self.step_number], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.step_number += 1
        end = self.step_number == self.length
        return self.observe(), float(self.step_number), end and not self.truncate, end and self.truncate, {}


def make_model(algorithm, env=None, net_arch=(8,), **kwargs):
    policy_kwargs = {"net_arch": list(net_arch), **kwargs.pop("policy_kwargs", {})}
    settings = {**SMALL, **(dict(kernel_particles=4, value_particles=4) if algorithm is SQL else {}), **kwargs}
    env = Line(algorithm is DiscreteSAC) if env is None else env
    return algorithm("MlpPolicy", env, policy_kwargs=policy_kwargs, **settings)


def flat(module):
    return th.cat([parameter.detach().flatten() for parameter in module.parameters()])


def saved(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


# --- What is trained


class Encoder(BaseFeaturesExtractor):
    """Takes the network that it is given, as SB3 allows."""

    def __init__(self, observation_space, network):
        super().__init__(observation_space, features_dim=4)
        self.network = network

    def forward(self, obs):
        return self.network(obs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_encoder_that_all_networks_share_is_trained(algorithm):
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    policy_kwargs = dict(features_extractor_class=Encoder, features_extractor_kwargs=dict(network=network))
    model = make_model(algorithm, policy_kwargs=policy_kwargs)
    before = flat(network)
    model.learn(30)
    assert all(parameter.requires_grad for parameter in model.policy.parameters())
    assert (flat(network) != before).all()
    optimized = [parameter for group in model.policy.optimizer.param_groups for parameter in group["params"]]
    assert len(optimized) == len(set(optimized)) and set(network.parameters()) <= set(optimized)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_frozen_before_stays_so_and_the_rest_learns(algorithm):
    network = nn.Sequential(nn.Linear(2, 4).requires_grad_(False), nn.Linear(4, 4))
    policy_kwargs = dict(features_extractor_class=Encoder, features_extractor_kwargs=dict(network=network))
    model = make_model(algorithm, policy_kwargs=policy_kwargs)
    frozen, learning = flat(network[0]), flat(network[1])
    model.learn(30)
    assert th.equal(flat(network[0]), frozen) and (flat(network[1]) != learning).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_freezing_and_thawing_between_two_rounds(algorithm):
    model = make_model(algorithm).learn(20)
    model.critic.requires_grad_(False)
    critic, actor = flat(model.critic), flat(model.actor)
    model.train(2, 8)
    assert th.equal(flat(model.critic), critic) and not th.equal(flat(model.actor), actor)
    model.critic.requires_grad_(True)
    model.train(2, 8)
    assert not th.equal(flat(model.critic), critic)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_targets_are_neither_frozen_nor_trained(algorithm):
    model = make_model(algorithm, tau=1e-9).learn(30)
    for name, target in model.targets.items():
        assert not th.allclose(flat(getattr(model, name)), flat(getattr(model, target)))
        assert all(parameter.grad is None for parameter in getattr(model, target).parameters())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_replaced_optimizer_steps(algorithm):
    model = make_model(algorithm, learning_rate=0.1).learn(15)
    model.policy.optimizer = th.optim.SGD(model.actor.parameters(), lr=0.1)
    for name in {*model.trains.values()} - {"actor"}:
        getattr(model.policy, name).requires_grad_(False)
    actor, critic = flat(model.actor), flat(model.critic)
    model.train(1, 8)
    assert th.equal(flat(model.critic), critic)
    gradient = th.cat([parameter.grad.flatten() for parameter in model.actor.parameters() if parameter.grad is not None])
    if algorithm is not SQL and not model.policy.share_features_extractor:
        th.testing.assert_close(flat(model.actor), actor - 0.1 * gradient)
    assert not th.equal(flat(model.actor), actor)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_do_not_pile_up_outside_of_a_replaced_optimizer(algorithm):
    model = make_model(algorithm, ent_coef=0.5).learn(15)
    model.policy.optimizer = th.optim.SGD(model.actor.parameters(), lr=0.0)
    gradients = []
    for _ in range(2):
        th.manual_seed(0)
        np.random.seed(0)
        model._update(sample(model))
        gradients.append([parameter.grad.clone() for parameter in model.critic.q_networks.parameters()])
    for first, second in zip(*gradients, strict=True):
        th.testing.assert_close(first, second)


def sample(model):
    from sb3_softac.replay.batch import make_batch

    return make_batch(model.replay_buffer.sample(8), model.gamma)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_optimizer_of_one_network_is_refused(algorithm):
    model = make_model(algorithm)
    for network in (model.actor, model.critic):
        with pytest.raises(AttributeError, match=r"policy\.optimizer"):
            network.optimizer = th.optim.SGD(network.parameters(), lr=0.1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_replaced_optimizer_of_the_temperature_steps(algorithm):
    model = make_model(algorithm, ent_coef="auto").learn(15)
    model.ent_coef_optimizer = th.optim.SGD([model.log_ent_coef], lr=0.5)
    before = model.log_ent_coef.item()
    model.train(1, 8)
    assert model.log_ent_coef.item() == pytest.approx(before - model.lr_schedule(1) * model.log_ent_coef.grad.item())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replaced_networks_act_and_learn(algorithm):
    """In the policy or in the model: it is the same attribute."""
    model, other = make_model(algorithm), make_model(algorithm, seed=1)
    for owner, name in ((model.policy, "actor"), (model, "critic")):
        replacement = getattr(other.policy, name)
        setattr(owner, name, replacement)
        assert getattr(model, name) is getattr(model.policy, name) is replacement
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    actor, critic = flat(model.actor), flat(model.critic)
    model.learn(30)
    assert not th.equal(flat(model.actor), actor) and not th.equal(flat(model.critic), critic)


@pytest.mark.parametrize(
    "change", [lambda layer: prune.l1_unstructured(layer, "weight", 0.5), spectral_norm], ids=["prune", "norm"]
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_network_is_changed_together_with_its_target(algorithm, change):
    model = make_model(algorithm, tau=0.5, learning_rate=0.05).learn(15)
    ((name, target),) = model.targets.items()
    first_layers = [
        next(module for module in getattr(model, part).modules() if hasattr(module, "weight")) for part in (name, target)
    ]
    change(first_layers[0])
    before = flat(model.policy)
    with pytest.raises(ValueError, match=rf"weight.* differ: .*, change policy\.{target}"):
        model.train(1, 8)
    assert th.equal(flat(model.policy), before)
    change(first_layers[1])
    before = flat(getattr(model, target))
    model.train(3, 8)
    assert not th.equal(flat(getattr(model, target)), before)


# --- What a file or a policy of another algorithm gives


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("policy", [SACPolicy, "other", nn.Linear, 3], ids=str)
def test_policies_of_other_algorithms_are_refused(algorithm, policy):
    if policy == "other":
        policy = SoftAC_v1.policy_base if algorithm is not SoftAC_v1 else SQL.policy_base
    with pytest.raises(
        ValueError, match=f"{algorithm.__name__} cannot use the policy .*MlpPolicy.*{algorithm.policy_base.__name__}"
    ):
        algorithm(policy, Line(algorithm is DiscreteSAC))


@pytest.mark.parametrize("other", [SAC, DQN, PPO, SoftAC_v1, SQL, DiscreteSAC])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_of_other_algorithms_are_refused(algorithm, other, tmp_path):
    if algorithm is other:
        pytest.skip("its own file")
    other("MlpPolicy", Line(other in (DQN, PPO, DiscreteSAC)), device="cpu").save(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"{algorithm.__name__} cannot use the policy .*with the class of the algorithm"):
        algorithm.load(tmp_path / "model")


# --- Temperature and target entropy


@pytest.mark.parametrize(("algorithm", "auto"), [(SoftAC_v1, -1.0), (SQL, -1.0), (DiscreteSAC, 0.98 * np.log(3))])
def test_target_entropy_is_a_number_and_is_resolved_again(algorithm, auto, tmp_path):
    model = make_model(algorithm)
    assert isinstance(model.target_entropy, float) and model.target_entropy == pytest.approx(auto)
    path = saved(model, tmp_path)
    assert algorithm.load(path).target_entropy == pytest.approx(auto)
    assert algorithm.load(path, target_entropy=0.5).target_entropy == pytest.approx(0.5)
    again = algorithm.load(path, target_entropy=0.5)
    assert algorithm.load(saved(again, tmp_path)).target_entropy == pytest.approx(0.5)
    model.target_entropy = 0.25
    assert model.target_entropy == pytest.approx(0.25)
    assert algorithm.load(saved(model, tmp_path)).target_entropy == pytest.approx(0.25)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_target_entropy_that_is_set_is_aimed_at(algorithm):
    """Above what the policy has, the temperature rises; below, it falls."""
    for target, sign in ((np.log(3.0), 1), (0.0 if algorithm is DiscreteSAC else -50.0, -1)):
        model = make_model(algorithm, ent_coef="auto", learning_rate=0.01).learn(15)
        model.target_entropy = target
        before = model.log_ent_coef.item()
        model.train(40, 8)
        assert np.sign(model.log_ent_coef.item() - before) == sign


@pytest.mark.parametrize("said", ["high", None, float("nan")])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_target_entropies_that_mean_nothing(algorithm, said):
    with pytest.raises(ValueError, match="target_entropy"):
        make_model(algorithm, target_entropy=said)


def test_another_schedule_of_the_target_starts_anew(tmp_path):
    drop = dict(schedule="drop", start=0.9, timeout=5)
    model = make_model(DiscreteSAC, target_entropy=drop, ent_coef="auto").learn(60)
    reached = model.target_entropy
    assert reached < 0.9 * 0.9 * np.log(3)
    path = saved(model, tmp_path)
    assert DiscreteSAC.load(path).target_entropy == pytest.approx(reached)
    assert DiscreteSAC.load(path, target_entropy=dict(drop, start=0.8)).target_entropy == pytest.approx(0.8 * np.log(3))
    model.target_entropy = dict(drop, start=0.7)
    assert model.target_entropy == pytest.approx(0.7 * np.log(3))
    assert DiscreteSAC.load(saved(model, tmp_path)).target_entropy == pytest.approx(0.7 * np.log(3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_learned_temperature_goes_on_or_is_given_anew(algorithm, tmp_path):
    path = saved(make_model(algorithm, ent_coef="auto_0.5", learning_rate=0.05).learn(30), tmp_path)
    learned = algorithm.load(path)
    assert learned.temperature.alpha.item() != pytest.approx(0.5)
    assert learned.ent_coef_optimizer.state_dict()["state"]
    for said in ("auto_0.1", 0.1, "lin_0.1"):
        model = algorithm.load(path, ent_coef=said)
        assert model.temperature.alpha.item() == pytest.approx(0.1), said
    assert not algorithm.load(path, ent_coef="auto_0.1").ent_coef_optimizer.state_dict()["state"]
    learned.ent_coef = "auto_0.2"
    assert learned.ent_coef == "auto_0.2" and learned.temperature.alpha.item() == pytest.approx(0.2)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bounds_of_the_temperature(algorithm, tmp_path):
    model = make_model(algorithm, ent_coef="auto_0.5", ent_coef_bounds=(0.45, 0.55), learning_rate=0.1, target_entropy=0.0)
    model.learn(30)
    assert 0.449 < model.temperature.alpha.item() < 0.551
    assert tuple(algorithm.load(saved(model, tmp_path)).ent_coef_bounds) == (0.45, 0.55)
    with pytest.raises(ValueError, match="ent_coef_bounds"):
        make_model(algorithm, ent_coef=0.5, ent_coef_bounds=(0.1, 1.0))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_linear_temperature_as_the_zoo_writes_it(algorithm):
    model = make_model(algorithm, ent_coef="lin_0.4")
    assert model.temperature.alpha.item() == pytest.approx(0.4)
    model.learn(40)
    assert model.temperature.alpha.item() == pytest.approx(0.4e-3)


# --- Interruptions


class StopAt(BaseCallback):
    def __init__(self, n_calls, error=None):
        super().__init__()
        self.last_call, self.error = n_calls, error

    def _on_step(self):
        if self.n_calls == self.last_call and self.error is not None:
            raise self.error
        return self.n_calls < self.last_call


def check_that_transitions_happened(model):
    """In one episode, and from one of its steps to the next."""
    buffer = model.replay_buffer
    obs, next_obs = (np.asarray(part)[: buffer.pos] for part in (buffer.observations, buffer.next_observations))
    np.testing.assert_array_equal(next_obs - obs, np.broadcast_to([0.0, 1.0], obs.shape))
    np.testing.assert_array_equal(buffer.rewards[: buffer.pos], next_obs[..., 1])


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("stop", [4, 7, 14])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_step_that_a_callback_stops_at_is_kept(algorithm, stop, n_envs):
    env = DummyVecEnv([lambda: gym.wrappers.RecordEpisodeStatistics(Line(algorithm is DiscreteSAC))] * n_envs)
    model = make_model(algorithm, env, learning_starts=1_000)
    model.learn(100, callback=StopAt(stop))
    assert model.replay_buffer.pos == model._episode_num // n_envs * 7 + stop % 7 == stop
    assert model.num_timesteps == stop * n_envs
    model.learn(20 * n_envs, reset_num_timesteps=False)
    assert model.replay_buffer.pos == stop + 20
    check_that_transitions_happened(model)
    assert model.replay_buffer.rewards[stop, 0] == stop % 7 + 1  # the episode went on


def test_episode_statistics_of_the_step_that_a_callback_stops_at():
    model = make_model(SoftAC_v1, learning_starts=1_000).learn(100, callback=StopAt(7))
    assert [info["l"] for info in model.ep_info_buffer] == [7]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_after_an_error_in_a_callback_the_environment_is_reset(algorithm):
    model = make_model(algorithm, learning_starts=1_000)
    with pytest.raises(KeyboardInterrupt):
        model.learn(100, callback=StopAt(4, KeyboardInterrupt()))
    model.learn(20, reset_num_timesteps=False)
    check_that_transitions_happened(model)
    assert model.replay_buffer.rewards[3, 0] == 1.0


def targets_of(model):
    """Lengths of the 3-step targets from each stored transition."""
    buffer = model.replay_buffer
    samples = buffer._get_samples(np.arange(buffer.size()))
    return np.log(samples.discounts.numpy().flatten()) / np.log(model.gamma)


@pytest.mark.parametrize("how", ["learn", "set_env", "load", "error"])
@pytest.mark.parametrize("buffer_class", [None, NStepReplayBuffer])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_targets_end_where_the_environment_was_reset(algorithm, buffer_class, how, tmp_path):
    kwargs = {} if buffer_class is None else dict(replay_buffer_kwargs=dict(n_steps=3, gamma=0.5))
    env = Line(algorithm is DiscreteSAC, length=100)
    model = make_model(algorithm, env, n_steps=3, gamma=0.5, learning_starts=1_000, replay_buffer_class=buffer_class, **kwargs)
    if how == "error":
        with pytest.raises(KeyboardInterrupt):
            model.learn(100, callback=StopAt(6, KeyboardInterrupt()))
    else:
        model.learn(5)
    if how == "load":
        model.save_replay_buffer(tmp_path / "buffer")
        model = algorithm.load(saved(model, tmp_path), env=env)
        model.load_replay_buffer(tmp_path / "buffer")
    elif how == "set_env":
        model.set_env(env)
    model.learn(5, reset_num_timesteps=how == "learn")
    np.testing.assert_allclose(targets_of(model), [3, 3, 3, 2, 1] * 2, atol=1e-4)
    assert not model.replay_buffer._get_samples(np.arange(10)).dones.any()


# --- Bad arguments

BAD = [
    dict(n_steps=0),
    dict(batch_size=0),
    dict(gamma=-0.1),
    dict(gamma=1.1),
    dict(gamma=float("nan")),
    dict(buffer_size=0),
    dict(policy_kwargs=dict(n_critics=0)),
    dict(tau=-0.1),
    dict(tau=1.5),
    dict(target_update_interval=0),
    dict(random_steps=-1),
    dict(learning_starts=-1),
    dict(train_freq=0),
    dict(train_freq=(0, "episode")),
    dict(gradient_steps=-2),
    dict(learning_rate=-1e-3),
    dict(learning_rate=float("inf")),
    dict(ent_coef=0.0),
    dict(ent_coef="auto_-1"),
    dict(ent_coef="lin_0"),
    dict(ent_coef="loud"),
]


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_arguments_out_of_range(algorithm, bad):
    name = next(iter(bad.get("policy_kwargs", bad)))
    with pytest.raises(ValueError, match=f"{name}.*(must|not valid|do not go together)"):
        make_model(algorithm, **bad)


@pytest.mark.parametrize("algorithm", [SoftAC_v1, SQL])
@pytest.mark.parametrize(
    ("space", "cause"),
    [
        (spaces.Box(-1, 1, (2,), np.int64), "integers"),
        (spaces.Box(0, 255, (2,), np.uint8), "integers"),
        (spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0]), dtype=np.float64), "equal"),
        (spaces.Box(-3e38, 3e38, (1,), np.float32), "single precision"),
        (spaces.Box(-1e300, 1e300, (1,), np.float64), "single precision"),
        (spaces.Box(1e9, 1e9 + 1e-3, (1,), np.float64), "equal"),
        (spaces.Box(-np.inf, 1.0, (1,), np.float32), "infinite"),
    ],
    ids=str,
)
def test_boxes_that_no_squashed_policy_can_act_in(algorithm, space, cause):
    env = Line()
    env.action_space = space
    with pytest.raises(AssertionError, match=f"{cause}.*"):
        make_model(algorithm, env)


# --- Not finite, and too large


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_predictions_for_observations_that_are_not_finite(algorithm, deterministic, value):
    model = make_model(algorithm, net_arch=(8, 8))
    for obs in (np.array([0.0, value], np.float32), np.array([[0.0, 0.0], [value, 0.0]], np.float32)):
        with pytest.raises(ValueError, match=r"not finite.*VecCheckNan"):
            model.predict(obs, deterministic=deterministic)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_predictions_of_parameters_that_are_not_finite(algorithm):
    model = make_model(algorithm)
    with th.no_grad():
        for parameter in model.actor.parameters():
            parameter.fill_(th.nan)
    with pytest.raises(ValueError, match="not finite"):
        model.predict(np.zeros(2, np.float32))


@pytest.mark.parametrize("algorithm", [SoftAC_v1, DiscreteSAC])
def test_saturated_policies_are_reported_once(algorithm):
    env = Line(algorithm is DiscreteSAC, scale=1e6)
    model = make_model(algorithm, env, ent_coef="auto", net_arch=(32,))
    with pytest.warns(UserWarning, match="VecNormalize") as warned:
        model.learn(400)
    assert len(warned) == 1
    assert model.temperature.alpha.item() > 1.0


def test_policies_in_order_are_not_reported():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for algorithm in (SoftAC_v1, DiscreteSAC):
            make_model(algorithm, ent_coef="auto").learn(200)
    assert not warned


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_frames_are_stacked_below_the_normalization(algorithm):
    def frames():
        return DummyVecEnv([lambda: Line(algorithm is DiscreteSAC)])

    model = make_model(algorithm, VecFrameStack(VecNormalize(frames()), 3))
    with pytest.raises(ValueError, match=r"put VecNormalize on top.*vec_env_wrapper"):
        model.learn(20)
    model = make_model(algorithm, VecNormalize(VecFrameStack(frames(), 3))).learn(20)
    assert model._n_updates > 0
