"""What holds for every algorithm: what a user of SB3 may replace, share, freeze, stop, save or set takes effect or raises."""

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm.policies import acting_network
from sb3_softac.replay.batch import make_batch
from tests.toys import (
    ALGORITHMS,
    OBSERVATIONS,
    POLICIES,
    CountingEnv,
    StopAt,
    algorithms,
    assert_equal,
    continuous,
    flat,
    is_discrete,
    make_model,
    make_trained,
    parameters_of,
    random_envs,
    saved,
    state_of,
    train,
    with_actor,
)

# --- Trained, saved, loaded and trained again


@pytest.mark.parametrize(
    "options",
    [
        dict(kind="matrix", ent_coef="auto", n_steps=3, n_envs=3, normalized=True),
        dict(kind="discrete", ent_coef="lin_0.5", gradient_steps=-1, train_freq=(1, "episode")),
        dict(kind="dict", ent_coef=0.3),
        dict(kind="image", target_update_interval=2, optimize_memory_usage=True),
    ],
    ids=lambda options: options["kind"],
)
@algorithms
def test_learn_save_load_continue(algorithm, options, tmp_path):
    kind, n_envs = options["kind"], options.get("n_envs", 1)
    of_env = dict(obs=OBSERVATIONS[kind], n_envs=n_envs, normalized=options.get("normalized", False))
    kwargs = {name: value for name, value in options.items() if name not in ("kind", *of_env)}
    if kind == "image":
        kwargs["policy_kwargs"] = dict(features_extractor_kwargs=dict(features_dim=8))
        kwargs["replay_buffer_kwargs"] = dict(handle_timeout_termination=False)
    models = []
    for _ in range(2):
        env = random_envs(algorithm, **of_env)
        models.append(make_model(algorithm, env, POLICIES.get(kind, "MlpPolicy"), **kwargs).learn(20 * n_envs))
    assert_equal(*map(state_of, models))  # the same seed gives the same result
    model = models[0]
    loaded = algorithm.load(saved(model, tmp_path), env=env, device="cpu")
    assert_equal(state_of(model), state_of(loaded))
    obs = np.stack([model.observation_space.sample() for _ in range(5)]) if kind != "dict" else env.reset()
    np.testing.assert_array_equal(*(each.predict(obs, deterministic=True)[0] for each in (model, loaded)))
    assert all(env.action_space.contains(action) for action in loaded.predict(obs)[0])
    before = loaded._n_updates
    loaded.learn(20 * n_envs, reset_num_timesteps=False)
    assert loaded._n_updates > before and loaded.num_timesteps == model.num_timesteps + 20 * n_envs


@algorithms
def test_continuing_equals_not_stopping(algorithm):
    """learn(30) twice on one object is learn(60)."""
    once, twice = make_model(algorithm).learn(60), make_model(algorithm).learn(30).learn(30, reset_num_timesteps=False)
    assert_equal(state_of(once), state_of(twice))


@pytest.mark.filterwarnings("ignore:The last trajectory in the replay buffer will be truncated")
@algorithms
def test_hindsight_experience_replay(algorithm, tmp_path):
    env = BitFlippingEnv(n_bits=4, continuous=not is_discrete(algorithm), max_steps=4)
    her = dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(n_sampled_goal=2), learning_starts=20)
    model = make_model(algorithm, env, "MultiInputPolicy", **her).learn(60)
    assert model._n_updates == 40
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = algorithm.load(saved(model, tmp_path), env=env)
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.learn(30, reset_num_timesteps=False).num_timesteps == 90


# --- What is trained


class Encoder(BaseFeaturesExtractor):
    """Takes the network that it is given, as SB3 allows."""

    def __init__(self, observation_space, network):
        super().__init__(observation_space, features_dim=4)
        self.network = network

    def forward(self, obs):
        return self.network(obs)


def model_with(algorithm, network):
    policy_kwargs = dict(features_extractor_class=Encoder, features_extractor_kwargs=dict(network=network))
    return make_model(algorithm, policy_kwargs=policy_kwargs)


