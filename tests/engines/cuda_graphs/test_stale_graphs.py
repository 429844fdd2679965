"""Nothing is done by a graph that is out of date: what a graph depends on is found out, not listed."""

import copy
from pkgutil import resolve_name

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm.changes import ModelWatch
from sb3_softac.engines.cuda_graphs.launcher import WARM_UP
from sb3_softac.entropy.temperature import FixedTemperature
from tests.engines.cuda_graphs.helpers import (
    ALGORITHMS,
    assert_same,
    assert_same_models,
    both,
    capturer_of,
    copy_of_parameters,
    engine_of,
    learn,
    make_model,
    parameters_of,
)


class TwoModes(nn.Module):
    """Another function in training mode than in evaluation mode, without random numbers."""

    def forward(self, x):
        return x.tanh() if self.training else x.sigmoid()


def train_before_and_after(change, algorithm=SoftAC_v1, models=None, **kwargs):
    """:return: Captures since the change, and a model that went on without it."""
    models = models or both(algorithm, ent_coef="auto", **kwargs)
    for model in models:
        learn(model, 10)
    unchanged = copy.deepcopy(parameters_of(models[0]))
    for model in models:
        captures = capturer_of(model).captures if engine_of(model) else 0
        change(model)
        model.set_random_seed(2)
        for _ in range(5):
            model.train(1, 4)
    assert captures == 1
    assert_same_models(*models)
    with pytest.raises(AssertionError):
        assert_same(unchanged, parameters_of(models[0]))
    return models[1]


def assert_captured_again(model):
    assert capturer_of(model).captures == 2 and capturer_of(model).replays >= 4
    assert not engine_of(model).given_up


def change_parameters(model):
    params = model.get_parameters()
    params["policy"] = {name: value * 0.5 for name, value in params["policy"].items()}
    model.set_parameters(params)


def move_temperature(model):
    # as load() does it: other memory for the same tensor
    model.log_ent_coef.data = th.full_like(model.log_ent_coef, -3.0)


def replace_optimizer(model):
    parameters = model.policy.optimizer.param_groups[0]["params"]
    model.policy.optimizer = th.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, fused=True)


def replace_network(model):
    critic = copy.deepcopy(model.critic)
    with th.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(0.5)
    model.policy.critic = critic
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)


CHANGES = {
    "gamma": lambda model: setattr(model, "gamma", 0.3),
    "tau": lambda model: setattr(model, "tau", 0.9),
    "target_update_interval": lambda model: setattr(model, "target_update_interval", 4),
    "learning rate": lambda model: setattr(model, "lr_schedule", lambda _: 0.05),
    "betas": lambda model: model.policy.optimizer.param_groups[0].update(betas=(0.5, 0.6)),
    "set_parameters": change_parameters,
    "moved temperature": move_temperature,
    "replaced temperature": lambda model: setattr(model, "temperature", FixedTemperature(3.0, model.device)),
    "bounded temperature": lambda model: setattr(model.temperature, "_log_bounds", (-1.0, -0.5)),
    "slope of an activation": lambda model: setattr(model.critic.q_networks, "activation", nn.LeakyReLU(0.5)),
    "optimizer state": lambda model: model.policy.optimizer.load_state_dict(model.policy.optimizer.state_dict()),
    "replaced optimizer": replace_optimizer,
    "frozen": lambda model: next(model.critic.parameters()).requires_grad_(False),
    "replaced network": replace_network,
    "replaced activation": lambda model: setattr(model.critic.q_networks, "activation", nn.Tanh()),
    "target_entropy": lambda model: setattr(model, "target_entropy", 0.1),
    "patched method": lambda model: setattr(model, "_minimize", lambda losses: type(model)._minimize(model, losses)),
}

# Read from tensors that stay, or changed in them
IN_TENSORS = ("target_update_interval", "learning rate", "set_parameters", "optimizer state")


OF_OTHERS = [(each, name) for each in ALGORITHMS if each is not SoftAC_v1 for name in ("gamma", "set_parameters", "frozen")]


@pytest.mark.parametrize(("algorithm", "name"), [*((SoftAC_v1, name) for name in CHANGES), *OF_OTHERS])
def test_changes_take_effect(algorithm, name):
    model = train_before_and_after(CHANGES[name], algorithm)
    if name not in IN_TENSORS:
        assert_captured_again(model)
    else:
        assert capturer_of(model).captures == 1


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
def test_options_take_effect(algorithm, name, value):
    assert_captured_again(train_before_and_after(lambda model: setattr(model, name, value), algorithm))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_parameters_that_were_frozen_are_trained_again(algorithm):
    models = both(algorithm)
    for model in models:
        next(model.critic.parameters()).requires_grad_(False)
    unfreeze = lambda model: model.critic.requires_grad_(True)  # noqa: E731
    assert_captured_again(train_before_and_after(unfreeze, models=models))


def test_a_dictionary_that_is_changed_in_place():
    models = both(DiscreteSAC, stable_kwargs={"q_clip": 0.5})
    change = lambda model: model.stable_kwargs.update(q_clip=0.01)  # noqa: E731
    assert_captured_again(train_before_and_after(change, models=models))


