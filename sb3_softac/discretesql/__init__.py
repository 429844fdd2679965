"""Soft Q-learning for discrete actions (arXiv:1702.08165)."""

from sb3_softac.discretesql.discretesql import DiscreteSQL
from sb3_softac.discretesql.policies import CnnPolicy, DiscreteSQLPolicy, MlpPolicy, MultiInputPolicy

__all__ = ["CnnPolicy", "DiscreteSQL", "DiscreteSQLPolicy", "MlpPolicy", "MultiInputPolicy"]