@algorithms
def test_an_encoder_that_all_networks_share_is_trained(algorithm):
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    model, before = model_with(algorithm, network), flat(network)
    model.learn(30)
    assert all(parameter.requires_grad for parameter in model.policy.parameters())
    assert (flat(network) != before).all()
    optimized = [parameter for group in model.policy.optimizer.param_groups for parameter in group["params"]]
    assert len(optimized) == len(set(optimized)) and set(network.parameters()) <= set(optimized)


@with_actor
def test_what_was_frozen_stays_so_and_the_rest_learns(algorithm):
    network = nn.Sequential(nn.Linear(2, 4).requires_grad_(False), nn.Linear(4, 4))
    model, frozen, learning = model_with(algorithm, network), flat(network[0]), flat(network[1])
    model.learn(20)
    assert th.equal(flat(network[0]), frozen) and (flat(network[1]) != learning).all()
    model.critic.requires_grad_(False)
    critic, actor = flat(model.critic), flat(model.actor.network if algorithm is SQL else model.actor)
    model.train(2, 8)
    assert th.equal(flat(model.critic), critic)
    assert not th.equal(flat(model.actor.network if algorithm is SQL else model.actor), actor)
    for name in {*model.trains.values()}:
        getattr(model.policy, name).requires_grad_(True)
    model.train(2, 8)
    assert not th.equal(flat(model.critic), critic)


@algorithms
def test_each_loss_reaches_its_own_network_only(algorithm, monkeypatch):
    kwargs = dict(stable_kwargs=dict(entropy_penalty=1.0)) if algorithm is DiscreteSAC else {}
    model = make_trained(algorithm, ent_coef="auto", **kwargs)
    for loss in (*algorithm.trains, "ent_coef_loss"):
        losses = {}
        with monkeypatch.context() as patch:
            patch.setattr(model, "_minimize", lambda found, losses=losses: losses.update(found) or {})
            model._update(make_batch(model.replay_buffer.sample(8), model.gamma))
        model._minimize({loss: losses[loss]})
        for name, network in model.policy.named_children():
            reached = {parameter.grad is not None for parameter in network.parameters()}
            assert reached == {name == algorithm.trains.get(loss)}, (loss, name)
        assert (model.log_ent_coef.grad is not None) is (loss == "ent_coef_loss")


@pytest.mark.parametrize(("interval", "tau"), [(1, 0.3), (4, 1.0)])
@algorithms
def test_targets_move_by_tau_at_their_interval(algorithm, interval, tau):
    """Rounds of 1, 2, 3, ... gradient steps: the interval counts over all of them."""
    settings = dict(target_update_interval=interval, tau=tau, learning_rate=0.01)
    model = make_model(algorithm, learning_starts=1_000, **settings).learn(40)
    ((name, target),) = model.targets.items()
    update, expected, seen = model._update, [flat(getattr(model, target))], []

    def checked(batch):
        th.testing.assert_close(flat(getattr(model, target)), expected[-1], rtol=1e-5, atol=1e-6)
        logs = update(batch)
        seen.append(flat(getattr(model, name)))
        if len(seen) % interval == 0:
            expected.append((1 - tau) * expected[-1] + tau * seen[-1])
        return logs

    model._update = checked
    for steps in range(1, 6):
        model.train(steps, 8)
    th.testing.assert_close(flat(getattr(model, target)), expected[-1], rtol=1e-5, atol=1e-6)
    assert len(seen) == model._n_updates == 15 and not th.equal(seen[0], seen[-1])


@algorithms
def test_modes_reach_every_module_of_what_is_trained_and_no_target(algorithm):
    model = make_model(algorithm)
    networks = dict(model.policy.named_children())
    assert networks.keys() == {*model.trains.values(), *model.targets.values()}
    for network in networks.values():
        network.features_extractor.extra = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).eval()
    for mode in (True, False, True):
        model.policy.set_training_mode(mode)
        for name, network in networks.items():
            assert {module.training for module in network.modules()} == {mode and name not in model.targets.values()}, name


