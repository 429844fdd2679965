"""
Studies: algorithms, environments and seeds declared in one file, run anywhere, and reported with every seed.

``python -m sb3_softac.study run FILE`` and ``python -m sb3_softac.study report FILE``.
"""

from sb3_softac.study.declaration import PerturbationSweep, Robustness, Run, Study, StudyError
from sb3_softac.study.study_file import read_study

__all__ = ["PerturbationSweep", "Robustness", "Run", "Study", "StudyError", "read_study"]
