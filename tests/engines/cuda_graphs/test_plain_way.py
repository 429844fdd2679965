"""What graphs cannot do is done the plain way, with one warning that says why; no step is done twice or left out."""

import warnings

import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.engines.cuda_graphs.device_copy import DeviceCopy
from sb3_softac.engines.cuda_graphs.launcher import WARM_UP
from tests.engines.cuda_graphs.capturers import DEVICE, CountingCapturer
from tests.engines.cuda_graphs.helpers import (
    OBSERVATIONS,
    RandomEnv,
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

REASON = "cuda_graphs=True has no effect, gradient steps run without graphs: "


class OwnExtractor(FlattenExtractor):
    pass


def with_normalised_critic():
    model = make_model(SoftAC_v1, True)
    for network in (model.value_net.v_network, model.value_net_target.v_network):
        network.insert(1, th.nn.BatchNorm1d(4).to(model.device))
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    return model


def with_vec_normalize():
    env = VecNormalize(make_vec_env(lambda: RandomEnv(OBSERVATIONS["vector"], make_model(SQL, False).action_space)))
    return use_graphs(SoftAC_v1("MlpPolicy", env, learning_starts=3, batch_size=4, buffer_size=50, device=DEVICE))


def with_hindsight():
    env = BitFlippingEnv(n_bits=2, continuous=True)
    settings = dict(buffer_size=50, learning_starts=3, batch_size=4, replay_buffer_class=HerReplayBuffer, device=DEVICE)
    return use_graphs(SQL("MultiInputPolicy", env, **settings))


def with_hook(of):
    model = make_model(SoftAC_v1, True)
    if of == "module":
        model.critic.q_networks.register_forward_hook(lambda *_: None)
    elif of == "parameter":
        next(model.critic.parameters()).register_hook(lambda gradient: gradient)
    else:
        model.policy.optimizer.register_step_post_hook(lambda *_: None)
    return model


UNSUPPORTED = {
    "gSDE": lambda: make_model(SoftAC_v1, True, use_sde=True),
    "the replay buffer is a ReplayBuffer": lambda: make_model(SQL, True, replay_buffer_class=ReplayBuffer),
    "the replay buffer is a HerReplayBuffer": with_hindsight,
    "features extractor": lambda: make_model(
        SQL, True, policy_kwargs=dict(net_arch=[4], features_extractor_class=OwnExtractor)
    ),
    "optimizer": lambda: make_model(DiscreteSAC, True, policy_kwargs=dict(net_arch=[4], optimizer_class=th.optim.RMSprop)),
    "optimizer is not": lambda: make_model(
        DiscreteSAC, True, policy_kwargs=dict(net_arch=[4], optimizer_kwargs=dict(fused=False))
    ),
    "batch normalisation": with_normalised_critic,
    "VecNormalize": with_vec_normalize,
    "hooks run": lambda: with_hook("module"),
    "hooks run on": lambda: with_hook("parameter"),
    "hooks run on the host": lambda: with_hook("optimizer"),
    "too large for the memory": lambda: use_graphs(make_model(SQL, False), CountingCapturer(memory=1_000)),
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_unsupported(reason):
    model = UNSUPPORTED[reason]()
    with pytest.warns(UserWarning) as warned:
        model.learn(8)
    assert [REASON in str(warning.message) and reason in str(warning.message) for warning in warned] == [True]
    assert model._n_updates == 5 and capturer_of(model).captures == 0


def test_cuda_graphs_on_a_cpu():
    model = make_model(SoftAC_v1, False, cuda_graphs=True, device="cpu")
    with pytest.warns(UserWarning, match=REASON + "the networks are on the device 'cpu'") as warned:
        model.learn(8)
    assert len(warned) == 1
    assert_same_models(model, make_model(SoftAC_v1, False, device="cpu").learn(8), rtol=0, atol=0)


def test_by_default_there_are_no_graphs():
    assert engine_of(make_model(SoftAC_v1, False)) is None


class FailingCapturer(CountingCapturer):
    """What happens where an update waits for the device."""

    def capture(self, function):
        self.captures += 1
        raise RuntimeError("no capture today")


def test_failed_capture():
    plain, graphed = make_model(SoftAC_v1, False), use_graphs(make_model(SoftAC_v1, False), FailingCapturer())
    for model in (plain, graphed):
        model._flush_logs = lambda: None
    learn(plain, 10)
    with pytest.warns(UserWarning, match="no capture today") as warned:
        learn(graphed, 10)
    assert len(warned) == 1 and capturer_of(graphed).captures == 1
    assert_same_models(plain, graphed, rtol=0, atol=0)
    logs, logs_of_graphs = plain._step_log.read(), graphed._step_log.read()
    assert logs[:2] == logs_of_graphs[:2]
    np.testing.assert_array_equal(logs[2], logs_of_graphs[2])


@pytest.mark.parametrize("gradient_steps", [1, 3])
def test_update_that_waits_for_the_device(monkeypatch, gradient_steps):
    """It is noticed in the midst of a capture, also of several steps."""
    plain, graphed = both(SoftAC_v1, gradient_steps=gradient_steps)
    for model in (plain, graphed):
        update = model._update
        monkeypatch.setattr(model, "_update", lambda batch, update=update: (update(batch), batch.rewards.sum().item())[0])
    learn(plain, 12)
    with pytest.warns(UserWarning, match="cannot be captured") as warned:
        learn(graphed, 12)
    assert len(warned) == 1 and capturer_of(graphed).captures == 1
    assert_same_models(plain, graphed, rtol=0, atol=0)


def train_until_error(model, call, gradient_steps):
    """Have the ``call``-th update from now on raise after it was done, not before."""
    update, calls = model._update, []

    def failing_update(batch):
        calls.append(0)
        if len(calls) == call:
            raise RuntimeError("out of order")
        return update(batch)

    model._update = failing_update
    with pytest.raises(RuntimeError, match="out of order"):
        while True:
            model.set_random_seed(len(calls))
            model.train(gradient_steps, 4)


@pytest.mark.parametrize(("call", "gradient_steps"), [(2, 1), (2, 4), (WARM_UP, 1)])
def test_errors_while_warming_up_are_not_hidden(call, gradient_steps):
    """If the second call fails, one step was done, and it is one step that counts."""
    plain, graphed = both(SoftAC_v1, learning_starts=10)
    for model in (plain, graphed):
        learn(model, 10)
        before = copy_of_parameters(model)
        assert model._n_updates == 0
        train_until_error(model, call, gradient_steps)
        assert model._n_updates == call - 1
        with pytest.raises(AssertionError):
            assert_same(before, parameters_of(model))
    if gradient_steps == 1:
        assert_same_models(plain, graphed, rtol=0, atol=0)
    del model._update
    # The logs of calls that were completed are written at once, but on a GPU
    assert len(graphed._step_log) == (call - 1 if gradient_steps > 1 or DEVICE == "cuda" else 0)
    for _ in range(WARM_UP + 1):
        graphed.train(1, 4)
    assert graphed._n_updates == call + WARM_UP and capturer_of(graphed).captures == 1


def test_errors_of_a_replay_are_not_hidden():
    model = make_model(SoftAC_v1, True)
    learn(model, 10)
    (launcher,) = engine_of(model)._launchers.values()
    result, _ = launcher._graph

    def replay():
        raise RuntimeError("device-side assert")

    launcher._graph = result, replay
    n_updates, n_logs = model._n_updates, len(model._step_log)
    with pytest.raises(RuntimeError, match="device-side assert"):
        model.train(1, 4)
    assert model._n_updates == n_updates and len(model._step_log) == n_logs


def test_algorithms_of_users():
    class Own(SoftAC_v1):
        pass

    model = make_model(Own, True)
    with pytest.warns(UserWarning, match="not from this package") as warned:
        learn(model, 8)
    assert len(warned) == 1 and capturer_of(model).captures == 0 and model._n_updates == 5


def test_the_copy_is_given_back(recwarn):
    model = make_model(SoftAC_v1, True)
    learn(model, 10)
    assert isinstance(engine_of(model)._copy, DeviceCopy)
    model.policy.optimizer.register_step_post_hook(lambda *_: None)
    model.train(1, 4)
    assert engine_of(model)._copy is None
    assert len(recwarn) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train(1, 4)
