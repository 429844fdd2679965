"""Each fault is found by the check that is meant for it, and without the fault the check passes."""

import pytest

from sb3_softac.conformance import CHECKS, as_subject
from tests.conformance.mutations import MUTATIONS

FAST = {"stop and continue", "deterministic twice", "same seed", "save load continue", "density at the edge"}


def found(mutation):
    with mutation.applied():
        # a class of its own, so that no model without the fault is remembered
        subject = type("Broken", (as_subject(mutation.algorithm),), {})
        result = mutation.meant.run(subject)
        assert not isinstance(result.found, Exception), result.found
        return result.verdict


@pytest.mark.filterwarnings("ignore:n_steps=3 has no effect")  # as one of the faults has it
@pytest.mark.parametrize(
    "mutation",
    [pytest.param(each, marks=() if each.check in FAST else pytest.mark.slow) for each in MUTATIONS],
    ids=lambda mutation: f"{mutation.check}-{mutation.fault}".replace(" ", "_"),
)
def test_mutations_are_found(mutation):
    assert found(mutation) == "FAIL"
    if mutation.check in FAST:
        assert mutation.meant.run(as_subject(mutation.algorithm)).verdict == "pass"


def test_every_check_has_a_mutation():
    assert {each.check for each in MUTATIONS} == {check.name for check in CHECKS}
