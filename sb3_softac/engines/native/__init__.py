"""
Gradient steps in C, on a CPU: a subpackage that can be removed.

It computes the same numbers as ``_update``, for the package's own MLP policies. Anything that it does not support is left to
``_update`` (the plain path). The environment variable ``SB3_SOFTAC_FAST=0`` turns it off.
"""

from sb3_softac.engines.native.steps import FastSteps

__all__ = ["FastSteps"]
