"""Models of which one part was changed so that it does not fit, and what both ways make of them; also a program."""

import copy
import sys
from pathlib import Path

import torch as th
from gymnasium import spaces
from torch import nn

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm.engine import StepLog
from sb3_softac.engines.native import library, native_engine, plan
from sb3_softac.nets.stacked import StackedMLP
from tests.engines.native.helpers import difference, is_fast, make_model
from tests.toys import state_of, train

ALGORITHMS = {"SoftAC_v1": SoftAC_v1, "DiscreteSAC": DiscreteSAC}
NETWORKS = {
    "SoftAC_v1": ("actor", "critic", "value_net", "value_net_target"),
    "DiscreteSAC": ("actor", "critic", "critic_target"),
}


def resized(dimension, by):
    def change(tensor):
        shape = list(tensor.shape)
        shape[dimension] = max(shape[dimension] + by, 0)
        return th.full(shape, 0.1, dtype=tensor.dtype)

    return change


# What becomes of a tensor
TENSORS = {
    "larger first": resized(0, 1),
    "smaller first": resized(0, -1),
    "larger last": resized(-1, 3),
    "smaller last": resized(-1, -1),
    "transposed": lambda x: x.transpose(0, -1).contiguous(),
    "strided": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "expanded": lambda x: x[:1].expand_as(x),
    "one number": lambda x: x.flatten()[:1].clone(),
    "a scalar": lambda x: x.flatten()[0].clone(),
    "one row": lambda x: x[:1].clone(),
    "one more dimension": lambda x: x[None].clone(),
    "ones": lambda x: x.flatten()[: x.shape[-1]].reshape(1, 1, -1).clone(),
    "nothing": lambda x: x[:0].clone(),
    "double": lambda x: x.double(),
    "half": lambda x: x.half(),
}


def change_tensor(name, key, change, in_place):
    def act(model):
        module, _, attribute = key.rpartition(".")
        module = getattr(model.policy, name).get_submodule(module)
        with th.no_grad():
            changed = change(getattr(module, attribute).detach())
        if in_place:
            getattr(module, attribute).data = changed
        else:
            setattr(module, attribute, nn.Parameter(changed))

    return act


def stack(model, n_members, sizes):
    inputs = 3 if isinstance(model, DiscreteSAC) else 5
    outputs = 5 if isinstance(model, DiscreteSAC) else 1
    return StackedMLP(n_members, inputs, outputs, list(sizes))


def sequence(sizes, inputs=3, outputs=1):
    layers = []
    for size in sizes:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def put(name, attribute, make):
    def act(model):
        th.manual_seed(3)
        setattr(getattr(model.policy, name), attribute, make(model))

    return act


def attribute_of(path, value):
    def act(model):
        owner, _, attribute = path.rpartition(".")
        part = model
        for each in owner.split("."):
            part = getattr(part, each)
        setattr(part, attribute, value)

    return act


def state_tensor(name, change, in_place):
    def act(model):
        state = list(model.policy.optimizer.state.values())[2]
        if in_place:
            state[name].data = change(state[name])
        else:
            state[name] = change(state[name])

    return act


ARCHITECTURES = {"deeper": (8, 6, 4), "shallower": (8,), "none": (), "wider": (8, 60), "narrower": (2, 6), "empty": (8, 0)}


def cases(algorithm):
    """Changes of a model: their names, what they do, and whether the optimizer is created again after them."""
    policy = make_model(ALGORITHMS[algorithm], **ARGUMENTS[algorithm]).policy
    for name in NETWORKS[algorithm]:
        yield from changed_tensors(name, getattr(policy, name))
        yield from other_layers(name)
        yield from other_attributes(name)
    yield from other_states()
    yield from other_actors(algorithm)


def changed_tensors(name, network):
    for key, _ in network.named_parameters():
        for what, change in TENSORS.items():
            yield f"{name}.{key} {what}", change_tensor(name, key, change, False), True
            yield f"{name}.{key} {what}, data", change_tensor(name, key, change, True), False


