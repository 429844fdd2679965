"""The package's algorithms against exact solutions, on one seed; the results of benchmarks/conformance.py have more."""

import pytest

from sb3_softac import SQL
from sb3_softac.conformance import CHECKS, Subject, as_subject
from tests.toys import ALGORITHMS, is_discrete


class UniformSQL(Subject):
    algorithm, settings = SQL, {"proposal": "uniform"}


CASES = [
    pytest.param(subject, check, id=f"{subject.__name__}-{check.name}".replace(" ", "_"))
    for subject in (*map(as_subject, ALGORITHMS), UniformSQL)
    for check in CHECKS
    if (check.kind == "Discrete") is is_discrete(subject.algorithm) and (subject is not UniformSQL or check.name == "chain q")
]


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "check"), CASES)
def test_exact_solutions(subject, check):
    result = check.run(subject)
    assert result.verdict != "FAIL", f"{result.found}: {check.failure}"