@with_actor
def test_replaced_optimizers_step(algorithm):
    """That of the policy, alone with its networks, and that of the temperature."""
    model = make_model(algorithm, learning_rate=0.1, ent_coef="auto").learn(15)
    model.policy.optimizer = th.optim.SGD(model.actor.parameters(), lr=0.1)
    model.ent_coef_optimizer = th.optim.SGD([model.log_ent_coef], lr=0.5)
    for name in {*model.trains.values()} - {"actor"}:
        getattr(model.policy, name).requires_grad_(False)
    actor, critic, log_ent_coef = flat(model.actor), flat(model.critic), model.log_ent_coef.item()
    model.train(1, 8)
    assert th.equal(flat(model.critic), critic) and not th.equal(flat(model.actor), actor)
    assert model.log_ent_coef.item() == pytest.approx(log_ent_coef - 0.1 * model.log_ent_coef.grad.item())


@algorithms
def test_an_optimizer_of_one_network_is_refused(algorithm):
    model = make_model(algorithm)
    for network in (getattr(model, name) for name in model.trains.values()):
        with pytest.raises(AttributeError, match=r"policy\.optimizer"):
            network.optimizer = th.optim.SGD(network.parameters(), lr=0.1)


@algorithms
def test_the_optimizer_made_again(algorithm):
    """It is the one of the constructor: class, arguments, parameters in their order; a saved state fits."""
    kwargs = dict(optimizer_class=th.optim.AdamW, optimizer_kwargs=dict(weight_decay=0.3))
    model = make_trained(algorithm, policy_kwargs=dict(net_arch=[8], **kwargs))
    first, again = model.policy.optimizer, model.policy.make_optimizer(model.lr_schedule)
    assert type(again) is th.optim.AdamW and again.defaults == first.defaults
    for mine, theirs in zip(again.param_groups, first.param_groups, strict=True):
        assert all(one is other for one, other in zip(mine["params"], theirs["params"], strict=True))
    again.load_state_dict(copy.deepcopy(first.state_dict()))


@algorithms
def test_replaced_networks_act_and_learn(algorithm):
    """In the policy or in the model: it is the same attribute."""
    model, other = make_model(algorithm), make_model(algorithm, seed=1)
    names = {*model.trains.values()}
    for owner, name in ((model.policy, min(names)), (model, "critic")):
        replacement = getattr(other.policy, name)
        setattr(owner, name, replacement)
        assert getattr(model, name) is getattr(model.policy, name) is replacement
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    before = [flat(getattr(model, name)) for name in names]
    model.learn(30)
    assert not any(th.equal(flat(getattr(model, name)), old) for name, old in zip(names, before, strict=True))


@pytest.mark.parametrize(
    "change", [lambda layer: prune.l1_unstructured(layer, "weight", 0.5), spectral_norm], ids=["prune", "norm"]
)
@algorithms
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


class Lazy(BaseFeaturesExtractor):
    """Convolutions for images; batch normalisation and dropout, which a single zero must not disturb."""

    def __init__(self, space, features_dim=4):
        super().__init__(space, features_dim)
        parts = space.spaces if isinstance(space, spaces.Dict) else {"all": space}
        self.parts = nn.ModuleDict()
        for name, part in parts.items():
            first = [nn.LazyConv2d(2, 3)] if len(part.shape) == 3 else []
            self.parts[name] = nn.Sequential(*first, nn.Flatten(), nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Dropout(0.1))

    def forward(self, obs):
        parts = obs if isinstance(obs, dict) else {"all": obs}
        return sum(self.parts[name](part) for name, part in parts.items())


