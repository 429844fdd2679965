"""
Detects changes in anything that a gradient step depends on, apart from its batch.

Parameters, modules, options and functions may be replaced at any time. Whatever was derived from them (a plan for C, a CUDA
graph, a check that has passed) is then out of date. The detector looks before every round of gradient steps, so a look must
take only microseconds.
"""

import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter, is_, itemgetter
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch as th
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.optim import optimizer as global_optimizer_hooks

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

# --- Hooks

HOOKS_OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
HOOKS_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
HOOKS_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_HOOKS = (
    *(getattr(global_hooks, f"_global{name}") for name in HOOKS_OF_MODULES),
    global_optimizer_hooks._global_optimizer_pre_hooks,
    global_optimizer_hooks._global_optimizer_post_hooks,
)


def hooks_of(modules: Sequence[nn.Module], optimizers: Sequence[th.optim.Optimizer]) -> list[dict[Any, Any]]:
    """:return: All containers of hooks but those of tensors, empty or not."""
    hooks = [getattr(module, name) for module in modules for name in HOOKS_OF_MODULES]
    return [*hooks, *(getattr(each, name) for each in optimizers for name in HOOKS_OF_OPTIMIZERS), *GLOBAL_HOOKS]


def are_hooked(tensors: Sequence[th.Tensor]) -> bool:
    """:return: Whether one of them has a hook."""
    return any(tensor._backward_hooks or tensor._post_accumulate_grad_hooks for tensor in tensors)


# --- Functions: in a subclass, on a class (``StackedMLP.forward = ...``) or in a module (``...softac_v1.q_loss = ...``)

Owner = type | ModuleType
_AT_IMPORT: dict[tuple[Owner, str], object] = {}


def remember_functions() -> None:
    """Note all functions; called once, when the whole package has been imported."""
    for module in [each for name, each in sys.modules.items() if name.startswith(("sb3_softac.", "stable_baselines3."))]:
        _note(module)
        for value in vars(module).values():
            for kind in value.__mro__ if isinstance(value, type) else ():
                _note(kind)
    for value in vars(nn).values():
        if isinstance(value, type):
            _note(value)


def _note(owner: Owner) -> None:
    if isinstance(owner, type) and issubclass(owner, th.optim.Optimizer):
        return  # PyTorch itself replaces their methods when the first of them is created
    for name, value in vars(owner).items():
        _AT_IMPORT.setdefault((owner, name), value)


def at_import(owner: Owner, name: str) -> object:
    """:return: The attribute as it was at import; an optimizer's, as it was when first asked for."""
    for part in owner.__mro__ if isinstance(owner, type) else (owner,):
        if (part, name) in _AT_IMPORT:
            return _AT_IMPORT[part, name]
    return _AT_IMPORT.setdefault((owner, name), getattr(owner, name))


class Functions:
    """Functions by the class or module that they are attributes of; all of them can be read within a few microseconds."""

    def __init__(self, names: Mapping[Owner, Sequence[str]]):
        self._names = names
        self._read = [(attrgetter(*each), owner) for owner, each in names.items()]
        then = [tuple(at_import(owner, name) for name in each) for owner, each in names.items()]
        self._at_import = [each if len(each) > 1 else each[0] for each in then]  # what attrgetter returns

    def are_original(self) -> bool:
        """:return: Whether none of them has been replaced since import."""
        return self.now() == self._at_import

    def now(self) -> list[object]:
        """:return: The current functions."""
        return [read(owner) for read, owner in self._read]

    def replaced(self) -> str:
        """:return: The name of one that has been replaced since import; empty if there is none."""
        for owner, names in self._names.items():
            for name in names:
                if getattr(owner, name, None) is not at_import(owner, name):
                    return f"{owner.__name__}.{name}"
        return ""


@cache
def _functions_of(kinds: frozenset[type]) -> Functions:
    """:return: All functions of the package and of SB3 that objects of these classes may call in a gradient step."""
    owners: dict[Owner, list[str]] = {}
    for (owner, name), value in list(_AT_IMPORT.items()):
        if not isinstance(value, FunctionType | property) or name.startswith("__"):
            continue
        if isinstance(owner, ModuleType):
            of_all = owner.__name__.startswith(("sb3_softac.equations.", "sb3_softac.nets."))
            who: Iterable[Owner] = [owner] if of_all or owner.__name__ in {kind.__module__ for kind in kinds} else []
        elif owner.__module__.startswith(("sb3_softac.", "stable_baselines3.")) or name == "forward":
            who = [kind for kind in kinds if owner in kind.__mro__]
        else:
            who = []
        for each in who:
            owners.setdefault(each, []).append(name)
    return Functions({owner: sorted(set(names)) for owner, names in owners.items()})


