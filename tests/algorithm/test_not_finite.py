"""
A step that is not finite changes nothing and is named in the same call of train(): in C, and on the plain way of all
algorithms.
"""

import itertools

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_softac import SQL, SoftAC_v1
from sb3_softac.engines.native import native_engine
from sb3_softac.engines.native.library import load
from sb3_softac.engines.native.native_engine import SWITCH
from tests.engines.native.helpers import ALGORITHMS, WAYS, assert_close, both, is_fast, make_model, ways
from tests.toys import algorithms, state_of, train


@pytest.fixture(autouse=True)
def fast_way(request, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(native_engine, "WORK_PER_THREAD", 1)
    parameters = getattr(request.node, "callspec", None)
    if parameters is None or parameters.params.get("fast", True):
        library, reason = load()
        if library is None:
            pytest.skip(f"{reason} (python setup.py build_ext --inplace)")


def model_of(algorithm, fast, **kwargs):
    model = make_model(algorithm, fast, **({} if algorithm is SQL else dict(ent_coef="auto")), **kwargs)
    train(model, 2)
    assert not fast or is_fast(model)
    return model


def spoil(model, at, rows=slice(None), **change):
    """The `at`-th batch from now on is changed; others stay as they are."""
    sample, numbers = model.replay_buffer.sample, itertools.count()

    def changed(*args, **kwargs):
        samples = sample(*args, **kwargs)
        if next(numbers) != at:
            return samples
        parts = {name: getattr(samples, name).float().clone() for name in change}
        for name, value in change.items():
            parts[name][rows, 0] = value
        return samples._replace(**parts)

    model.replay_buffer.sample = changed


def first_weights(model):
    """Weights of all networks that the first entry of an observation meets."""
    return [next(network.parameters())[:, 0] for network in model.policy.children() if list(network.parameters())]


def assert_unchanged(model, before):
    after = state_of(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        th.testing.assert_close(after[name], value, rtol=0.0, atol=0.0, equal_nan=True, msg=name)


def assert_fails(model, steps, good, term, cause=None):
    """The step after the good ones fails with its cause, and is not counted."""
    n_updates = model._n_updates
    because = "" if cause is None else rf", because of what is not finite: ({cause})(, ({cause}))*"
    message = rf"^({term}) is (nan|-?inf) at gradient step {n_updates + good + 1}{because}\. .*VecCheckNan"
    with pytest.raises(ValueError, match=message):
        train(model, steps)
    assert model._n_updates == n_updates + good


SPOILT = {
    "reward": (dict(rewards=np.nan), "critic_loss", "rewards of the batch"),
    "infinite reward": (dict(rewards=-np.inf), "critic_loss", "rewards of the batch"),
    "observation": (dict(observations=np.nan), "actor_loss|critic_loss", "obs of the batch"),
    "next observation": (dict(next_observations=np.nan), "critic_loss", "next_obs of the batch"),
}


@ways
@pytest.mark.parametrize("what", SPOILT)
def test_batches(algorithm, fast, what):
    change, term, cause = SPOILT[what]
    model, twin = model_of(algorithm, fast), model_of(algorithm, fast)
    spoil(model, 2, rows=-1, **change)
    train(twin, 2)
    assert_fails(model, 5, 2, term, cause)
    assert_unchanged(model, state_of(twin))
    train(model)  # and training goes on
    assert model._n_updates == twin._n_updates + 1


GRADIENTS = {
    "actor_loss": lambda m: m.log_ent_coef.data.fill_(12.0),
    "critic_loss": lambda m: list(m.critic.parameters())[-1].data.fill_(1e5),
    "value_loss": lambda m: list(m.value_net.parameters())[-1].data.fill_(1e5),
}
OF_LOSSES = [(a, f, name) for a, f in WAYS for name in GRADIENTS if name in a.trains and (a, name) != (SQL, "actor_loss")]


@pytest.mark.parametrize(("algorithm", "fast", "name"), OF_LOSSES)
@pytest.mark.parametrize(("steps", "good", "n_threads"), [(1, 0, 2), (3, 1, 1)])
def test_gradients_that_overflow(algorithm, fast, name, steps, good, n_threads):
    """Losses are finite: the networks do not look at the entry that the gradients are multiplied by."""
    model, twin = (
        model_of(algorithm, fast, learning_rate=0.0, **({} if algorithm is SQL else dict(tau=0.0))) for _ in range(2)
    )
    for one in (model, twin):
        for weights in first_weights(one):
            weights.data.zero_()
        GRADIENTS[name](one)
    spoil(model, good, rows=-1, observations=5e18, dones=1.0)  # of the last thread, without an entropy in its target
    th.set_num_threads(n_threads)
    try:
        assert_fails(model, steps, good, f"gradient of {name}")
        if good:
            train(twin, good)
    finally:
        th.set_num_threads(1)
    assert_unchanged(model, state_of(twin))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_that_overflow_in_their_sum(algorithm, fast):
    """Each of two threads has a gradient whose square is finite, and that of their sum is not."""
    model = model_of(algorithm, fast, policy_kwargs=dict(net_arch=[]), batch_size=2, gamma=0.0)
    for weights in (*model.critic.parameters(), *first_weights(model)):
        weights.data.zero_()
    before = state_of(model)
    spoil(model, 0, observations=1.2e19, rewards=1.5, actions=0.0)
    th.set_num_threads(2)
    try:
        assert_fails(model, 1, 0, "gradient of critic_loss")
    finally:
        th.set_num_threads(1)
    assert_unchanged(model, before)


PARAMETERS = {
    "actor": "actor_loss|critic_loss",
    "critic": "actor_loss|critic_loss",
    "critic_target": "critic_loss",
    "value_net": "value_loss",
    "value_net_target": "critic_loss",
}
OF_NETWORKS = [(a, f, name) for a, f in WAYS for name in PARAMETERS if hasattr(a, name) and a is not SQL]


@pytest.mark.parametrize(("algorithm", "fast", "name"), OF_NETWORKS)
def test_parameters(algorithm, fast, name):
    model = model_of(algorithm, fast)
    list(getattr(model.policy, name).parameters())[-1].data.flatten()[-1] = np.nan
    before = state_of(model)
    assert_fails(model, 3, 0, PARAMETERS[name], rf"{name}\.\S+")
    assert_unchanged(model, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("algorithm", "fast"), [(a, f) for a, f in WAYS if a is not SQL and "actor_loss" in a.trains])
def test_temperature(algorithm, fast, value):
    model = model_of(algorithm, fast)
    model.log_ent_coef.data.fill_(value)
    before = state_of(model)
    assert_fails(model, 3, 0, "actor_loss|critic_loss|value_loss|ent_coef_loss")
    assert_unchanged(model, before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_units_that_are_switched_off(algorithm):
    """An infinite bias in front of a ReLU is finite behind it: training goes on."""
    fast, plain = both(algorithm)
    for model in (fast, plain):
        bias = next(weight for name, weight in model.actor.named_parameters() if name.endswith("0.bias")).data
        bias[0] = -np.inf
        train(model, 4)
        assert bias[0] == -np.inf
        bias[0] = 0.0
    assert is_fast(fast)
    assert_close(fast, plain, 1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@algorithms
def test_rewards_are_not_stored(algorithm, value):
    """What is not finite would stay in the replay buffer."""
    model = model_of(algorithm, False)
    size, step = model.replay_buffer.size(), model.env.step_wait

    def step_wait():
        obs, rewards, dones, infos = step()
        return obs, np.full_like(rewards, value), dones, infos

    model.env.step_wait = step_wait
    with pytest.raises(ValueError, match=rf"returned the rewards \[{value}\] at step {model.num_timesteps + 1}\."):
        model.learn(5, reset_num_timesteps=False)
    assert model.replay_buffer.size() == size


def test_dictionaries_are_looked_into():
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (3,))})
    model = model_of(SoftAC_v1, False, obs=space, policy="MultiInputPolicy")
    sample = model.replay_buffer.sample

    def changed(*args, **kwargs):
        samples = sample(*args, **kwargs)
        samples.observations["b"][0, 1] = np.inf
        return samples

    model.replay_buffer.sample = changed
    assert_fails(model, 1, 0, "actor_loss|gradient of actor_loss", r"obs of the batch \(b\)")