PICTURE = spaces.Box(0, 255, (1, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("policy", "space", "shared"),
    [
        ("CnnPolicy", PICTURE, True),
        ("MultiInputPolicy", spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3), c=PICTURE), False),
    ],
    ids=["shared", "dict"],
)
@algorithms
def test_lazy_layers(algorithm, policy, space, shared, tmp_path):
    """They are trained, followed by the targets from the start, saved and loaded."""
    kwargs = dict(net_arch=[8], features_extractor_class=Lazy)
    if "actor" in algorithm.trains.values():
        kwargs["share_features_extractor"] = shared
    model = make_trained(algorithm, policy=policy, obs=space, policy_kwargs=kwargs)
    fresh = algorithm(policy, model.get_env(), policy_kwargs=kwargs, device="cpu").policy
    for name, target in algorithm.targets.items():
        assert_equal(*(getattr(fresh, each).state_dict() for each in (name, target)))
        assert getattr(fresh, name).features_extractor is not getattr(fresh, target).features_extractor
    before = parameters_of(model)
    train(model, 3)
    trained = [name for name, _ in model.policy.named_parameters() if "target" not in name and "features" in name]
    assert len(trained) >= 2 and all(not th.equal(before[name], model.policy.state_dict()[name]) for name in trained)
    if "actor" in algorithm.trains.values():
        assert (model.actor.features_extractor is model.critic.features_extractor) == shared
    loaded = algorithm.load(saved(model, tmp_path), device="cpu")
    obs = model.observation_space.sample()
    np.testing.assert_array_equal(*(each.predict(obs, deterministic=True)[0] for each in (model, loaded)))


def test_lazy_layers_elsewhere():
    """What no features extractor contains is refused with the remedy."""

    class WithLazyActor(SoftAC_v1.policy_aliases["MlpPolicy"]):
        def make_actor(self, features_extractor=None):
            actor = super().make_actor(features_extractor)
            actor.mu = nn.LazyLinear(1)
            return actor

    with pytest.raises(ValueError, match=r"lazy layers.*give them their sizes"):
        make_model(SoftAC_v1, policy=WithLazyActor)


# --- Files and policies of other algorithms


@pytest.mark.parametrize("policy", [SACPolicy, "other", nn.Linear, 3], ids=str)
@algorithms
def test_policies_of_other_algorithms_are_refused(algorithm, policy):
    if policy == "other":
        policy = SoftAC_v1.policy_base if algorithm is not SoftAC_v1 else SQL.policy_base
    message = f"{algorithm.__name__} cannot use the policy .*MlpPolicy.*{algorithm.policy_base.__name__}"
    with pytest.raises(ValueError, match=message):
        algorithm(policy, CountingEnv(is_discrete(algorithm)))


@pytest.mark.parametrize("other", [SAC, DQN, PPO, *ALGORITHMS])
def test_files_of_other_algorithms_are_refused(other, tmp_path):
    discrete = other in (DQN, PPO) or (other is not SAC and is_discrete(other))
    path = saved(other("MlpPolicy", CountingEnv(discrete), device="cpu"), tmp_path)
    for algorithm in set(ALGORITHMS) - {other}:
        with pytest.raises(ValueError, match=rf"{algorithm.__name__} cannot use the policy .*with the class of the algorithm"):
            algorithm.load(path)


# --- Temperature and target entropy


@algorithms
def test_target_entropy_is_a_number_and_is_resolved_again(algorithm, tmp_path):
    auto = 0.98 * np.log(3) if is_discrete(algorithm) else -1.0
    model = make_model(algorithm)
    assert isinstance(model.target_entropy, float) and model.target_entropy == pytest.approx(auto)
    path = saved(model, tmp_path)
    assert algorithm.load(path).target_entropy == pytest.approx(auto)
    given = algorithm.load(path, target_entropy=0.5)
    assert given.target_entropy == algorithm.load(saved(given, tmp_path)).target_entropy == pytest.approx(0.5)
    model.target_entropy = 0.25
    assert model.target_entropy == algorithm.load(saved(model, tmp_path)).target_entropy == pytest.approx(0.25)


@algorithms
def test_a_target_entropy_that_is_set_is_aimed_at(algorithm):
    """Above what the policy has, the temperature rises; below, it falls."""
    for target, sign in ((np.log(3.0), 1), (0.0 if is_discrete(algorithm) else -50.0, -1)):
        model = make_model(algorithm, ent_coef="auto", learning_rate=0.01).learn(15)
        model.target_entropy = target
        before = model.log_ent_coef.item()
        model.train(40, 8)
        assert np.sign(model.log_ent_coef.item() - before) == sign


