"""What C does not know takes the plain way, with its reason; a change of the model is noticed, and training goes on."""

import copy
import gc
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1
from sb3_softac.engines.native import library, native_engine
from sb3_softac.engines.native.native_engine import SWITCH
from sb3_softac.engines.native.unsupported import Unsupported
from sb3_softac.entropy.temperature import AutoTemperature
from sb3_softac.nets.critics import ValueNet
from sb3_softac.nets.stacked import StackedLinear, StackedMLP
from sb3_softac.replay.batch import make_batch
from tests.engines.native.helpers import ALGORITHMS, assert_close, both, is_fast, make_model, plan_of
from tests.toys import OBSERVATIONS, state_of, train

SAYS = "Gradient steps run in "
SQUARE = dict(net_arch=[8, 8])


class OwnExtractor(FlattenExtractor):
    pass


class OwnUpdate(SoftAC_v1):
    def _update(self, batch):
        return super()._update(batch)


class OwnTargets(SoftAC_v1):
    targets = {}


class OwnPolicy(SoftAC_v1.policy_aliases["MlpPolicy"]):
    pass


class OwnTemperature(AutoTemperature):
    pass


class OwnReLU(nn.ReLU):
    pass


class OwnValueNet(ValueNet):
    pass


class OwnMLP(StackedMLP):
    def forward(self, x):
        return 2.0 * super().forward(x)


class OwnStackedLinear(StackedLinear):
    def forward(self, x):
        return 2.0 * super().forward(x)


