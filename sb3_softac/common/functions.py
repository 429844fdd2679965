"""
The functions and methods that gradient steps are made of, compared by identity with those that the package was imported with.

What computes the same numbers in another way has to notice that somebody has replaced one of them: in a subclass, on a class
(``StackedMLP.forward = ...``) or in a module (``sb3_softac.softac_v1.softac_v1.q_loss = ...``).
"""

import sys
from collections.abc import Mapping, Sequence
from operator import attrgetter
from types import ModuleType

from torch import nn

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
    for name, value in vars(owner).items():
        _AT_IMPORT.setdefault((owner, name), value)


def at_import(owner: Owner, name: str) -> object:
    """:return: The attribute as it was then, or when it was first asked for: PyTorch replaces methods of optimizers itself."""
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