def test_a_schedule_of_the_target_continues_unless_it_is_replaced(tmp_path):
    drop = dict(schedule="drop", start=0.9, timeout=5)
    model = make_model(DiscreteSAC, target_entropy=drop, ent_coef="auto").learn(60)
    reached = model.target_entropy
    assert reached < 0.9 * 0.9 * np.log(3)
    path = saved(model, tmp_path)
    assert DiscreteSAC.load(path).target_entropy == pytest.approx(reached)
    assert DiscreteSAC.load(path, target_entropy=dict(drop, start=0.8)).target_entropy == pytest.approx(0.8 * np.log(3))
    model.target_entropy = dict(drop, start=0.7)
    assert DiscreteSAC.load(saved(model, tmp_path)).target_entropy == pytest.approx(0.7 * np.log(3))


@algorithms
def test_a_learned_temperature_continues_unless_it_is_replaced(algorithm, tmp_path):
    path = saved(make_model(algorithm, ent_coef="auto_0.5", learning_rate=0.05).learn(30), tmp_path)
    learned = algorithm.load(path)
    assert learned.temperature.alpha.item() != pytest.approx(0.5)
    assert learned.ent_coef_optimizer.state_dict()["state"]
    for value in ("auto_0.1", 0.1, "lin_0.1"):
        assert algorithm.load(path, ent_coef=value).temperature.alpha.item() == pytest.approx(0.1), value
    assert not algorithm.load(path, ent_coef="auto_0.1").ent_coef_optimizer.state_dict()["state"]
    learned.set_env(make_model(algorithm).get_env())
    learned.ent_coef = "auto_0.2"
    learned.learn(1)
    assert learned.ent_coef == "auto_0.2" and learned.temperature.alpha.item() == pytest.approx(0.2)


@algorithms
def test_bounds_and_schedules_of_the_temperature(algorithm, tmp_path):
    model = make_model(algorithm, ent_coef="auto_0.5", ent_coef_bounds=(0.45, None), learning_rate=0.1, target_entropy=0.0)
    model.learn(30)
    assert model.temperature.alpha.item() > 0.449
    assert tuple(algorithm.load(saved(model, tmp_path), safe=True).ent_coef_bounds) == (0.45, None)
    with pytest.raises(ValueError, match="ent_coef_bounds"):
        make_model(algorithm, ent_coef=0.5, ent_coef_bounds=(0.1, 1.0))
    model = make_model(algorithm, ent_coef="lin_0.4").learn(40)  # as the Zoo writes it
    assert model.temperature.alpha.item() == pytest.approx(0.4e-3)


# --- Interruptions


def check_that_transitions_happened(model):
    """In one episode, and from one of its steps to the next."""
    buffer = model.replay_buffer
    obs, next_obs = (np.asarray(part)[: buffer.pos] for part in (buffer.observations, buffer.next_observations))
    np.testing.assert_array_equal(next_obs - obs, np.broadcast_to([0.0, 1.0], obs.shape))
    np.testing.assert_array_equal(buffer.rewards[: buffer.pos], next_obs[..., 1])


@pytest.mark.parametrize(("stop", "n_envs"), [(4, 1), (7, 3), (14, 1)])
@algorithms
def test_the_step_that_a_callback_stops_at_is_kept(algorithm, stop, n_envs):
    env = DummyVecEnv([lambda: gym.wrappers.RecordEpisodeStatistics(CountingEnv(is_discrete(algorithm)))] * n_envs)
    model = make_model(algorithm, env, learning_starts=1_000)
    model.learn(100, callback=StopAt(stop))
    assert model.replay_buffer.pos == stop and model.num_timesteps == stop * n_envs
    assert model._episode_num == stop // 7 * n_envs
    model.learn(20 * n_envs, reset_num_timesteps=False)
    assert model.replay_buffer.pos == stop + 20
    check_that_transitions_happened(model)
    assert model.replay_buffer.rewards[stop, 0] == stop % 7 + 1  # the episode went on


def test_episode_statistics_of_the_step_that_a_callback_stops_at():
    model = make_model(SoftAC_v1, learning_starts=1_000).learn(100, callback=StopAt(7))
    assert [info["l"] for info in model.ep_info_buffer] == [7]


@algorithms
def test_after_an_error_in_a_callback_the_environment_is_reset(algorithm):
    model = make_model(algorithm, learning_starts=1_000)
    with pytest.raises(KeyboardInterrupt):
        model.learn(100, callback=StopAt(4, KeyboardInterrupt()))
    model.learn(20, reset_num_timesteps=False)
    check_that_transitions_happened(model)
    assert model.replay_buffer.rewards[3, 0] == 1.0