def other_layers(name):
    for what, sizes in ARCHITECTURES.items():
        if name.startswith("critic") and 0 not in sizes:
            yield f"{name} {what}", put(name, "q_networks", lambda model, sizes=sizes: stack(model, 2, sizes)), True
        elif name.startswith("value"):
            yield f"{name} {what}", put(name, "v_network", lambda model, sizes=sizes: sequence(sizes)), True
    for n in (0, 1, 3) if name.startswith("critic") else ():
        yield f"{name} of {n}", put(name, "q_networks", lambda model, n=n: stack(model, n, (8, 6))), True
        yield f"{name} says {n}", attribute_of(f"policy.{name}.q_networks.n_members", n), False


def other_attributes(name):
    yield f"{name} normalizes", attribute_of(f"policy.{name}.normalize_images", False), False
    yield f"{name} flattens", attribute_of(f"policy.{name}.features_extractor.flatten.start_dim", 0), False
    yield f"{name} reads another space", attribute_of(f"policy.{name}.observation_space", spaces.Box(0, 255, (3,))), False
    yield f"{name} has other features", attribute_of(f"policy.{name}.features_dim", 300), False


def other_states():
    for what, change in TENSORS.items():
        for in_place in (False, True):
            for name in ("exp_avg", "exp_avg_sq"):
                yield f"{name} {what}, {in_place}", state_tensor(name, change, in_place), False
            if what in ("a scalar", "one number", "double", "nothing"):
                as_one = lambda step, change=change: change(step.reshape(1))  # noqa: E731
                yield f"step {what}, {in_place}", state_tensor("step", as_one, in_place), False


def other_actors(algorithm):
    if algorithm == "SoftAC_v1":
        for n in (1, 3):
            yield f"mean of {n} actions", put("actor", "mu", lambda model, n=n: nn.Linear(6, n)), True
            yield f"actor of {n} actions", both_heads(n), True
        return
    for n in (1, 4, 6):
        yield f"actor of {n} options", put("actor", "logits", lambda model, n=n: sequence((8, 6), outputs=n)), True
    yield "other branches", attribute_of("policy.actor.branches.sizes", [3, 2]), False
    yield "other number of branches", attribute_of("policy.critic.n_branches", 1), False


def both_heads(n):
    def act(model):
        model.actor.mu, model.actor.log_std = nn.Linear(6, n), nn.Linear(6, n)

    return act


ARGUMENTS = {"SoftAC_v1": {}, "DiscreteSAC": dict(actions=spaces.MultiDiscrete([2, 3]), ent_coef=0.2)}


def outcome(model, original, change, again):
    """:return: The error, or everything that the steps have changed."""
    model.policy, model._n_updates = copy.deepcopy(original), 2
    model._finite.fill_(1.0)
    change(model)
    try:
        if again:
            model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)
        for _ in range(2):
            train(model)
    except Exception as error:
        model._step_log = StepLog()
        return f"{type(error).__name__}: {error}"
    return state_of(model)


def same(mine, theirs):
    if isinstance(mine, str) or isinstance(theirs, str):
        return isinstance(mine, str) and mine == theirs
    return mine.keys() == theirs.keys() and all(alike(mine[name], theirs[name]) for name in mine)


def alike(mine, theirs):
    return mine.shape == theirs.shape and (mine.numel() == 0 or difference(mine, theirs) <= 1e-5)


def differing(algorithm, every=1, first=0):
    """:return: The changes of which the two ways make something different; how many were tried, by outcome."""
    fast, plain = (make_model(ALGORITHMS[algorithm], way, **ARGUMENTS[algorithm]) for way in (True, False))
    train(fast), train(plain)
    original = copy.deepcopy(fast.policy)
    tried, wrong = {"in C": 0, "in PyTorch": 0, "error": 0}, {}
    for name, change, again in list(cases(algorithm))[first::every]:
        assert isinstance(outcome(fast, original, lambda model: None, False), dict) and is_fast(fast)
        mine, theirs = (outcome(model, original, change, again) for model in (fast, plain))
        tried["error" if isinstance(theirs, str) else "in C" if is_fast(fast) else "in PyTorch"] += 1
        if not same(mine, theirs):
            wrong[name] = [each if isinstance(each, str) else "trained" for each in (mine, theirs)]
    return wrong, tried


if __name__ == "__main__":
    loaded = library.open_library(Path(sys.argv[1]))
    native_engine.load = plan.load = lambda: (loaded, "")
    for algorithm in ALGORITHMS:
        wrong, tried = differing(algorithm)
        assert not wrong, wrong
        assert min(tried.values()) > 5, tried
        print(algorithm, tried)
    print("kinds done")
