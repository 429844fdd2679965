"""Maximum-entropy reinforcement learning algorithms for Stable-Baselines3."""

from importlib.metadata import PackageNotFoundError, version

from sb3_softac.discretesac import DiscreteSAC
from sb3_softac.softac_v1 import SoftAC_v1

try:
    __version__ = version("sb3_softac")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["DiscreteSAC", "SoftAC_v1", "__version__"]
