"""Training that can be interrupted anywhere: exact resume and crash-safe checkpoints, for SB3's algorithms too."""

from sb3_softac.resume.callback import ExactCheckpoint
from sb3_softac.resume.environments import Resumable
from sb3_softac.resume.serialization import ResumeError

__all__ = ["ExactCheckpoint", "Resumable", "ResumeError"]
