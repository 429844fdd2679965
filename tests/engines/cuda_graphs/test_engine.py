"""Gradient steps as graphs: the parameters of one step after the other."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.utils import set_random_seed

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.engines.cuda_graphs.launcher import WARM_UP
from tests.engines.cuda_graphs.capturers import DEVICE
from tests.engines.cuda_graphs.helpers import (
    ALGORITHMS,
    OBSERVATIONS,
    Masked,
    assert_same,
    assert_same_models,
    both,
    capturer_of,
    copy_of_parameters,
    engine_of,
    learn,
    make_model,
    parameters_of,
    use_graphs,
)

MASKED = spaces.MultiDiscrete([2, 3])


def assert_done_by_graphs(model):
    assert not engine_of(model).given_up
    assert capturer_of(model).captures >= 1 and capturer_of(model).replays > capturer_of(model).captures


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        *((algorithm, dict(gradient_steps=2)) for algorithm in ALGORITHMS),
        (SoftAC_v1, dict(ent_coef="auto_0.1", gradient_steps=3, n_envs=3)),
        (SQL, dict(n_steps=3, gradient_steps=5, train_freq=5)),
        (DiscreteSAC, dict(target_update_interval=3, tau=0.5, ent_coef=lambda p: 0.1 + p, learning_rate=lambda p: 1e-2 * p)),
        (SoftAC_v1, dict(kind="matrix", train_freq=(1, "episode"))),
    ],
)
def test_same_parameters_as_without_graphs(algorithm, options):
    """The buffer goes round twice, so the copy on the device has to follow it."""
    eager, graphed = (learn(model, 45 * options.get("n_envs", 1)) for model in both(algorithm, **options))
    assert_done_by_graphs(graphed)
    assert_same_models(eager, graphed)
    assert eager.logger.name_to_value.keys() == graphed.logger.name_to_value.keys()


# On a CPU, one_hot() looks at the numbers, which a capture does not allow; on a GPU it does not
KINDS = sorted(OBSERVATIONS.keys() - (set() if DEVICE == "cuda" else {"discrete"}))


@pytest.mark.parametrize("kind", KINDS)
def test_same_parameters_for_all_observations(kind):
    eager, graphed = (learn(model, 25) for model in both(SoftAC_v1, kind=kind, learning_rate=1e-3))
    assert_done_by_graphs(graphed)
    assert_same_models(eager, graphed)


@pytest.mark.parametrize(
    "options",
    [
        dict(action_space=MASKED),
        dict(action_space=MASKED, env_class=Masked, n_envs=2),
        dict(stable_kwargs=dict(q_clip=0.5, entropy_penalty=0.5), q_aggregation="mean"),
        dict(target_entropy=dict(schedule="linear")),
        dict(target_entropy=dict(schedule="drop", timeout=5)),
        dict(ent_coef="auto_0.5", ent_coef_bounds=(0.4, 0.6), learning_rate=0.05),
    ],
    ids=str,
)
def test_same_parameters_with_the_options_of_discretesac(options):
    eager, graphed = (learn(model, 30 * options.get("n_envs", 1)) for model in both(DiscreteSAC, **options))
    assert_done_by_graphs(graphed)
    assert_same_models(eager, graphed)


@pytest.mark.parametrize("options", [dict(proposal="uniform"), dict(policy_kwargs=dict(net_arch=[4], n_critics=1))], ids=str)
def test_same_parameters_with_the_options_of_sql(options):
    eager, graphed = (learn(model, 25) for model in both(SQL, **options))
    assert_done_by_graphs(graphed)
    assert_same_models(eager, graphed)


def test_models_learn_alike():
    """Else the tests of this room would compare nothing."""
    models = [make_model(SoftAC_v1, False) for _ in range(2)]
    start = copy_of_parameters(models[0])
    for model in models:
        learn(model, 20)
    assert_same_models(*models, rtol=0, atol=0)
    with pytest.raises(AssertionError):
        assert_same(start, parameters_of(models[0]))


def test_graphs_of_several_steps():
    """21 steps are 16, 4 and 1 at once: three graphs. Each warms up, after one launch that makes the optimizer's state."""
    models = both(SoftAC_v1)
    for model in models:
        learn(model, 6)
        model.set_random_seed(2)
        for _ in range(WARM_UP + 2):
            model.train(21, 4)
    assert_same_models(*models, rtol=1e-4, atol=1e-5)
    assert capturer_of(models[1]).captures == 3 and capturer_of(models[1]).replays == 3 * 2 + 2


def test_optimizers_keep_their_numbers():
    """A saved optimizer has to load on any device: no tensors as learning rates, no capturable."""
    model = make_model(SoftAC_v1, True, ent_coef="auto").learn(20)
    assert_done_by_graphs(model)
    for optimizer in model.optimizers:
        assert all(type(group["lr"]) is float and not group["capturable"] for group in optimizer.param_groups)


def test_objects_keep_their_classes():
    model = make_model(SoftAC_v1, True, ent_coef="auto")
    classes = [type(owner) for owner in (model, model.temperature, *model.policy.modules())]
    model.learn(20)
    assert [type(owner) for owner in (model, model.temperature, *model.policy.modules())] == classes


def test_saved_and_loaded(tmp_path):
    models = both(SoftAC_v1, ent_coef="auto")
    for number, model in enumerate(models):
        learn(model, 20).save(tmp_path / "model.zip")
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        loaded = SoftAC_v1.load(tmp_path / "model.zip", env=model.get_env(), device=DEVICE)
        loaded.load_replay_buffer(tmp_path / "buffer.pkl")
        if number:
            use_graphs(loaded)
        models[number] = learn(loaded, 20, reset_num_timesteps=False)
    assert_done_by_graphs(models[1])
    assert_same_models(*models)


def test_a_step_that_is_not_finite_is_withheld():
    eager, graphed = both(SoftAC_v1)
    for model in (eager, graphed):
        learn(model, 15)
        model.replay_buffer.rewards[:] = np.nan
        before, n_updates = copy_of_parameters(model), model._n_updates
        with pytest.raises(ValueError, match=f"critic_loss is nan at gradient step {n_updates + 1}"):
            model.train(5, 4)
            model._flush_logs()  # on a GPU the error waits for it
        assert model._n_updates == n_updates
        assert_same(before, parameters_of(model), rtol=0, atol=0)
        model.replay_buffer.rewards[:] = 0.0
        set_random_seed(3)  # the plain way stops at the first of the five, and a graph does not
        model.train(5, 4)
    assert_same_models(eager, graphed)


def test_logs_of_graphs_wait_for_the_dump(monkeypatch):
    at_once, deferred = (make_model(SoftAC_v1, True) for _ in range(2))
    for model in (at_once, deferred):
        monkeypatch.setattr(model, "_logs_stay_on_device", lambda model=model: model is deferred)
    values = []
    for model in (at_once, deferred):
        learn(model, 10)
        seen = []
        monkeypatch.setattr(model.entropy_target, "observe", lambda logs, seen=seen: seen.append(logs["critic_loss"]))
        model._setup_learn(100)
        for _ in range(WARM_UP + 2):
            model.train(2, 4)
        values.append((len(seen), seen))
        model.dump_logs()
    assert [number for number, _ in values] == [WARM_UP + 2, 0]
    np.testing.assert_array_equal(np.concatenate(values[0][1]), np.concatenate(values[1][1]))
