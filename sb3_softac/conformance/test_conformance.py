"""
The checks for pytest, a test each::

    CONFORMANCE_ALGO=stable_baselines3:SAC python -m pytest --pyargs sb3_softac.conformance
"""

import os

import pytest

from sb3_softac.conformance import CHECKS, Check, import_subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.name}-{check.kind}".replace(" ", "_"))
def test_conformance(check: Check) -> None:
    if (algorithm := os.environ.get("CONFORMANCE_ALGO")) is None:
        pytest.skip("set CONFORMANCE_ALGO to the module:Class that is to be checked")
    result = check.run(import_subject(algorithm))
    if isinstance(result.found, Exception):
        raise result.found
    if isinstance(result.found, str):
        pytest.skip(f"not applicable: {algorithm} {result.found}")
    assert result.found.passed, f"{result.found}: {check.failure}"
