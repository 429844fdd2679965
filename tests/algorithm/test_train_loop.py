"""Training that would learn nothing is an error, and so is a network that nobody trains; what is legal stays legal."""

import copy

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_softac import SoftAC_v1
from sb3_softac.algorithm.network_checks import require_gradients
from tests.engines.native.helpers import make_model
from tests.toys import ALGORITHMS, algorithms, parameters_of, state_of, train, with_actor

TRAINED = [(each, name) for each in ALGORITHMS for name in dict.fromkeys(each.trains.values()) if name not in each.targets]
"""Networks without a target."""


@pytest.fixture(autouse=True)
def both_ways(monkeypatch):
    """In C, if there is a library for this machine; models with ``fast=False`` take the plain way."""
    monkeypatch.setenv("SB3_SOFTAC_FAST", "1")


MODES = {"no_grad": th.no_grad, "inference_mode": th.inference_mode}


def moved(model, before):
    return {name for name, value in model.policy.state_dict().items() if not th.equal(value, before[name])}


@pytest.mark.parametrize("mode", MODES)
@algorithms
def test_without_gradients(algorithm, mode):
    model = make_model(algorithm)
    train(model)
    before, n_updates, num_timesteps = parameters_of(model), model._n_updates, model.num_timesteps
    for act in (lambda: train(model), lambda: model.learn(10)):
        with MODES[mode](), pytest.raises(RuntimeError, match="gradients are switched off"):
            act()
    assert not moved(model, before) and (model._n_updates, model.num_timesteps) == (n_updates, num_timesteps)
    model.learning_starts = 0
    model.learn(2)
    assert moved(model, before)


@algorithms
def test_everything_frozen(algorithm):
    """One frozen network is a wish; all of them are a mistake."""
    model = make_model(algorithm)
    train(model)
    model.policy.requires_grad_(False)
    for act in (lambda: train(model), lambda: model.learn(10)):
        with pytest.raises(ValueError, match="all parameters of the policy are frozen"):
            act()
    model.critic.requires_grad_(True)
    before = parameters_of(model)
    train(model)
    assert moved(model, before)


def test_gradients_within_inference_mode():
    """PyTorch enables them there in name only."""
    with th.inference_mode(), th.enable_grad(), pytest.raises(RuntimeError, match="gradients are switched off"):
        require_gradients()


def test_a_callback_that_switches_them_off():
    class Off(BaseCallback):
        def _on_step(self):
            th.set_grad_enabled(False)
            return True

    model = make_model(SoftAC_v1)
    model.learning_starts = 0
    try:
        with pytest.raises(RuntimeError, match="gradients are switched off"):
            model.learn(5, callback=Off())
    finally:
        th.set_grad_enabled(True)


@algorithms
def test_acting_and_loading_need_no_gradients(algorithm, tmp_path):
    model = make_model(algorithm)
    model.save(tmp_path / "model")
    for mode in (th.no_grad, th.inference_mode):
        with mode():
            loaded = algorithm.load(tmp_path / "model", device="cpu")
            loaded.predict(model.observation_space.sample())
            model.predict(model.observation_space.sample())
    train(model)


def test_networks_that_were_created_in_inference_mode():
    model = make_model(SoftAC_v1)
    with th.inference_mode():
        model.actor.mu = nn.Linear(6, 2)
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    with pytest.raises(ValueError, match=r"mu.weight.* were created under th.inference_mode"):
        train(model)


@algorithms
def test_before_the_first_learn(algorithm, tmp_path):
    """With a replay buffer that was filled by others."""
    filled = make_model(algorithm)
    filled.save(tmp_path / "model")
    model = algorithm.load(tmp_path / "model", env=filled.get_env())
    model.replay_buffer = filled.replay_buffer
    model.train(2, 8)
    assert model._n_updates == filled._n_updates + 2 and model.logger.name_to_value["train/n_updates"] == model._n_updates
    model.learn(2)


