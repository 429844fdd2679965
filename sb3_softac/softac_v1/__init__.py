"""Soft Actor-Critic with a state-value network (arXiv:1801.01290)."""

from sb3_softac.softac_v1.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, SoftACPolicy
from sb3_softac.softac_v1.softac_v1 import SoftAC_v1

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "SoftACPolicy", "SoftAC_v1"]