def test_training_mode_takes_effect():
    models = both(SoftAC_v1, policy_kwargs=dict(net_arch=[4], activation_fn=TwoModes))

    def stay_in_evaluation_mode(model):
        model.policy.set_training_mode = lambda mode: None
        model.policy.actor.eval()

    assert_captured_again(train_before_and_after(stay_in_evaluation_mode, models=models))


def test_an_optimizer_that_is_replaced_right_before_the_capture():
    """Its state would be made, with zeros in it, by every replay."""
    models = both(SoftAC_v1)
    for model in models:
        learn(model, 3 + WARM_UP)
        assert model._n_updates == WARM_UP
        replace_optimizer(model)
        model.set_random_seed(2)
        for _ in range(5):
            model.train(1, 4)
    assert_same_models(*models)


def test_a_replaced_buffer_takes_effect():
    models = both(SoftAC_v1)
    for model in models:
        learn(model, 10)
        model.replay_buffer = copy.deepcopy(model.replay_buffer)
        model.replay_buffer.actions[:] = 0.5
        model.set_random_seed(2)
        for _ in range(5):
            model.train(1, 4)
    assert_same_models(*models)


def test_a_buffer_that_is_filled_again_takes_effect():
    models = both(SoftAC_v1)
    for model in models:
        learn(model, 10)
        stored = model.replay_buffer
        columns = [np.array(part[:10]) for part in (stored.observations, stored.actions, stored.rewards, stored.dones)]
        stored.reset()
        obs, *columns = columns
        stored.extend(obs * 0.5, obs * 0.25, *columns, [[{}]] * 10)
        model.set_random_seed(2)
        for _ in range(5):
            model.train(1, 4)
    assert_same_models(*models)


def double(function):
    return lambda *args, **kwargs: 2.0 * function(*args, **kwargs)


FUNCTIONS = {
    "of the algorithm's module": (SoftAC_v1, "sb3_softac.softac_v1.softac_v1.q_loss"),
    "of an equation's module": (SQL, "sb3_softac.equations.stein.median_bandwidth"),
    "of a network": (DiscreteSAC, "sb3_softac.nets.stacked.StackedMLP.forward"),
    "of PyTorch": (SoftAC_v1, "torch.nn.Linear.forward"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_replaced_functions_take_effect(name, monkeypatch):
    algorithm, path = FUNCTIONS[name]
    plain, graphed = both(algorithm)
    for model in (plain, graphed):
        learn(model, 10)
    monkeypatch.setattr(path, double(resolve_name(path)))
    for model in (plain, graphed):
        model.set_random_seed(2)
        for _ in range(6):
            model.train(1, 4)
    assert_same_models(plain, graphed)
    assert_captured_again(graphed)


@pytest.mark.parametrize("what", ["module", "optimizer"])
def test_hooks_of_everything(what):
    """Graphs do not call them."""
    calls, model = [], make_model(SoftAC_v1, True)
    register = {"module": register_module_forward_hook, "optimizer": register_optimizer_step_post_hook}[what]
    learn(model, 10)
    handle = register(lambda *_: calls.append(0))
    try:
        with pytest.warns(UserWarning, match="hooks run on the host"):
            model.train(1, 4)
    finally:
        handle.remove()
    assert calls


def test_a_second_name_of_a_network_is_looked_at():
    """Also of one that was described under its first name."""
    model = make_model(SoftAC_v1, False)
    model.second_name = model.policy.critic
    watch = ModelWatch(model)
    assert not watch.look()
    model.second_name = model.policy.value_net
    assert watch.look() and watch.changes == ["second_name"]


class WithAScale(SoftAC_v1):
    """Its step may read what a callback sets."""


def test_what_a_callback_keeps_on_the_model_is_no_change():
    models = [make_model(algorithm, False) for algorithm in (SoftAC_v1, WithAScale)]
    for number in range(2):
        for model in models:
            model.n_falls, model.falls = number, list(range(number))
        assert [model.watch.look() for model in models] == [False, True]
    models[0]._update = lambda batch: {}
    assert models[0].watch.look() and models[0].watch.changes == ["_update", "falls", "n_falls"]
    models[0].n_falls = 7
    assert models[0].watch.look()


def test_without_a_change_there_is_one_graph():
    model = make_model(SoftAC_v1, True, ent_coef="auto")
    learn(model, 10)
    before = copy_of_parameters(model)
    for _ in range(10):
        model.train(1, 4)
    assert capturer_of(model).captures == 1
    with pytest.raises(AssertionError):
        assert_same(before, parameters_of(model))


def test_what_changes_again_and_again_ends_in_the_plain_way():
    plain, graphed = both(SoftAC_v1)

    def train(model):
        learn(model, 5)
        model.set_random_seed(2)
        for step in range(40):
            model.gamma = 0.9 + 0.001 * step
            model.train(1, 4)

    train(plain)
    with pytest.warns(UserWarning, match=r"gamma kept changing") as warned:
        train(graphed)
    assert len(warned) == 1
    assert_same_models(plain, graphed)
