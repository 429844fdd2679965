"""
Registration with RL Zoo. An installed package registers automatically; :func:`register` is for cases where this is not
possible.
"""

import importlib

from _sb3_softac_autoload import PATCHES


def register() -> None:
    """
    Add the algorithms, their hyperparameters and their samplers to RL Zoo. Calling it again changes nothing.

    :raises ModuleNotFoundError: if RL Zoo is not installed.
    """
    from sb3_softac.zoo.registration import patch

    for name in PATCHES:
        patch(importlib.import_module(name))


__all__ = ["register"]
