"""Maximum-entropy reinforcement learning algorithms for Stable-Baselines3."""

from importlib.metadata import PackageNotFoundError, version

import sb3_softac.engines
import sb3_softac.envs  # noqa: F401  (registers the environments with Gymnasium)
from sb3_softac.algorithm.changes import remember_functions
from sb3_softac.discretesac import DiscreteSAC
from sb3_softac.discretesql import DiscreteSQL
from sb3_softac.softac_v1 import SoftAC_v1
from sb3_softac.sql import SQL

try:
    __version__ = version("sb3_softac")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

remember_functions()

__all__ = ["SQL", "DiscreteSAC", "DiscreteSQL", "SoftAC_v1", "__version__"]