# --- The whole model

# What the training loop counts or keeps for itself. A name that is missing here only costs time: the detector describes the
# model more often than necessary, and CUDA graphs are given up with a warning that names it. Nothing out of date is ever used.
STATE_OF_THE_LOOP = {
    *("lr_schedule", "target_update_interval", "num_timesteps", "start_time", "_num_timesteps_at_start", "_total_timesteps"),
    *("_current_progress_remaining", "_episode_num", "_n_updates", "_last_obs", "_last_original_obs", "_last_episode_starts"),
    *("replay_buffer", "watch", "engines", "gradient_norms", "_step_log", "_arguments_before", "_checked_version"),
    *("_announced", "_failed_batch", "_saturation_watch", "_target_entropy_state", "_last_log_pi", "_masks"),
}
# Attributes of modules that are not compared here: hooks, which are compared separately, and the mode, which flips in every
# round (an engine to which it matters compares it itself)
NOT_COMPARED = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}
# Containers with more items, such as a history that a subclass keeps, are compared by their length alone: a look must be quick
LONG = 1_000
PLAIN = {bool, int, float, str, types.NoneType, th.dtype, th.device}
CONSTANT = (type, types.FunctionType, types.MethodType)
Description = dict[str, Any]


class ModelWatch:
    """
    Notices changes of a model.

    Two stages: first, the identities and memory addresses of all parts are compared; only if one differs is everything
    described again and compared by value, because a number may have been replaced by an equal one.

    :param model: Model.
    """

    def __init__(self, model: "SoftOffPolicyAlgorithm"):
        self.model = model
        self.version = 0
        """Counts the changes that were noticed."""
        self.changes: list[str] = []
        """Names of what had changed when a change was last noticed."""
        self._known = set(vars(model))
        self._describe_model()

    def __getstate__(self) -> dict[str, Any]:
        # In a copy of the model everything has another address, so its first look must find a change
        kept = ("model", "version", "changes", "_known")
        return {**{name: vars(self)[name] for name in kept}, "_description": {}}

    def look(self) -> bool:
        """:return: Whether something has changed since the last call."""
        if self._description and self._has_same_parts() and self._now() == self._now_before:
            return False
        before = self._description
        self._describe_model()
        if self._description == before:
            return False
        self.version += 1
        self.changes = sorted(set(_differences(before, self._description)))
        return True

    def _describe_model(self) -> None:
        model = self.model
        self._seen: dict[int, Any] = {}
        self._readers: list[tuple[Any, Any]] = []
        self._owners: list[Any] = []
        self._containers: list[Iterable[Any]] = []  # live views of dictionaries' values
        self._tensors: list[th.Tensor] = []
        modules, optimizers = list(model.policy.modules()), model.optimizers
        parts: list[Any] = [model, model.temperature, *optimizers, *modules]
        parts += [vars(each)["branches"] for each in (model, *modules) if "branches" in vars(each)]
        self._functions = _functions_of(frozenset(map(type, parts)))
        others = vars(model).keys() - self._known
        if (
            not type(model).__module__.startswith("sb3_softac.")
            or not self._functions.are_original()
            or any(callable(vars(model)[name]) for name in others)
        ):
            others = set()
        # Steps of this package do not read what a callback keeps on the model, such as a counter
        left_out = STATE_OF_THE_LOOP | others
        found = {}
        for name, value in vars(model).items():
            if name in left_out:
                continue
            # Environments, loggers and arrays of observations are not read in gradient steps
            if (description := self._describe(value, unknown=None)) is not None:
                found[name] = description
        self.modules = modules
        """All modules of the policy, as of the last look."""
        self._read(vars(model), list(found))
        self._hooks = hooks_of(modules, optimizers)
        self._trained = [each for each in self._tensors if each.requires_grad]
        hooks = [list(each.values()) for each in self._hooks if each]
        of_tensors = [getattr(each, kind) for each in self._trained for kind in HOOKS_OF_TENSORS]
        own = [list(map(id, each.values())) for each in of_tensors if each]
        self._description: Description = {**found, "a function of the step": self._functions.now(), "hooks": [hooks, own]}
        self._parts_before, self._now_before = [*self._parts()], self._now()

    def _parts(self) -> Iterator[Any]:
        """:return: Everything that is compared by identity; kept alive, so that no new object gets the identity of an old
        one."""
        inner, end = (read(values) for read, values in self._readers), [self]  # a sentinel: shows if a part is missing or new
        return chain(chain.from_iterable(self._containers), chain.from_iterable(inner), end)

    def _has_same_parts(self) -> bool:
        try:
            return all(map(is_, self._parts(), self._parts_before))
        except KeyError:  # an attribute was deleted
            return False

    def _now(self) -> list[Any]:
        tensors, trained = self._tensors, self._trained
        return [
            self._functions.now(),
            list(map(len, self._owners)),
            list(map(th.Tensor.data_ptr, tensors)),
            list(map(th.Tensor.size, tensors)),
            list(map(th.Tensor.stride, trained)),
            list(map(attrgetter("dtype"), trained)),
            list(map(attrgetter("requires_grad"), tensors)),
            sum(map(len, self._hooks)),
            are_hooked(trained),
        ]

    def _read(self, values: dict[Any, Any], names: list[Any]) -> None:
        self._owners.append(values)
        if names:
            self._readers.append((itemgetter(*names, names[0]), values))

    def _describe(self, value: Any, unknown: Any = id) -> Any:
        """:return: A description of a value, to be compared by ``==``."""
        kind = type(value)
        if kind in PLAIN or isinstance(value, int | float | str):
            return kind, value
        if isinstance(value, CONSTANT):
            return value
        if id(value) in self._seen:
            return id(value)
        if isinstance(value, th.Tensor):
            self._seen[id(value)] = value
            self._tensors.append(value)
            return value.data_ptr(), value.shape, value.stride(), value.dtype, value.requires_grad
        if isinstance(value, dict | list | tuple | set):
            return self._describe_items(value)
        names = _names_of_attributes(value)
        if names is None:
            return unknown(value) if unknown else None
        self._seen[id(value)] = value
        own = vars(value)
        inner = {name: self._describe(own[name]) for name in names}
        self._read(own, names)
        if isinstance(value, th.optim.Optimizer):
            self._read(own, ["param_groups", "state"])
            self._containers.append(value.param_groups)
            self._containers.append(value.state.values())
            inner["state"] = [self._describe(state) for state in value.state.values()]
            inner["param_groups"] = []
            for group in value.param_groups:
                options = [option for option in group if option != "lr"]  # read before each round of gradient steps
                self._read(group, options)
                inner["param_groups"].append({option: self._describe(group[option]) for option in options})
        return id(value), inner

    def _describe_items(self, value: Any) -> Any:
        if len(value) > LONG:
            return id(value), len(value)
        self._seen[id(value)] = value
        if not isinstance(value, tuple):
            self._containers.append(value.values() if isinstance(value, dict) else value)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key if isinstance(key, str | int) else id(key): self._describe(each) for key, each in items}


def _names_of_attributes(value: Any) -> list[str] | None:
    """:return: The attributes of an object that a step may read; None for an object of an unknown class."""
    own = getattr(value, "__dict__", {})
    if isinstance(value, th.optim.Optimizer):
        return [name for name, each in own.items() if callable(each)]
    if isinstance(value, nn.Module):
        return [name for name in own if name not in NOT_COMPARED]
    if type(value).__module__.startswith("sb3_softac."):
        # Plain numbers under names with an underscore are an object's own counters
        return [name for name, each in own.items() if not (name.startswith("_") and isinstance(each, int | float))]
    return None


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """:return: Names of the parts in which two descriptions differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            yield from _differences(before.get(key), now.get(key), f"{name}[{key}]" if name else str(key))
    elif isinstance(before, tuple) and isinstance(now, tuple) and before[0] == now[0] and isinstance(before[-1], dict):
        yield from _differences(before[-1], now[-1], name)
    elif before != now:
        yield name


def has_own_methods(part: object) -> bool:
    """:return: Whether a module, an optimizer or a temperature has methods that are not those of its class."""
    return any(callable(getattr(type(part), name, None)) for name in vars(part))
