"""
What computes the numbers of gradient steps in another way has to notice that somebody has put in something else: hooks, or
other functions than those that the package was imported with. They may be in a subclass, on a class
(``StackedMLP.forward = ...``) or in a module (``sb3_softac.softac_v1.softac_v1.q_loss = ...``).
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch as th
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.optim import optimizer as global_optimizer_hooks

if TYPE_CHECKING:
    from sb3_softac.algorithm.train_loop import TrainLoop

HOOKS_OF_MODULES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
HOOKS_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_HOOKS = (
    *(getattr(global_hooks, f"_global{name}") for name in HOOKS_OF_MODULES),
    global_optimizer_hooks._global_optimizer_pre_hooks,
    global_optimizer_hooks._global_optimizer_post_hooks,
)
Owner = type | ModuleType
_AT_IMPORT: dict[tuple[Owner, str], object] = {}


def remember() -> None:
    """Note all of them; called once, when the whole package has been imported."""
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
    """:return: The attribute as it was then, or when it was first asked for if it is an optimizer's."""
    for part in owner.__mro__ if isinstance(owner, type) else (owner,):
        if (part, name) in _AT_IMPORT:
            return _AT_IMPORT[part, name]
    return _AT_IMPORT.setdefault((owner, name), getattr(owner, name))


class Functions:
    """
    Some functions, which can be compared with those of the import within a few microseconds.

    :param names: Names of functions by the module or the class that they are attributes of.
    """

    def __init__(self, names: Mapping[Owner, Sequence[str]]):
        self._names = names
        self._read = [(attrgetter(*each), owner) for owner, each in names.items()]
        then = [tuple(at_import(owner, name) for name in each) for owner, each in names.items()]
        self._at_import = [each if len(each) > 1 else each[0] for each in then]  # what attrgetter returns

    def are_original(self) -> bool:
        """:return: Whether all of them are those of the import."""
        return [read(owner) for read, owner in self._read] == self._at_import

    def replaced(self) -> str:
        """:return: The name of one that is not; empty if there is none."""
        for owner, names in self._names.items():
            for name in names:
                if getattr(owner, name, None) is not at_import(owner, name):
                    return f"{owner.__name__}.{name}"
        return ""

    def now(self) -> list[object]:
        """:return: The functions as they are."""
        return [read(owner) for read, owner in self._read]


def functions_of(model: "TrainLoop") -> Functions:
    """:return: All functions of the package and of SB3 that a gradient step of a model may call, and those of its modules."""
    modules = list(model.policy.modules())
    parts: list[Any] = [model, model.temperature, *model._optimizers, *modules]
    parts += [vars(each)["branches"] for each in (model, *modules) if "branches" in vars(each)]
    return _functions_of(frozenset(map(type, parts)))


@cache
def _functions_of(kinds: frozenset[type]) -> Functions:
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


def hooks_of(modules: Sequence[nn.Module], optimizers: Sequence[th.optim.Optimizer]) -> list[dict[Any, Any]]:
    """:return: All containers of hooks but those of tensors, empty or not."""
    hooks = [getattr(module, name) for module in modules for name in HOOKS_OF_MODULES]
    return [*hooks, *(getattr(each, name) for each in optimizers for name in HOOKS_OF_OPTIMIZERS), *GLOBAL_HOOKS]


def are_hooked(tensors: Sequence[th.Tensor]) -> bool:
    """:return: Whether one of them has a hook."""
    return any(tensor._backward_hooks or tensor._post_accumulate_grad_hooks for tensor in tensors)
