"""Detects changes of a model since it was read, cheaply enough for every round of gradient steps."""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import torch as th

from sb3_softac.engines.functions import Functions, are_hooked, hooks_of
from sb3_softac.engines.unsuitable import require

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

# Of the groups of an optimizer: what has a comparison of its own, and what is read before each round of gradient steps
READ_ELSEWHERE = ("params", "lr")
# Attributes of modules that their results depend on, beside the parameters and modules in them
ATTRIBUTES = {
    *("observation_space", "normalize_images", "start_dim", "end_dim"),
    *("n_members", "n_branches", "branches", "use_sde"),
}


class Watch:
    """
    The parts of a model at the time when this object was created.

    :param model: Model.
    :param tensors: All tensors whose addresses are in use.
    :param trained: Those of them that are trained.
    :param functions: Functions and methods that C replaces.
    :param methods: Names of the model's methods among them.
    :param options: Attributes of the model that were read into the plan.
    :raises Unsuitable: if there are hooks or replaced methods, which C does not call, or a parameter is frozen.
    """

    def __init__(
        self,
        model: "SoftOffPolicyAlgorithm",
        tensors: list[th.Tensor],
        trained: list[th.Tensor],
        functions: Functions,
        methods: Sequence[str],
        options: Sequence[str],
    ):
        self._model, self._tensors, self._trained, self._functions = model, tensors, trained, functions
        self._methods, self._options = methods, options
        # All of them are kept: nothing new gets the identity of something old
        self._modules, self._optimizers = list(model.policy.modules()), model._optimizers
        self._objects: list[object] = [*self._modules, *self._optimizers, model.temperature]
        self._objects += [each.branches for each in (model, *self._modules) if hasattr(each, "branches")]
        self._parts = [part for module in self._modules for part in (module._modules, module._parameters)]
        names = [(vars(module), [*(vars(module).keys() & ATTRIBUTES)]) for module in self._modules]
        self._attributes = [(itemgetter(*each, each[0]), own) for own, each in names if each]
        self._hooks = hooks_of(self._modules, self._optimizers)
        self._weights = list(model.policy.parameters())
        of_weights = set(map(id, self._weights))
        self._others = [tensor for tensor in tensors if id(tensor) not in of_weights]
        self._states = [state for optimizer in self._optimizers for state in optimizer.state.values()]
        require(not self._is_hooked(), "hooks are not called in C")
        require(not any(map(has_own_methods, self._objects)), "replaced methods are not called in C")
        require(all(map(attrgetter("requires_grad"), self._trained)), "parameters are frozen")
        self._then = self._now()
        self._kept = [read(own) for read, own in self._attributes]

    def holds(self) -> bool:
        """:return: Whether everything is still as it was."""
        return self._functions.are_original() and self._now() == self._then and not self._is_hooked()

    def _now(self) -> list[object]:
        """:return: Identities, addresses and options, to be compared."""
        model, own = self._model, vars(self._model)
        groups: list[dict[str, Any]] = [group for optimizer in model._optimizers for group in optimizer.param_groups]
        return [
            id(model.policy),
            id(model.temperature),
            list(map(id, model.temperature.parameters())),
            any(map(own.__contains__, self._methods)),
            [repr(own.get(name)) for name in self._options],
            [len(vars(part)) for part in self._objects],
            list(map(id, chain.from_iterable(part.values() for part in self._parts))),
            list(map(id, chain.from_iterable(read(attributes) for read, attributes in self._attributes))),
            list(map(id, model._optimizers)),
            list(map(id, chain.from_iterable(optimizer.state.values() for optimizer in model._optimizers))),
            list(map(id, chain.from_iterable(state.values() for state in self._states))),
            list(map(id, chain.from_iterable(group["params"] for group in groups))),
            [[value for name, value in group.items() if name not in READ_ELSEWHERE] for group in groups],
            list(map(th.Tensor.data_ptr, self._tensors)),
            list(map(th.Tensor.numel, self._others)),
            list(map(th.Tensor.size, self._weights)),
            list(map(th.Tensor.stride, self._weights)),
            list(map(attrgetter("dtype"), self._weights)),
            all(map(attrgetter("requires_grad"), self._trained)),
        ]

    def _is_hooked(self) -> bool:
        return any(self._hooks) or are_hooked(self._trained)


def has_own_methods(part: object) -> bool:
    """
    :param part: A module, an optimizer or a temperature.
    :return: Whether it has methods that are not those of its class.
    """
    return any(callable(getattr(type(part), name, None)) for name in vars(part))
