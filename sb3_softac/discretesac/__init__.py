"""Soft Actor-Critic for discrete actions (arXiv:1910.07207)."""

from sb3_softac.discretesac.discretesac import DiscreteSAC
from sb3_softac.discretesac.policies import CnnPolicy, DiscreteSACPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["CnnPolicy", "DiscreteSAC", "DiscreteSACPolicy", "MlpPolicy", "MultiInputPolicy"]
