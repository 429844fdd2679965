"""The networks are ordinary modules: what PyTorch can do with a module has its effect, for one row as for many."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch as th
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.nets.stacked import StackedLinear, StackedMLP
from tests import toys
from tests.toys import algorithms, flat

SIZES = (1, 3, 512)


def make_model(algorithm, **kwargs):
    return toys.make_model(algorithm, net_arch=(8, 8), policy_kwargs=dict(activation_fn=nn.Tanh, n_critics=3), **kwargs)


class Answer(nn.Module):
    """What a network says about observations, and about actions if it asks for some: one row each."""

    def __init__(self, network: nn.Module, ask: Callable[..., th.Tensor]):
        super().__init__()
        self.network, self.ask = network, ask

    def forward(self, *inputs: th.Tensor) -> th.Tensor:
        return self.ask(self.network, *inputs)


def ask_particles(critic, obs, actions):
    """Two actions per state."""
    pairs = th.stack([actions, 0.5 * actions], dim=1)
    return critic.q_particles(critic.features(obs), pairs).movedim(1, 0).flatten(1)


def ask_sampler(sampler, obs):
    return sampler.transform(sampler.features(obs), sampler.candidate_noise[:2]).flatten(1)


# By name: algorithm, network, how to ask it, and where its layers are
NETWORKS = {
    "softac actor": (SoftAC_v1, "actor", lambda net, obs: net(obs, deterministic=True), "latent_pi"),
    "softac critic": (SoftAC_v1, "critic", lambda net, obs, actions: th.cat(net(obs, actions), dim=1), "q_networks"),
    "softac value_net": (SoftAC_v1, "value_net", lambda net, obs: net(obs), "v_network"),
    "sql sampler": (SQL, "actor", ask_sampler, "network"),
    "sql critic": (SQL, "critic", ask_particles, "q_networks"),
    "discrete actor": (DiscreteSAC, "actor", lambda net, obs: net.log_probs(net.features(obs)), "logits"),
    "discrete critic": (DiscreteSAC, "critic", lambda net, obs: net(obs).movedim(1, 0).flatten(1), "q_networks"),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
policy_of = cache(lambda algorithm: make_model(algorithm).policy)


def make_answer(name: str) -> Answer:
    algorithm, network, ask, _ = NETWORKS[name]
    return Answer(copy.deepcopy(getattr(policy_of(algorithm), network)), ask).eval()


def make_inputs(name: str, size: int = max(SIZES)) -> list[th.Tensor]:
    algorithm, _, ask, _ = NETWORKS[name]
    policy, takes_actions = policy_of(algorithm), ask.__code__.co_argcount == 3
    return [th.randn(size, *policy.observation_space.shape)] + takes_actions * [2.0 * th.rand(size, 1) - 1.0]


def layers_of(mlp: nn.Sequential | StackedMLP) -> list[nn.Module]:
    return [module for module in mlp.modules() if isinstance(module, nn.Linear | StackedLinear)]


# What is done to a network, of which ``part`` names the MLP


def replace_layer(network, part):
    mlp = getattr(network, part)
    if isinstance(mlp, StackedMLP):
        mlp.layers[1] = StackedLinear(mlp.n_members, 8, 8)
    else:
        mlp[2] = nn.Linear(8, 8)


def remove_layer(network, part):
    mlp = getattr(network, part)
    if isinstance(mlp, StackedMLP):
        mlp.layers = mlp.layers[:1] + mlp.layers[2:]
    else:
        setattr(network, part, mlp[:2] + mlp[4:])


def hook_a_layer(network, part):
    layers_of(getattr(network, part))[1].register_forward_hook(lambda module, inputs, output: 2.0 * output)


def hook_before_all_layers(network, part):
    getattr(network, part).register_forward_pre_hook(lambda module, inputs: (inputs[0].square(),))


def prune_layers(network, part):
    for layer in layers_of(getattr(network, part)):
        prune.l1_unstructured(layer, "weight", 0.5)


def normalize_layers(network, part):
    for layer in layers_of(getattr(network, part)):
        spectral_norm(layer)


@every_network
@pytest.mark.parametrize(
    "change", [replace_layer, remove_layer, hook_a_layer, hook_before_all_layers, prune_layers, normalize_layers]
)
def test_a_change_acts_on_every_batch(name, change):
    answer, inputs = make_answer(name), make_inputs(name)
    before = answer(*inputs)
    change(answer.network, NETWORKS[name][3])
    answer.eval()  # spectral_norm goes on with its power iteration while training
    after = answer(*inputs)
    assert th.isclose(before, after, atol=1e-4).all(dim=1).float().mean() < 0.1  # a row may keep its value by accident
    for size in SIZES:
        few = [each[:size] for each in inputs]
        th.testing.assert_close(answer(*few), after[:size], rtol=0.0, atol=1e-5)
        with th.no_grad():
            th.testing.assert_close(answer(*few), after[:size].detach(), rtol=0.0, atol=1e-5)


@every_network
def test_first_and_second_derivatives(name):
    """Against finite differences in double precision, of inputs and parameters."""
    answer, inputs = make_answer(name).double(), [each.double().requires_grad_() for each in make_inputs(name, 2)]
    answer.network.extract_features = lambda obs, extractor: obs  # SB3's makes them single precision
    names = [key for key, _ in answer.named_parameters() if "log_std" not in key]  # which a deterministic action lacks
    parameters = [answer.get_parameter(key).detach().requires_grad_() for key in names]

    def ask(*values):
        return functional_call(answer, dict(zip(names, values[len(inputs) :], strict=True)), values[: len(inputs)])

    assert th.autograd.gradcheck(ask, (*inputs, *parameters), fast_mode=True)
    assert th.autograd.gradgradcheck(ask, (*inputs, *parameters), fast_mode=True)


@every_network
def test_jacobians_row_by_row(name):
    answer, inputs = make_answer(name), make_inputs(name, 3)
    parameters = dict(answer.named_parameters())
    double = {key: 2.0 * value for key, value in parameters.items()}

    def ask_one(state, *row):
        return functional_call(answer, state, tuple(each.unsqueeze(0) for each in row)).squeeze(0)

    axes = (None, *[0] * len(inputs))
    rows = vmap(jacrev(ask_one, argnums=1), in_dims=axes)(parameters, *inputs)
    together = jacrev(lambda obs: answer(obs, *inputs[1:]).sum(dim=0))(inputs[0]).movedim(1, 0)
    assert rows.any()
    th.testing.assert_close(rows, together)
    th.testing.assert_close(vmap(ask_one, in_dims=axes)(parameters, *inputs), answer(*inputs))
    doubled = vmap(ask_one, in_dims=axes)(double, *inputs)
    assert not th.isclose(doubled, answer(*inputs)).all(dim=1).any()
    answer.load_state_dict({**answer.state_dict(), **double})
    th.testing.assert_close(doubled, answer(*inputs))


class Recipe(nn.Module):
    """SB3's recipe for files of a policy."""

    def __init__(self, actor):
        super().__init__()
        self.actor = actor

    def forward(self, observation):
        return self.actor(observation, deterministic=True)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("sql")])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of the function, not of the tracer's warnings
