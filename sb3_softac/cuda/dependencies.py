"""Everything that a gradient step depends on besides its batch, found by traversing the model."""

import types
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any

import torch as th

if TYPE_CHECKING:
    from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm

PLAIN = (bool, int, float, str, types.NoneType, th.dtype, th.device)
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
    "_step_runner",
    "_saturation_watch",
    "_target_entropy_state",
}


def dependencies(model: "SoftOffPolicyAlgorithm") -> dict[str, Hashable]:
    """
    :param model: A model of the package.
    :return: The present state of its attributes by name: numbers, strings and containers of them by value; tensors, including
        optimizer states, by their memory address and whether they are trained; modules and other objects of the package by
        identity and attributes. Learning rates are left out, because graphs read them before each launch.
    """
    found: dict[str, Hashable] = {}
    seen: set[int] = set()
    for name, value in vars(model).items():
        if name not in OF_THE_LOOP:
            found.update(_walk(name, value, seen))
    return found


def _walk(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Hashable]]:
    """Names and values of all comparable parts that can be reached from a value."""
    if isinstance(value, PLAIN):
        yield name, (type(value), value)
    elif isinstance(value, CONSTANT):
        yield name, value
    elif isinstance(value, th.Tensor):
        yield name, (value.data_ptr(), value.shape, value.dtype, value.requires_grad)
    elif isinstance(value, dict | list | tuple):
        elements = value.items() if isinstance(value, dict) else enumerate(value)
        yield name, (type(value), len(value))
        for key, element in elements:
            yield from _walk(f"{name}[{key}]", element, seen)
    elif id(value) not in seen and (inner := _attributes(value)) is not None:
        seen.add(id(value))
        yield name, id(value)
        yield from _walk(name, inner, seen)


def _attributes(value: Any) -> dict[str, Any] | None:
    """:return: The attributes of an object; None for unknown objects such as environments and loggers, which no step reads."""
    if isinstance(value, th.optim.Optimizer):
        groups = [{option: given for option, given in group.items() if option != "lr"} for group in value.param_groups]
        return {"param_groups": groups, "state": list(value.state.values())}
    if isinstance(value, th.nn.Module):
        return vars(value)
    if type(value).__module__.startswith("sb3_softac."):
        # Plain numbers under names with an underscore are what an object counts for itself
        return {n: inner for n, inner in vars(value).items() if not (n.startswith("_") and isinstance(inner, int | float))}
    return None
