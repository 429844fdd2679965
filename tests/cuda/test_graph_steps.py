"""Gradient steps as graphs: the parameters of one step after the other, and nothing done by a graph that is out of date."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.cuda.device_copy import DeviceCopy
from sb3_softac.cuda.graph_steps import GraphSteps
from sb3_softac.cuda.graphs import WARM_UP, CudaEngine
from tests.common.test_acting import OBSERVATIONS, POLICIES, RandomObservations
from tests.cuda.graph_engine import RecordingEngine

ALGORITHMS = [SoftAC_v1, SQL, DiscreteSAC]
MASKED = spaces.MultiDiscrete([2, 3])


class Masked(RandomObservations):
    def action_masks(self):
        return np.array([True, True, True, False, True])


@pytest.fixture(autouse=True)
def room(monkeypatch):
    monkeypatch.setattr(DeviceCopy, "fits", staticmethod(lambda buffer, device: True))


def make_model(algorithm, graphs, kind="vector", action_space=None, n_envs=1, env_class=RandomObservations, **kwargs):
    if action_space is None:
        action_space = spaces.Discrete(3) if algorithm is DiscreteSAC else spaces.Box(-1.0, 3.0, (2,))
    env = make_vec_env(lambda: env_class(OBSERVATIONS[kind], action_space), n_envs, seed=0)
    policy_kwargs = dict(net_arch=[8], **(dict(features_extractor_kwargs=dict(features_dim=8)) if kind == "image" else {}))
    settings = dict(buffer_size=60, batch_size=8, learning_starts=5, policy_kwargs=policy_kwargs, seed=0, device="cpu")
    settings |= dict(kernel_particles=4, value_particles=4) if algorithm is SQL else {}
    model = algorithm(POLICIES.get(kind, "MlpPolicy"), env, **{**settings, **kwargs})
    if graphs:
        use_graphs(model)
    return model


def use_graphs(model):
    model._graph_steps = GraphSteps(model, RecordingEngine())


def engine_of(model):
    return model._graph_steps.graphs.engine


def assert_same_parameters(a, b, rtol=1e-5, atol=1e-6):
    pairs = zip(a.policy.state_dict().items(), b.policy.state_dict().values(), strict=True)
    for (name, mine), theirs in pairs:
        th.testing.assert_close(mine, theirs, rtol=rtol, atol=atol, msg=name)
    th.testing.assert_close(a.log_ent_coef, b.log_ent_coef, rtol=rtol, atol=atol)


def learn(model, steps, **kwargs):
    """From the same random numbers for every model."""
    model.set_random_seed(1)
    return model.learn(steps, **kwargs)


def both(algorithm, **kwargs):
    return [make_model(algorithm, graphs, **kwargs) for graphs in (False, True)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(ent_coef="auto_0.1", gradient_steps=7, n_envs=3),
        dict(n_steps=3, gradient_steps=20, train_freq=4),
        dict(target_update_interval=3, tau=0.5, ent_coef=lambda progress: 0.1 + progress, learning_rate=lambda p: 1e-3 * p),
        dict(kind="dict"),
        dict(kind="image"),
        dict(kind="matrix", gradient_steps=-1, train_freq=(1, "episode")),
    ],
    ids=str,
)
def test_same_parameters_as_without_graphs(algorithm, options):
    """The buffer goes round twice, so the copy on the device has to follow it."""
    steps = 130 * options.get("n_envs", 1) // (3 if options.get("gradient_steps", 1) > 1 else 1)
    eager, graphed = (learn(model, steps) for model in both(algorithm, **options))
    assert eager._n_updates == graphed._n_updates > 0
    assert engine_of(graphed).captures >= 1 and engine_of(graphed).replays >= engine_of(graphed).captures
    assert_same_parameters(eager, graphed)
    assert eager.logger.name_to_value.keys() == graphed.logger.name_to_value.keys()


@pytest.mark.parametrize(
    "options",
    [
        dict(action_space=MASKED),
        dict(action_space=MASKED, env_class=Masked, n_envs=2),
        dict(stable_kwargs=dict(q_clip=0.5, entropy_penalty=0.5), q_aggregation="mean"),
        dict(target_entropy=dict(schedule="linear")),
        dict(target_entropy=dict(schedule="drop", timeout=20)),
        dict(ent_coef="auto_0.5", ent_coef_bounds=(0.4, 0.6), learning_rate=0.05),
    ],
    ids=str,
)
def test_same_parameters_with_the_options_of_discretesac(options):
    eager, graphed = (learn(model, 100) for model in both(DiscreteSAC, **options))
    assert engine_of(graphed).replays > 30
    assert_same_parameters(eager, graphed)


def test_models_learn_alike():
    """Else the tests of this file would compare nothing."""
    models = [learn(make_model(SoftAC_v1, False), 30) for _ in range(2)]
    assert_same_parameters(*models, rtol=0, atol=0)


@pytest.mark.parametrize("options", [dict(proposal="uniform"), dict(policy_kwargs=dict(net_arch=[8], n_critics=1))], ids=str)
def test_same_parameters_with_the_options_of_sql(options):
    eager, graphed = (learn(model, 60) for model in both(SQL, **options))
    assert_same_parameters(eager, graphed)


def test_hundred_updates_after_one():
    for number in (1, 100):
        models = both(SoftAC_v1)
        for model in models:
            learn(model, 20)
            model.set_random_seed(2)
            model.train(number, 8)
        assert_same_parameters(*models, rtol=1e-5 if number == 1 else 1e-4)


def change_parameters(model):
    params = model.get_parameters()
    params["policy"] = {name: value * 0.5 for name, value in params["policy"].items()}
    model.set_parameters(params)


def load_temperature(model):
    # as load() does it: other memory for the same tensor
    model.log_ent_coef.data = th.full((1,), -3.0)


def change_optimizer_state(model):
    model.policy.optimizer.load_state_dict(model.policy.optimizer.state_dict())


def freeze_the_actor(model):
    model.actor.requires_grad_(False)


CHANGES = {
    "gamma": lambda model: setattr(model, "gamma", 0.3),
    "tau": lambda model: setattr(model, "tau", 0.9),
    "target_update_interval": lambda model: setattr(model, "target_update_interval", 4),
    "learning rate": lambda model: setattr(model, "lr_schedule", lambda _: 0.05),
    "betas": lambda model: model.policy.optimizer.param_groups[0].update(betas=(0.5, 0.6)),
    "set_parameters": change_parameters,
    "temperature": load_temperature,
    "optimizer": change_optimizer_state,
    "frozen": freeze_the_actor,
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", CHANGES)
def test_nothing_is_done_by_a_graph_that_is_out_of_date(algorithm, name):
    models = both(algorithm, ent_coef="auto")
    for model in models:
        learn(model, 30)
        CHANGES[name](model)
        learn(model, 20, reset_num_timesteps=False)
    assert engine_of(models[1]).replays > 20
    assert_same_parameters(*models)


@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        (SoftAC_v1, "actor_q", "first"),
        (DiscreteSAC, "q_aggregation", "mean"),
        (DiscreteSAC, "critic_ent_coef_scale", 0.0),
        (DiscreteSAC, "stable_kwargs", {"q_clip": 0.1}),
        (SQL, "value_particles", 6),
        (SQL, "kernel_particles", 6),
        (SQL, "proposal", "uniform"),
    ],
)
def test_changed_options_reach_the_graphs(algorithm, name, value):
    models = both(algorithm)
    for model in models:
        learn(model, 30)
        setattr(model, name, value)
        learn(model, 20, reset_num_timesteps=False)
    assert engine_of(models[1]).captures == 2
    assert_same_parameters(*models)


def test_optimizers_keep_their_numbers():
    """A saved optimizer has to load on any device: no tensors as learning rates, no capturable."""
    model = make_model(SoftAC_v1, True, ent_coef="auto").learn(40)
    assert engine_of(model).replays > 10
    for optimizer in model._optimizers:
        assert all(type(group["lr"]) is float and not group["capturable"] for group in optimizer.param_groups)


def test_saved_and_loaded(tmp_path):
    models = both(SoftAC_v1, ent_coef="auto")
    for number, model in enumerate(models):
        learn(model, 40).save(tmp_path / "model.zip")
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        loaded = SoftAC_v1.load(tmp_path / "model.zip", env=model.get_env(), device="cpu")
        loaded.load_replay_buffer(tmp_path / "buffer.pkl")
        if number:
            use_graphs(loaded)
        loaded.set_random_seed(1)
        models[number] = loaded.learn(40, reset_num_timesteps=False)
    assert engine_of(models[1]).replays > 10
    assert_same_parameters(*models)


def test_a_step_that_is_not_finite_is_withheld():
    eager, graphed = both(SoftAC_v1, learning_rate=1e-3)
    for model in (eager, graphed):
        learn(model, 30)
        model.replay_buffer.rewards[:] = np.nan
        before = {name: value.clone() for name, value in model.policy.state_dict().items()}
        n_updates = model._n_updates
        with pytest.raises(ValueError, match=f"critic_loss is nan at gradient step {n_updates + 1}"):
            model.train(5, 8)
        assert model._n_updates == n_updates
        for name, value in model.policy.state_dict().items():
            th.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
        model.replay_buffer.rewards[:] = 0.0
        model.train(5, 8)
    assert_same_parameters(eager, graphed)


def test_logs_are_read_once_per_dump(monkeypatch):
    at_once, deferred = (make_model(SoftAC_v1, True) for _ in range(2))
    monkeypatch.setattr(deferred, "_defer_logs", lambda: True)
    values = []
    for model in (at_once, deferred):
        learn(model, 30)
        seen = []
        monkeypatch.setattr(model, "_follow_logs", lambda logs, seen=seen: seen.append(logs["critic_loss"]))
        model._setup_learn(100)
        for _ in range(4):
            model.train(2, 8)
        values.append((len(seen), seen))
        model.dump_logs()
    assert [number for number, _ in values] == [4, 0]
    np.testing.assert_array_equal(np.concatenate(values[0][1]), np.concatenate(values[1][1]))


def test_logs_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("sb3_softac.common.off_policy.MAX_DEFERRED", 10)
    model = make_model(SoftAC_v1, False)
    monkeypatch.setattr(model, "_defer_logs", lambda: True)
    model.learn(50, log_interval=None)
    assert model._history == [] and "train/critic_loss" in model.logger.name_to_value


class OwnExtractor(FlattenExtractor):
    pass


class OwnAlgorithm(SoftAC_v1):
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: make_model(SoftAC_v1, True, use_sde=True, verbose=1), "gSDE"),
        (lambda: make_model(SQL, True, replay_buffer_class=ReplayBuffer, verbose=1), "replay buffer is not the default"),
        (
            lambda: make_model(SQL, True, policy_kwargs=dict(net_arch=[8], features_extractor_class=OwnExtractor), verbose=1),
            "features extractor",
        ),
        (lambda: make_model(OwnAlgorithm, True, verbose=1), "not one of the package"),
        (
            lambda: make_model(DiscreteSAC, True, policy_kwargs=dict(net_arch=[8], optimizer_class=th.optim.SGD), verbose=1),
            "optimizer",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_graphs_cannot_do_is_done_without(make, reason, capsys):
    model = make().learn(20)
    assert model._n_updates == 15 and engine_of(model).captures == 0
    assert capsys.readouterr().out.count(reason) == 1


def test_vec_normalize_and_her_do_without(capsys):
    env = VecNormalize(make_vec_env(lambda: RandomObservations(OBSERVATIONS["vector"], spaces.Box(-1, 1, (2,)))))
    model = SoftAC_v1("MlpPolicy", env, learning_starts=5, batch_size=8, buffer_size=50, verbose=1, device="cpu")
    use_graphs(model)
    assert model.learn(10)._n_updates == 5
    assert "VecNormalize" in capsys.readouterr().out
    env = BitFlippingEnv(n_bits=2, continuous=True)
    model = SQL("MultiInputPolicy", env, learning_starts=5, batch_size=8, replay_buffer_class=HerReplayBuffer, device="cpu")
    use_graphs(model)
    assert model.learn(10)._n_updates == 5 and engine_of(model).captures == 0


def test_too_little_memory(monkeypatch):
    monkeypatch.setattr(DeviceCopy, "fits", staticmethod(lambda buffer, device: False))
    model = make_model(SoftAC_v1, True).learn(20)
    assert model._n_updates == 15 and engine_of(model).captures == 0


def test_update_that_cannot_be_captured(monkeypatch):
    """It is done without a graph, not twice and not left out."""
    models = both(SoftAC_v1)
    for model in models:
        update = model._update
        monkeypatch.setattr(model, "_update", lambda batch, update=update: (batch.rewards.sum().item(), update(batch))[1])
        learn(model, 40)
    assert models[0]._n_updates == models[1]._n_updates
    assert not models[1]._graph_steps.can_run()
    assert_same_parameters(*models)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("options", [dict(), dict(ent_coef="auto", gradient_steps=5, n_envs=2), dict(kind="image")], ids=str)
def test_same_parameters_on_a_gpu(algorithm, options):
    eager, graphed = (make_model(algorithm, False, device="cuda", **options) for _ in range(2))
    eager._graph_steps = None
    assert isinstance(graphed._graph_steps.graphs.engine, CudaEngine)
    for model in (eager, graphed):
        learn(model, 60)
    assert graphed._graph_steps.can_run() and WARM_UP < graphed._n_updates
    assert_same_parameters(eager, graphed, rtol=1e-3, atol=1e-5)


def test_gymnasium_environment_by_name():
    """The usual case, from the registry."""
    model = SoftAC_v1("MlpPolicy", gym.make("Pendulum-v1"), learning_starts=20, device="cpu", policy_kwargs=dict(net_arch=[8]))
    use_graphs(model)
    assert model.learn(60)._n_updates == 40 and engine_of(model).replays == 40 - 2 * WARM_UP + 2