def test_traced_at_one_row(name):
    answer, inputs = make_answer(name), make_inputs(name)
    recipe = Recipe(answer.network).eval() if name.endswith("actor") else answer
    traced = th.jit.trace(recipe, tuple(each[:1] for each in inputs))
    for size in SIZES:
        few = [each[:size] for each in inputs]
        th.testing.assert_close(traced(*few), recipe(*few))


@every_network
def test_a_network_has_a_file_of_its_own(name, tmp_path):
    answer, inputs = make_answer(name), make_inputs(name, 5)
    answer.network.save(tmp_path / "network")
    loaded = type(answer.network).load(tmp_path / "network", device="cpu")
    assert th.equal(Answer(loaded, answer.ask)(*inputs), answer(*inputs))


@algorithms
def test_training_uses_a_changed_critic(algorithm):
    model, plain = make_model(algorithm, tau=0.5), make_model(algorithm, tau=0.5)
    hook_a_layer(model.critic, "q_networks")
    asked = []
    model.critic.q_networks.layers[1].register_forward_hook(lambda *_: asked.append(1))
    before = flat(model.critic)
    for each in (model, plain):
        each.set_random_seed(1)
        each.learn(14)
    assert model._n_updates == 4 <= len(asked) and not th.equal(flat(model.critic), before)
    learner = "actor" if hasattr(model, "actor") else "critic"
    assert not th.equal(flat(getattr(model, learner)), flat(getattr(plain, learner)))  # for it learned from other Q-values
