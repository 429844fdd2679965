"""Soft Q-learning (arXiv:1702.08165)."""

from sb3_softac.sql.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, SQLPolicy
from sb3_softac.sql.sql import SQL

__all__ = ["SQL", "CnnPolicy", "MlpPolicy", "MultiInputPolicy", "SQLPolicy"]