def test_a_loss_without_a_gradient(monkeypatch):
    """A method of the user's under no_grad, for example."""
    model = make_model(SoftAC_v1)
    monkeypatch.setattr(model.policy.value_net, "forward", th.no_grad()(model.policy.value_net.forward))
    with pytest.raises(RuntimeError, match=r"value_loss does not depend on .*policy.value_net"):
        train(model)


# ---- networks that were replaced


def assert_refused(model, name):
    before = state_of(model)
    for act in (lambda: train(model), lambda: model.learn(10)):
        with pytest.raises(ValueError, match=rf"policy.{name} would not be trained.*make_optimizer\(model.lr_schedule\)"):
            act()
    assert all(th.equal(value, state_of(model)[key]) for key, value in before.items())


def replace(model, name):
    setattr(model.policy, name, copy.deepcopy(getattr(model.policy, name)))


def assert_trained(model, names):
    """Every parameter of these networks moves."""
    before = parameters_of(model)
    train(model, 3)
    wanted = {f"{name}.{key}" for name in names for key, _ in getattr(model.policy, name).named_parameters()}
    assert wanted <= moved(model, before)


@pytest.mark.parametrize(("algorithm", "name"), TRAINED)
@pytest.mark.parametrize("gradient_steps", [1, 3])
def test_replaced_networks(algorithm, name, gradient_steps):
    model = make_model(algorithm)
    train(model, gradient_steps)
    replace(model, name)
    assert_refused(model, name)
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    assert_trained(model, [name])


@pytest.mark.parametrize(("algorithm", "name"), TRAINED)
def test_replaced_layers(algorithm, name):
    model = make_model(algorithm)
    train(model)
    network = getattr(model.policy, name)
    layer = next(module for module in network.modules() if not list(module.children()) and list(module.parameters()))
    path = next(path for path, module in network.named_modules() if module is layer)
    network.set_submodule(path, copy.deepcopy(layer))
    with pytest.raises(ValueError, match=rf"policy.{name} would not be trained.*{path}.weight"):
        train(model)
    model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
    assert_trained(model, [name])


def policy_of_another_optimizer(model):
    optimizer = model.policy.optimizer
    model.policy = copy.deepcopy(model.policy)
    model.policy.optimizer = optimizer


@algorithms
def test_a_policy_of_another_optimizer(algorithm):
    model = make_model(algorithm)
    policy_of_another_optimizer(model)
    assert_refused(model, "(actor|critic)")


@algorithms
def test_a_parameter_left_out(algorithm):
    """Frozen it may be left out."""
    model = make_model(algorithm)
    parameter = model.policy.optimizer.param_groups[0]["params"].pop()
    with pytest.raises(ValueError, match="would not be trained"):
        train(model)
    parameter.requires_grad_(False)
    train(model)


@algorithms
def test_a_replaced_temperature(algorithm):
    model = make_model(algorithm, ent_coef="auto")
    train(model)
    model.temperature.log_ent_coef = th.full((1,), -1.0, requires_grad=True)
    with pytest.raises(ValueError, match=r"temperature would not be trained.*model.ent_coef"):
        train(model)
    model.ent_coef = "auto_0.3"
    train(model)


@pytest.mark.parametrize("fast", [True, False])
@with_actor
def test_a_layer_that_was_added(algorithm, fast):
    """C does not read what no forward pass of the package's uses, but nobody adds a layer in order not to train it."""
    model = make_model(algorithm, fast=fast)
    train(model)
    model.actor.added = nn.Linear(2, 2)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"policy.actor would not be trained.*'added.weight', 'added.bias'"):
            train(model)


def test_a_temperature_of_another_size():
    model = make_model(SoftAC_v1, ent_coef="auto")
    train(model)
    model.log_ent_coef.data = th.zeros(3)
    with pytest.raises(ValueError, match=r"^log_ent_coef cannot be trained, because .* set model.ent_coef"):
        train(model)


@with_actor
def test_frozen_networks_may_be_replaced(algorithm):
    model = make_model(algorithm)
    replace(model, "actor")
    model.policy.actor.requires_grad_(False)
    before = parameters_of(model)
    train(model, 2)
    assert moved(model, before) and not any(name.startswith("actor.") for name in moved(model, before))