class OwnLinear(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


def net(**kwargs):
    return dict(policy_kwargs=dict(net_arch=[8, 6], **kwargs))


# ---- before the first step: arguments, and what they take the plain way for

ARGUMENTS = {
    "own extractor": (SoftAC_v1, net(features_extractor_class=OwnExtractor), "OwnExtractor is not supported"),
    "own update": (OwnUpdate, {}, "OwnUpdate overrides the gradient steps"),
    "own targets": (OwnTargets, {}, "OwnTargets overrides the gradient steps"),
    "own policy": (SoftAC_v1, dict(policy=OwnPolicy), "OwnPolicy is not supported in C"),
    "pictures": (
        DiscreteSAC,
        dict(policy="CnnPolicy", obs=OBSERVATIONS["image"], **net(features_extractor_kwargs=dict(features_dim=4))),
        "CnnPolicy is not supported in C",
    ),
    "dictionaries": (
        SoftAC_v1,
        dict(policy="MultiInputPolicy", obs=OBSERVATIONS["dict"]),
        "Dict observations are not supported in C",
    ),
    "mixture": (SoftAC_v1, net(distribution="mixture"), "actor is a SquashedMixtureActor"),
    "flow": (SoftAC_v1, net(distribution="flow"), "actor is a SquashedFlowActor"),
    "deterministic": (
        SoftAC_v1,
        dict(ent_coef=0.0, action_noise=NormalActionNoise(np.zeros(2), np.ones(2)), **net(distribution="deterministic")),
        "actor is a SquashedDeterministicActor",
    ),
    "likelihood ratio": (SoftAC_v1, dict(reparameterize=False), "the likelihood-ratio gradient is not supported in C"),
    "gSDE": (SoftAC_v1, dict(use_sde=True), "gSDE"),
    "stable_kwargs": (DiscreteSAC, dict(stable_kwargs=dict(q_clip=0.5)), "stable_kwargs"),
    "SGD": (SoftAC_v1, net(optimizer_class=th.optim.SGD), "SGD is not supported"),
    "maximize": (SoftAC_v1, net(optimizer_kwargs=dict(maximize=True)), "maximize"),
    "LeakyReLU": (DiscreteSAC, net(activation_fn=nn.LeakyReLU), "other than ReLU and Tanh"),
    "own ReLU": (SoftAC_v1, net(activation_fn=OwnReLU), "other than ReLU and Tanh"),
    "SQL": (SQL, dict(kernel_particles=4, value_particles=4), "SQL is not supported"),
    "DiscreteSQL": (DiscreteSQL, dict(), "DiscreteSQL is not supported"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_c_does_not_know(name, capsys):
    algorithm, arguments, reason = ARGUMENTS[name]
    model = make_model(algorithm, verbose=1, **arguments)
    for _ in range(3):
        train(model)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(SAYS)]
    assert len(said) == 1 and said[0].startswith(f"{SAYS}PyTorch: ") and reason in said[0]
    assert not is_fast(model) and model._n_updates == 4


def test_what_is_said_of_the_fast_way(capsys):
    model = make_model(SoftAC_v1, verbose=1)
    assert SAYS not in capsys.readouterr().out  # the optimizer has no state yet: nothing to tell
    for _ in range(3):
        train(model)
    assert capsys.readouterr().out.count(f"{SAYS}C, threads: 1\n") == 1
    quiet = make_model(SoftAC_v1)
    train(quiet)
    assert SAYS not in capsys.readouterr().out


# ---- while training: what is done to both models, after which both go on alike; and why the plain way is taken, if it is


def hook(module):
    module.register_forward_hook(lambda *_: None)


def halve_gradient(parameter):
    parameter.grad.mul_(0.5)


def first_layer(model):
    return model.actor.latent_pi[0] if isinstance(model, SoftAC_v1) else model.actor.logits[0]


def with_own_method(part, name):
    own = getattr(part, name)
    setattr(part, name, lambda *args, **kwargs: own(*args, **kwargs))


def put_in_place_of(parent, name, kind):
    """A module of another class with the same parameters."""
    module = kind.__new__(kind)
    vars(module).update(vars(getattr(parent, name)))
    setattr(parent, name, module)


def freeze(model):
    next(model.critic.parameters()).requires_grad_(False)


def share(model):
    model.critic.q_networks.layers[0].weight.data = model.critic_target.q_networks.layers[0].weight.data


def same_target(model):
    model.policy.value_net_target = model.policy.value_net


def spectral_norm(model):
    parametrizations.spectral_norm(first_layer(model))


def prune_both(model):
    for network in (model.critic, model.critic_target):
        prune.l1_unstructured(network.q_networks.layers[0], "weight", amount=0.3)


def another_optimizer(model, kind=th.optim.SGD):
    model.policy.optimizer = kind(model.policy.optimizer.param_groups[0]["params"], lr=1e-3)


def optimizer_with_a_hook(model):
    """It goes on with the state of the one before."""
    before = model.policy.optimizer
    model.policy.optimizer = after = th.optim.Adam(before.param_groups[0]["params"], fused=True)
    after.state, after.param_groups = before.state, before.param_groups
    after.register_step_post_hook(lambda *_: None)


def own_temperature(model):
    model.temperature.__class__ = OwnTemperature
    model.temperature = copy.deepcopy(model.temperature)
    model.temperature.optimizer = th.optim.Adam(model.temperature.parameters(), lr=1e-3)


OBSTACLES = {
    "hook of a module": (SoftAC_v1, lambda m: hook(m.actor.latent_pi[0]), "hooks"),
    "hook before a module": (SoftAC_v1, lambda m: m.critic.register_forward_pre_hook(lambda *_: None), "hooks"),
    "hook of a gradient": (SoftAC_v1, lambda m: m.actor.mu.register_full_backward_hook(lambda *_: None), "hooks"),
    "hook of a tensor": (DiscreteSAC, lambda m: next(m.critic.parameters()).register_hook(lambda g: 2.0 * g), "hooks"),
    "hook of an optimizer": (SoftAC_v1, lambda m: m.policy.optimizer.register_step_pre_hook(lambda *_: None), "hooks"),
    "hook after an optimizer": (SoftAC_v1, lambda m: m.policy.optimizer.register_step_post_hook(lambda *_: None), "hooks"),
    "post-accumulate hook": (
        SoftAC_v1,
        lambda m: next(m.actor.parameters()).register_post_accumulate_grad_hook(halve_gradient),
        "hooks",
    ),
    "method of the model": (SoftAC_v1, lambda m: with_own_method(m, "_update"), "overrides the gradient steps"),
    "_minimize": (DiscreteSAC, lambda m: with_own_method(m, "_minimize"), "overrides the gradient steps"),
    "_aggregate": (DiscreteSAC, lambda m: with_own_method(m, "_aggregate"), "overrides the gradient steps"),
    "forward": (SoftAC_v1, lambda m: with_own_method(m.critic.q_networks, "forward"), "replaced methods"),
    "q_values": (DiscreteSAC, lambda m: with_own_method(m.critic, "q_values"), "replaced methods"),
    "step of an optimizer": (SoftAC_v1, lambda m: with_own_method(m.policy.optimizer, "step"), "replaced methods"),
    "losses of the temperature": (SoftAC_v1, lambda m: with_own_method(m.temperature, "losses"), "replaced methods"),
    "own MLP": (SoftAC_v1, lambda m: put_in_place_of(m.critic, "q_networks", OwnMLP), "not a StackedMLP"),
    "own stacked layer": (
        DiscreteSAC,
        lambda m: put_in_place_of(m.critic.q_networks.layers, "0", OwnStackedLinear),
        "not a StackedLinear",
    ),
    "own layer": (SoftAC_v1, lambda m: put_in_place_of(m.actor, "mu", OwnLinear), "not an nn.Linear"),
    "own extractor": (SoftAC_v1, lambda m: put_in_place_of(m.critic, "features_extractor", OwnExtractor), "OwnExtractor"),
    "own network": (SoftAC_v1, lambda m: put_in_place_of(m.policy, "value_net", OwnValueNet), "value_net is a OwnValueNet"),
    "frozen": (SoftAC_v1, freeze, "frozen"),
    "shared memory": (DiscreteSAC, share, "share memory"),
    "a network that is its own target": (SoftAC_v1, same_target, "share memory"),
    "spectral norm": (DiscreteSAC, spectral_norm, "a layer is not an nn.Linear"),
    "pruned": (DiscreteSAC, prune_both, ""),
    "another optimizer": (SoftAC_v1, another_optimizer, "SGD is not supported"),
    "another optimizer with a hook": (SoftAC_v1, optimizer_with_a_hook, "hooks"),
    "maximize": (SoftAC_v1, lambda m: m.policy.optimizer.param_groups[0].update(maximize=True), "maximize"),
    "own temperature": (SoftAC_v1, own_temperature, "OwnTemperature is not supported"),
    "stable_kwargs": (DiscreteSAC, lambda m: m.stable_kwargs.update(q_clip=0.3), "stable_kwargs"),
    "LeakyReLU": (SoftAC_v1, lambda m: setattr(m.critic.q_networks, "activation", nn.LeakyReLU()), "other than ReLU"),
    "two activations": (SoftAC_v1, lambda m: m.actor.latent_pi.__setitem__(1, nn.Tanh()), "other than ReLU"),
    "batch normalisation": (SoftAC_v1, lambda m: m.actor.latent_pi.insert(0, nn.BatchNorm1d(3, affine=False)), ""),
    "no bias": (SoftAC_v1, lambda m: setattr(m.actor.latent_pi[0], "bias", None), ""),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_obstacles_that_appear_while_training(name, capsys):
    algorithm, change, reason = OBSTACLES[name]
    fast, plain = both(algorithm, ent_coef="auto")
    for model in (fast, plain):
        train(model)
    assert is_fast(fast)
    fast.verbose = 1
    for model in (fast, plain):
        change(model)
        for _ in range(2):
            train(model)
    assert not is_fast(fast)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(SAYS)]
    assert len(said) <= 1 and reason in "".join(said)
    assert said or not reason
    assert_close(fast, plain, 1e-5)


GLOBAL_HOOKS = {
    "modules": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "modules before": lambda: nn.modules.module.register_module_forward_pre_hook(lambda *_: None),
    "optimizers": lambda: register_optimizer_step_post_hook(lambda *_: None),
}


@pytest.mark.parametrize("name", GLOBAL_HOOKS)
def test_hooks_of_everything(name):
    model = make_model(SoftAC_v1)
    train(model)
    handle = GLOBAL_HOOKS[name]()
    try:
        train(model)
        assert not is_fast(model)
    finally:
        handle.remove()
    train(model)
    assert is_fast(model)


def trained_elsewhere(model):
    other = make_model(type(model), seed=5, ent_coef="auto", policy_kwargs=SQUARE)
    train(other, 3)
    return other


def replace_layer(model):
    th.manual_seed(7)
    layers = model.value_net.v_network
    del layers[0]
    gc.collect()  # its identity may be taken by the next object
    layers.insert(0, nn.Linear(3, 8))
    model.value_net_target.load_state_dict(model.value_net.state_dict())
    another_optimizer_of_all(model, model.policy.optimizer.param_groups[0])


def another_optimizer_of_all(model, group):
    networks = [model.actor, model.critic, *([model.value_net] if isinstance(model, SoftAC_v1) else [])]
    parameters = [parameter for network in networks for parameter in network.parameters()]
    model.policy.optimizer = th.optim.Adam(parameters, lr=group["lr"], betas=(0.7, 0.9), fused=True)


def optimizer_of_everything(model):
    """Also of the target, which no loss trains."""
    model.policy.optimizer = th.optim.Adam(model.policy.parameters(), lr=1e-3, weight_decay=0.1)


def replace_network(model):
    model.policy.actor = copy.deepcopy(trained_elsewhere(model).actor)
    another_optimizer_of_all(model, model.policy.optimizer.param_groups[0])


def replace_policy(model):
    model.policy = trained_elsewhere(model).policy


def edit_in_place(model):
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(0.9)
        for state in model.policy.optimizer.state.values():
            state["exp_avg"].mul_(0.5)
            state["step"].add_(3)
        model.log_ent_coef.add_(0.1)


def assign_data(model):
    for parameter in model.policy.parameters():
        parameter.data = parameter.data * 0.9


def assign_state(model):
    for state in model.policy.optimizer.state.values():
        state["exp_avg"] = state["exp_avg"] * 0.5


def load_optimizer(model):
    model.policy.optimizer.load_state_dict(trained_elsewhere(model).policy.optimizer.state_dict())


def new_groups(model):
    model.policy.optimizer.param_groups = [{**group, "betas": (0.5, 0.8)} for group in model.policy.optimizer.param_groups]


def change_group(**options):
    return lambda model: model.policy.optimizer.param_groups[0].update(options)


def change_lr(model):
    model.lr_schedule = lambda progress: 5e-3


def two_groups(model):
    """The rate of only one of them; train() sets all rates of an optimizer to that of the schedule."""
    group = model.policy.optimizer.param_groups.pop()
    for part in (group["params"][:3], group["params"][3:]):
        model.policy.optimizer.param_groups.append({**group, "params": part})
    model.policy.optimizer.param_groups[0]["weight_decay"] = 0.2


def change(**attributes):
    return lambda model: vars(model).update(attributes)


def set_attribute(name, value):
    return lambda model: setattr(model, name, value)


CHANGES = {
    "load_state_dict": lambda m: m.policy.load_state_dict(trained_elsewhere(m).policy.state_dict()),
    "set_parameters": lambda m: m.set_parameters(trained_elsewhere(m).get_parameters()),
    "in place": edit_in_place,
    "data": assign_data,
    "state of an optimizer": assign_state,
    "network": replace_network,
    "policy": replace_policy,
    "optimizer": lambda m: another_optimizer_of_all(m, dict(lr=2e-3)),
    "optimizer of everything": optimizer_of_everything,
    "make_optimizer": lambda m: setattr(m.policy, "optimizer", m.policy.make_optimizer(m.lr_schedule)),
    "optimizer.load_state_dict": load_optimizer,
    "optimizer.state.clear()": lambda m: m.policy.optimizer.state.clear(),
    "learning rate": change_lr,
    "betas": change_group(betas=(0.5, 0.6)),
    "eps": change_group(eps=1e-2),
    "weight decay": change_group(weight_decay=0.3),
    "decoupled": change_group(weight_decay=0.3, decoupled_weight_decay=True),
    "groups": new_groups,
    "two groups": two_groups,
    "tau": change(tau=0.5),
    "target_update_interval": change(target_update_interval=2),
    "gamma": change(gamma=0.3),
    "batch_size": change(batch_size=5),
    "fixed temperature": set_attribute("ent_coef", 0.4),
    "scheduled temperature": set_attribute("ent_coef", "lin_0.3"),
    "learned temperature": set_attribute("ent_coef", "auto_0.3"),
    "target entropy": set_attribute("target_entropy", 0.3),
    "number of threads": lambda m: th.set_num_threads(2),
}
OF_ONE = {
    "layer": (SoftAC_v1, replace_layer),
    "actor_q": (SoftAC_v1, change(actor_q="first")),
    "q_aggregation": (DiscreteSAC, change(q_aggregation="mean")),
    "critic_ent_coef_scale": (DiscreteSAC, change(critic_ent_coef_scale=0.2)),
}
ALL_CHANGES = [(kind, name, what) for name, what in CHANGES.items() for kind in ALGORITHMS]
ALL_CHANGES += [(kind, name, what) for name, (kind, what) in OF_ONE.items()]


@pytest.mark.parametrize(("algorithm", "name", "what"), ALL_CHANGES, ids=[f"{a.__name__}-{b}" for a, b, _ in ALL_CHANGES])
def test_changes_are_never_stale(algorithm, name, what):
    fast, plain = both(algorithm, ent_coef="auto", policy_kwargs=SQUARE)
    try:
        for model in (fast, plain):
            train(model)
            assert is_fast(model) if model is fast else True
            before = state_of(model)
            what(model)
            train(model, 3)
            train(model, 3)
            assert not all(th.equal(*pair) for pair in zip(before.values(), state_of(model).values(), strict=False))
    finally:
        th.set_num_threads(1)
    assert is_fast(fast)
    assert_close(fast, plain, 2e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_temperatures_later(algorithm):
    """Each of which could have been given the identity of the one before."""
    fast, plain = both(algorithm, ent_coef=0.2)
    for model in (fast, plain):
        train(model)
        for value in ("auto_0.3", 0.7, "auto_0.5"):
            model.ent_coef = value
            gc.collect()
            train(model, 2)
    assert_close(fast, plain, 1e-5)


def test_double_precision():
    fast, plain = both(SoftAC_v1)
    train(fast), train(plain)
    for model in (fast, plain):
        model.policy.to(th.float64)
        with pytest.raises(RuntimeError, match="dtype"):  # observations are of single precision
            train(model)
        model.policy.to(th.float32)
        for state in model.policy.optimizer.state.values():
            state.update({key: value.to(th.float32) for key, value in state.items()})
        train(model, 2)
    assert is_fast(fast)
    assert_close(fast, plain, 1e-5)


def test_autocast():
    """It changes what PyTorch computes, also around a model that C has trained before."""
    fast, plain = both(SoftAC_v1)
    for model in (fast, plain):
        train(model, 2)
        with th.autocast("cpu", dtype=th.bfloat16):
            train(model, 2)
        assert not is_fast(model)
        train(model)
    assert is_fast(fast)
    assert_close(fast, plain, 1e-5)


def hook_after_gradient(model, calls):
    parameter = next(model.critic.parameters())
    return parameter.register_post_accumulate_grad_hook(lambda _: calls.append(0))


def hook_of_gradient(model, calls):
    return next(model.critic.parameters()).register_hook(lambda _: calls.append(0))


@pytest.mark.parametrize("register", [hook_after_gradient, hook_of_gradient])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hooks_of_tensors_that_come_and_go(algorithm, register):
    model, calls = make_model(algorithm), []
    train(model, 2)
    handle = register(model, calls)
    train(model, 2)
    assert len(calls) == 2 and not is_fast(model)
    handle.remove()
    train(model)
    assert len(calls) == 2 and is_fast(model)


def test_switch(monkeypatch, capsys):
    model = make_model(SoftAC_v1, verbose=1)
    for value in ("1", "0", "1"):
        monkeypatch.setenv(SWITCH, value)
        for _ in range(2):
            train(model)
        assert is_fast(model) == (value == "1")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(SAYS)]
    assert said == [f"{SAYS}C, threads: 1", f"{SAYS}PyTorch: {SWITCH}=0", f"{SAYS}C, threads: 1"]


def test_without_a_library(monkeypatch, capsys):
    model = make_model(SoftAC_v1, verbose=1)
    monkeypatch.setattr(library, "BUILDS", {})
    monkeypatch.setattr(library.platform, "machine", lambda: "riscv64")
    library.load.cache_clear()
    try:
        train(model, 2)
    finally:
        library.load.cache_clear()
    assert f"{SAYS}PyTorch: the processor has neither AVX2 nor NEON\n" in capsys.readouterr().out
    assert not is_fast(model)


def test_defaults_of_pytorch_do_not_matter(monkeypatch):
    fast, plain = both(SoftAC_v1, ent_coef="auto")
    th.set_default_dtype(th.float64)
    try:
        train(fast), train(plain)
    finally:
        th.set_default_dtype(th.float32)
    assert is_fast(fast)
    assert_close(fast, plain, 1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_a_copy_trains_by_itself(algorithm, copied):
    model = make_model(algorithm)
    train(model)
    twin = copied(model)
    before = state_of(model)
    train(twin, 3)
    assert is_fast(twin) and all(th.equal(*pair) for pair in zip(before.values(), state_of(model).values(), strict=True))
    train(model, 3)
    assert_close(model, twin, 0.0)


# ---- batches that do not fit


def change_batches(model, change, every=2):
    sample, count = model.replay_buffer.sample, iter(range(10**6))

    def changed(*args, **kwargs):
        samples = sample(*args, **kwargs)
        return change(samples) if next(count) % every == every - 1 else samples

    model.replay_buffer.sample = changed


def without_the_last(samples):
    def shorter(part):
        return (
            {name: each[:-1] for name, each in part.items()} if isinstance(part, dict) else part if part is None else part[:-1]
        )

    return type(samples)(*map(shorter, samples))


def with_a_row_without_options(samples):
    masks = samples.extras["action_masks"].clone()
    masks[2, :3] = False
    return samples._replace(extras={**samples.extras, "action_masks": masks})


BATCHES = {
    "shorter": (SoftAC_v1, without_the_last, {}),
    "shorter, discrete": (DiscreteSAC, without_the_last, dict(masked=True)),
    "nothing is allowed": (DiscreteSAC, with_a_row_without_options, dict(masked=True, ent_coef=0.2)),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_that_do_not_fit(name):
    """They take the plain step, between steps in C."""
    algorithm, change, arguments = BATCHES[name]
    fast, plain = both(algorithm, **arguments)
    for model in (fast, plain):
        change_batches(model, change)
    for number in (1, 1, 4):
        train(fast, number), train(plain, number)
        assert is_fast(fast)
        assert_close(fast, plain, 1e-5)


def of_type(**types):
    return lambda samples: samples._replace(**{name: getattr(samples, name).to(kind) for name, kind in types.items()})


DTYPES = {
    "bool dones": of_type(dones=th.bool),
    "whole dones": of_type(dones=th.uint8),
    "whole rewards": of_type(rewards=th.int64),
    "double rewards": of_type(rewards=th.float64),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", DTYPES)
def test_numbers_of_other_types(algorithm, name):
    """Whole rewards do not make discounts whole."""
    fast, plain = both(algorithm)
    for model in (fast, plain):
        change_batches(model, DTYPES[name], every=1)
        train(model, 4)
    assert is_fast(fast)
    assert_close(fast, plain, 1e-5)


WRONG_BATCHES = {
    "actions in double precision": (SoftAC_v1, lambda s: s._replace(actions=s.actions.double())),
    "wider actions": (SoftAC_v1, lambda s: s._replace(actions=s.actions.repeat(1, 2))),
    "wider observations": (SoftAC_v1, lambda s: s._replace(observations=s.observations.repeat(1, 2))),
    "narrower next observations": (DiscreteSAC, lambda s: s._replace(next_observations=s.next_observations[:, 1:])),
    "wider masks": (DiscreteSAC, lambda s: s._replace(extras={k: m.repeat(1, 2) for k, m in s.extras.items()})),
    "masks of whole numbers": (DiscreteSAC, lambda s: s._replace(extras={k: m.to(th.uint8) for k, m in s.extras.items()})),
}


@pytest.mark.parametrize("name", WRONG_BATCHES)
def test_batches_that_both_ways_refuse(name):
    algorithm, change = WRONG_BATCHES[name]
    messages = []
    for model in both(algorithm, masked=algorithm is DiscreteSAC):
        change_batches(model, change, every=1)
        with pytest.raises(RuntimeError) as raised:
            train(model)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_gradients_are_left(algorithm):
    """C does not fill parameter.grad, so it leaves none of an earlier step either."""
    model = make_model(algorithm, ent_coef="auto")
    parameters = [*model.policy.parameters(), model.log_ent_coef]
    assert any(parameter.grad is not None for parameter in parameters)  # of the first step, in PyTorch
    train(model)
    assert is_fast(model) and all(parameter.grad is None for parameter in parameters)
    change_batches(model, without_the_last, every=3)
    train(model, 3)
    assert any(parameter.grad is not None for parameter in parameters)  # the last step was one in PyTorch
    train(model, 4)
    assert is_fast(model) and all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("action", [-1, 3])
def test_actions_out_of_range(action):
    fast, plain = both(DiscreteSAC)
    train(fast), train(plain)
    before = state_of(fast)
    for model in (fast, plain):
        change_batches(model, lambda samples: samples._replace(actions=th.full_like(samples.actions, action)), every=1)
        with pytest.raises(RuntimeError, match="out of bounds"):
            train(model)
    assert all(th.equal(*pair) for pair in zip(before.values(), state_of(fast).values(), strict=True))


def test_shapes_that_c_reads_are_checked():
    model = make_model(DiscreteSAC, masked=True, actions=spaces.MultiDiscrete([2, 3]))
    train(model)
    plan = plan_of(model)
    batch_size = model.batch_size
    for change in (
        dict(observations=th.zeros(batch_size, 4)),
        dict(next_observations=th.zeros(batch_size - 1, 3)),
        dict(actions=th.zeros(batch_size, 1)),
        dict(rewards=th.zeros(batch_size + 1, 1)),
    ):
        samples = model.replay_buffer.sample(batch_size)._replace(**change)
        with pytest.raises(Unsupported, match="not have the shape"):
            plan._fill(make_batch(samples, model.gamma))


@pytest.mark.parametrize(("batch_size", "work_per_thread", "expected"), [(8, 10**9, 1), (8, 1, 3), (2, 1, 2), (8, None, 2)])
def test_threads_that_have_enough_to_do(monkeypatch, batch_size, work_per_thread, expected):
    model = make_model(SoftAC_v1, verbose=1)
    parameters = sum(parameter.numel() for parameter in model.policy.parameters())
    # Work for two threads and a half where none is given
    monkeypatch.setattr(native_engine, "WORK_PER_THREAD", work_per_thread or batch_size * parameters * 2 // 5)
    th.set_num_threads(3)
    try:
        train(model, batch_size=batch_size)
        assert plan_of(model).n_threads == expected
        plan = plan_of(model)
        train(model, batch_size=batch_size)
        assert plan_of(model) is plan
        th.set_num_threads(1)
        train(model, batch_size=batch_size)
        assert plan_of(model).n_threads == 1
    finally:
        th.set_num_threads(1)
