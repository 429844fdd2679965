"""
Registration with RL Zoo. An installed package registers automatically; :func:`register` is for cases where this is not
possible.
"""

import importlib

from _sb3_softac_autoload import ZOO_MODULES, ZooFinder


def register() -> None:
    """
    Add the algorithms, their hyperparameters and their samplers to RL Zoo. Calling it again changes nothing.

    :raises ModuleNotFoundError: if RL Zoo is not installed.
    """
    from sb3_softac.zoo.registration import add_to

    ZooFinder.switched_off = True  # what it would do is done here
    for name in ZOO_MODULES:
        importlib.import_module(name)
        add_to(name)


__all__ = ["register"]