@pytest.mark.parametrize("how", ["learn", "set_env", "load", "error"])
@pytest.mark.parametrize("buffer_class", [None, NStepReplayBuffer])
@algorithms
def test_targets_end_where_the_environment_was_reset(algorithm, buffer_class, how, tmp_path):
    kwargs = {} if buffer_class is None else dict(replay_buffer_kwargs=dict(n_steps=3, gamma=0.5))
    env = CountingEnv(is_discrete(algorithm), length=100)
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
    samples = model.replay_buffer._get_samples(np.arange(10))
    lengths = np.log(samples.discounts.numpy().flatten()) / np.log(model.gamma)
    np.testing.assert_allclose(lengths, [3, 3, 3, 2, 1] * 2, atol=1e-4)
    assert not samples.dones.any()


# --- Inputs that are not finite, or too large


@algorithms
def test_predictions_that_are_not_finite(algorithm):
    model = make_model(algorithm, net_arch=(8, 8))
    for obs in (np.array([0.0, np.nan], np.float32), np.array([[0.0, 0.0], [np.inf, 0.0]], np.float32)):
        for deterministic in (False, True):
            with pytest.raises(ValueError, match=r"not finite.*VecCheckNan"):
                model.predict(obs, deterministic=deterministic)
    with th.no_grad():
        for parameter in acting_network(model.policy).parameters():
            parameter.fill_(th.nan)
    with pytest.raises(ValueError, match="not finite"):
        model.predict(np.zeros(2, np.float32))


@pytest.mark.parametrize("algorithm", [SoftAC_v1, DiscreteSAC])
def test_saturated_policies_are_reported_once(algorithm, monkeypatch):
    env = CountingEnv(is_discrete(algorithm), scale=1e6)
    model = make_model(algorithm, env, ent_coef="auto", net_arch=(32,))
    with pytest.warns(UserWarning, match="VecNormalize") as warned:
        model.learn(300)
    assert len(warned) == 1 and model.temperature.alpha.item() > 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_model(algorithm, ent_coef="auto").learn(150)


@algorithms
def test_frames_are_stacked_below_the_normalization(algorithm):
    def frames():
        return DummyVecEnv([lambda: CountingEnv(is_discrete(algorithm))])

    model = make_model(algorithm, VecFrameStack(VecNormalize(frames()), 3))
    with pytest.raises(ValueError, match=r"put VecNormalize on top.*vec_env_wrapper"):
        model.learn(20)
    assert make_model(algorithm, VecNormalize(VecFrameStack(frames(), 3))).learn(20)._n_updates > 0


@pytest.mark.parametrize(
    ("space", "cause"),
    [
        (spaces.Box(-1, 1, (2,), np.int64), "integers"),
        (spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0]), dtype=np.float64), "equal"),
        (spaces.Box(1e9, 1e9 + 1e-3, (1,), np.float64), "equal"),
        (spaces.Box(-3e38, 3e38, (1,), np.float32), "single precision"),
        (spaces.Box(-np.inf, 1.0, (1,), np.float32), "infinite"),
    ],
    ids=str,
)
@continuous
def test_boxes_that_no_squashed_policy_can_act_in(algorithm, space, cause):
    env = CountingEnv()
    env.action_space = space
    with pytest.raises(AssertionError, match=cause):
        make_model(algorithm, env)


@algorithms
def test_gradients_do_not_pile_up_outside_of_a_replaced_optimizer(algorithm):
    model = make_trained(algorithm, ent_coef=0.5)
    model.policy.optimizer = th.optim.SGD([nn.Parameter(th.zeros(1))], lr=0.0)
    gradients = []
    for _ in range(2):
        np.random.seed(0)
        th.manual_seed(0)
        model._update(make_batch(model.replay_buffer.sample(8), model.gamma))
        gradients.append([parameter.grad.clone() for parameter in model.critic.q_networks.parameters()])
    for first, second in zip(*gradients, strict=True):
        th.testing.assert_close(first, second)