@with_actor
def test_a_frozen_part_of_a_network(algorithm):
    """Its loss may depend on no trained parameter at all."""
    model = make_model(algorithm)
    train(model)
    for parameter in list(model.policy.critic.parameters())[:-1]:
        parameter.requires_grad_(False)
    train(model, 2)
    list(model.policy.critic.parameters())[-1].requires_grad_(False)
    train(model, 2)


def test_hand_made_optimizers():
    model = make_model(SoftAC_v1)
    networks = (model.actor, model.critic, model.value_net)
    groups = [dict(params=list(network.parameters())) for network in networks]
    model.policy.optimizer = th.optim.SGD(groups, lr=1e-2)
    assert_trained(model, ["actor", "critic", "value_net"])
    model.policy.optimizer = th.optim.AdamW(model.policy.parameters(), lr=1e-2)
    assert_trained(model, ["actor", "critic", "value_net"])


MISFITS = {
    "moment": lambda p, state: state.update(exp_avg=state["exp_avg"][:1].clone()),
    "moment of another order": lambda p, state: state.update(exp_avg_sq=state["exp_avg_sq"].t().contiguous().t()),
    "step": lambda p, state: state.update(step=th.zeros(0)),
    "smaller parameter": lambda p, state: setattr(p, "data", p.data[:4].clone()),
    "larger parameter": lambda p, state: setattr(p, "data", p.data.repeat(2, 1)),
    "expanded": lambda p, state: setattr(p, "data", p.data[:1].expand_as(p)),
    "strided": lambda p, state: setattr(p, "data", p.data.repeat(1, 2)[:, ::2]),
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", MISFITS)
def test_what_a_fused_optimizer_would_overrun(name, fast):
    """PyTorch itself writes over foreign memory then."""
    model = make_model(SoftAC_v1, fast=fast)
    train(model)
    parameter = model.actor.latent_pi[0].weight
    MISFITS[name](parameter, model.policy.optimizer.state[parameter])
    with pytest.raises(ValueError, match=r"^actor.latent_pi.0.weight cannot be trained, because .*make_optimizer"):
        train(model)


# ---- compiled networks, batch normalisation


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    "path", ["critic", "value_net", "value_net_target", "actor", "value_net.v_network", "critic.q_networks"]
)
def test_compiled_networks(path):
    """One of them alone, too; the backend leaves the numbers as they are."""
    models = [make_model(SoftAC_v1, fast=False) for _ in range(2)]
    owner, _, name = f"policy.{path}".rpartition(".")
    part = models[0]
    for each in owner.split("."):
        part = getattr(part, each)
    setattr(part, name, th.compile(getattr(part, name), backend="eager"))
    for model in models:
        train(model, 2)
    for mine, theirs in zip(*(model.policy.parameters() for model in models), strict=True):
        assert th.equal(mine, theirs)


def test_statistics_without_parameters():
    """They are followed too: a target without them is refused, not a KeyError."""
    model = make_model(SoftAC_v1, fast=False)
    model.value_net.v_network.insert(1, nn.BatchNorm1d(8, affine=False))
    with pytest.raises(ValueError, match=r"value_net_target follows value_net.*running_mean"):
        train(model)


@algorithms
def test_the_state_of_an_optimizer_that_is_not_fused(algorithm):
    """It makes the optimizer one that is not fused, after fused steps too."""
    optimizers = [dict(optimizer_kwargs=dict(fused=fused)) for fused in (True, False)]
    models = [make_model(algorithm, fast=False, policy_kwargs=optimizer) for optimizer in optimizers]
    for model in models:
        train(model, 2)
    models[0].set_parameters(models[1].get_parameters())
    before = parameters_of(models[0])
    train(models[0], 2)
    assert moved(models[0], before)


class WithHistory(SoftAC_v1):
    def train(self, *args, **kwargs):
        vars(self).setdefault("history", [0.5] * 5_000).append(0.5)
        super().train(*args, **kwargs)


def test_a_long_history_does_not_slow_the_training():
    model = make_model(WithHistory)
    model.learn(20)
    assert len(model.history) > 5_000 and len([*model.watch._parts()]) < 5_000
