"""
Gradient steps in C, on a CPU.

They give the same numbers as ``_update``, for the package's own MLP policies. Anything else is left to ``_update``. The
environment variable ``SB3_SOFTAC_FAST=0`` turns them off.
"""

from sb3_softac.algorithm.engine import ENGINES
from sb3_softac.engines.native.native_engine import NativeEngine

ENGINES["native"] = NativeEngine

__all__ = ["NativeEngine"]
