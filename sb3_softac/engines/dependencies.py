"""Everything that a gradient step depends on besides its batch, found by traversing the model."""

import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch as th

from sb3_softac.engines.functions import functions_of

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

PLAIN = {bool, int, float, str, types.NoneType, th.dtype, th.device}
CONTAINERS = {dict, OrderedDict, list, set}
Description = dict[str, Any]
CONSTANT = (type, types.FunctionType, types.MethodType)
# What the training loop counts, keeps for itself, or hands to a graph in tensors. A name that is missing here leads to
# captures in vain, which are given up with a warning that names it; it never leads to a graph that is out of date.
OF_THE_LOOP = {
    "lr_schedule",
    "target_update_interval",
    "num_timesteps",
    "start_time",
    "replay_buffer",
    "_num_timesteps_at_start",
    "_total_timesteps",
    "_current_progress_remaining",
    "_episode_num",
    "_n_updates",
    "_step_log",
    "_watched_before",
    "_step_runner",
    "_saturation_watch",
    "_target_entropy_state",
}


def dependencies(model: "SoftOffPolicyAlgorithm") -> Description:
    """
    :param model: A model of the package.
    :return: The present state of its attributes by name, to be compared with ``==``: numbers, strings and containers of them
        by value; tensors, including optimizer states, by their memory address and whether they are trained; modules and other
        objects of the package by identity and attributes; functions by identity. Learning rates are left out, because
        graphs read them before each launch.
    """
    seen: set[int] = set()
    found = {name: _describe(value, seen) for name, value in vars(model).items() if name not in OF_THE_LOOP}
    return {**found, "a function of the step": functions_of(model).now()}


def _describe(value: Any, seen: set[int]) -> Any:
    """:return: What can be compared of a value: nested, since this runs before each launch and Python compares it quickly."""
    kind = type(value)
    if kind in PLAIN or isinstance(value, int | float | str):
        return kind, value
    if isinstance(value, CONSTANT):
        return value
    if isinstance(value, th.Tensor):
        return value.data_ptr(), value.shape, value.dtype, value.requires_grad
    if isinstance(value, dict):
        return {key: _describe(element, seen) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return {number: _describe(element, seen) for number, element in enumerate(value)}
    if id(value) in seen:
        return id(value)
    if (inner := _attributes(value)) is None:
        return None
    seen.add(id(value))
    return id(value), _describe(inner, seen)


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """
    :param before: A description.
    :param now: Another one.
    :param name: What they describe.
    :return: Names of the parts that differ.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            yield from differences(before.get(key), now.get(key), f"{name}[{key}]" if name else str(key))
    elif isinstance(before, tuple) and isinstance(now, tuple) and before[0] == now[0] and isinstance(before[-1], dict):
        yield from differences(before[-1], now[-1], name)
    elif before != now:
        yield name


def _attributes(value: Any) -> dict[str, Any] | None:
    """:return: The attributes of an object; None for unknown objects such as environments and loggers, which no step reads."""
    if isinstance(value, th.optim.Optimizer):
        groups = [{option: given for option, given in group.items() if option != "lr"} for group in value.param_groups]
        return {"param_groups": groups, "state": list(value.state.values())}
    if isinstance(value, th.nn.Module):
        return {name: inner for name, inner in vars(value).items() if type(inner) not in CONTAINERS or inner}
    if type(value).__module__.startswith("sb3_softac."):
        # Plain numbers under names with an underscore are what an object counts for itself
        return {n: inner for n, inner in vars(value).items() if not (n.startswith("_") and isinstance(inner, int | float))}
    return None
