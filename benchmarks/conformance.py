"""
The conformance suite on the package's algorithms, seed by seed, and on variants of them that are broken on purpose.

One row per check and seed, appended as it comes; what the file has already is not run again::

    python benchmarks/conformance.py            # 20 seeds of each algorithm, and each mutation on one
    python benchmarks/conformance.py --seeds 3
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch as th

sys.path.insert(0, str(Path(__file__).parent.parent))

from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1
from sb3_softac.conformance import CHECKS, as_subject
from sb3_softac.conformance.check import KINDS
from tests.conformance.mutations import MUTATIONS

RESULTS = Path(__file__).parent / "results" / "conformance.csv"
HEADER = ["algorithm", "mutation", "seed", "check", "kind", "exact", "measured", "low", "high", "tolerance", "verdict"]


SUBJECTS = {each.__name__: as_subject(each) for each in (DiscreteSAC, SoftAC_v1, DiscreteSQL, SQL)}


def rows(seeds: int, done: set[tuple[str, ...]]) -> Iterator[tuple[object, ...]]:
    """Rows that are not done: of all mutations, then seed after seed."""
    for mutation in MUTATIONS:
        name, check = mutation.algorithm.__name__, mutation.meant
        if (name, mutation.fault, "0", check.name, check.kind) not in done:
            with mutation.applied():
                # a class of its own, so that no model without the fault is remembered
                yield name, mutation.fault, 0, *check.run(type("Broken", (as_subject(mutation.algorithm),), {})).as_row()
    for seed in range(seeds):
        for name, subject in SUBJECTS.items():
            for check in CHECKS:
                if (name, "", str(seed), check.name, check.kind) not in done and not subject.refuses(KINDS[check.kind]):
                    yield name, "", seed, *check.run(subject, seed).as_row()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    th.set_num_threads(1)
    done = set()
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            done = {tuple(line[:5]) for line in csv.reader(file)}
    else:
        RESULTS.write_text(",".join(HEADER) + "\n")
    for line in rows(given.seeds, done):
        with RESULTS.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(line)


if __name__ == "__main__":
    main()
