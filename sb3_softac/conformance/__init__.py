"""
Exact checks for any maximum-entropy algorithm with SB3's interface.

``python -m sb3_softac.conformance --algo module:Class`` prints the table.
"""

from sb3_softac.conformance import bandits, dual, dynamics, mechanics  # noqa: F401  (they register their checks)
from sb3_softac.conformance.check import CHECKS, Check, CheckResult, Measurement, run
from sb3_softac.conformance.exact_gap import ExactGap
from sb3_softac.conformance.subject import NotApplicable, Subject, as_subject, import_subject

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "ExactGap",
    "Measurement",
    "NotApplicable",
    "Subject",
    "as_subject",
    "import_subject",
    "run",
]
