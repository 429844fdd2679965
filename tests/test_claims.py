"""What the pages say about results, held against the result files by docs/claims.py."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import claims  # noqa: E402
import ledger  # noqa: E402

SETTINGS = ["Shaded is the 95", "% bootstrap interval from 10", "the policy of seed 0", "Mean return over 100"]
"""Numbers on the page of benchmarks that are no results."""


@pytest.fixture(scope="module")
def vocabulary():
    return ledger.vocabulary()


@pytest.mark.parametrize("page", claims.read_claims())
def test_pages_say_what_the_results_say(page, vocabulary):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert claims.check(text, claims.read_claims()[page], vocabulary).complaints == [], "python docs/claims.py --write"


def test_no_number_of_the_benchmarks_is_typed(vocabulary):
    page = "docs/benchmarks.md"
    unclaimed = claims.check((ROOT / page).read_text(encoding="utf-8"), claims.read_claims()[page], vocabulary).unclaimed
    assert [words for words in unclaimed if not words.endswith(tuple(SETTINGS))] == []


def test_what_is_stale_or_untrue_is_found():
    page = "Of 4\nseeds, 0.53 win. `x = 7` takes 9 steps."
    checked = claims.check(page, ["Of {n} seeds, {share} win{?n > 4}"], {"n": 5, "share": 0.534})
    assert checked.text == page.replace("4", "5")
    assert [complaint.partition(":")[0] for complaint in checked.complaints] == ["4 should be 5, n"]
    assert len(checked.unclaimed) == 1 and checked.unclaimed[0].endswith("takes 9")
    assert claims.check("3 of 3", ["{n} of {n}{?n > 3}", "none of them"], {"n": 3}).complaints == [
        "no longer true, ?n > 3: 3 of 3",
        "not in the page: none of them",
    ]


def test_every_declared_run_is_on_the_ledger():
    listed = [line.split(" | ") for line in ledger.as_markdown().splitlines() if line.startswith("| [")]
    assert len(listed) == len(ledger.NAMES)
    for _, declared, finished, partial, missing, _ in listed:
        assert int(declared) == int(finished) + int(partial) + int(missing) > 0
