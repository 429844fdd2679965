"""The tables of the conformance suite, from its checks and its result files."""

import csv
from collections import defaultdict
from pathlib import Path

from sb3_softac.conformance import CHECKS
from sb3_softac.conformance.check import KINDS

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def rows(file: str) -> list[dict[str, str]]:
    with (RESULTS / file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def table(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def checks() -> str:
    """Each check, what its failure means, and the fault that was planted for it."""
    planted = defaultdict(list)
    for row in rows("conformance.csv"):
        if row["mutation"]:
            found = "found" if row["verdict"] == "FAIL" else "**not found**"
            planted[row["check"]].append(f"{row['mutation']} ({row['algorithm']}): {found}")
    meanings = {check.name: check.failure for check in CHECKS}
    kinds = {name: ", ".join(check.kind for check in CHECKS if check.name == name) for name in meanings}
    lines = [[name, kinds[name], meaning, "; ".join(planted[name])] for name, meaning in meanings.items()]
    return table(["check", "actions", "a failure means", "planted fault"], lines)


def ours() -> str:
    """Seeds, failures and the largest error of each of the package's algorithms."""
    by_algorithm = defaultdict(list)
    for row in rows("conformance.csv"):
        if not row["mutation"]:
            by_algorithm[row["algorithm"]].append(row)
    lines = []
    for name, measured in by_algorithm.items():
        seeds = defaultdict(set)
        for row in measured:
            seeds[row["check"]].add(row["seed"])
        counted = [row for row in measured if row["verdict"] != "not applicable"]
        failed = [f"{row['check']} (seed {row['seed']})" for row in counted if row["verdict"] == "FAIL"]
        share, worst = max((share_of_tolerance(row), row["check"]) for row in counted)
        least, most = min(map(len, seeds.values())), max(map(len, seeds.values()))
        n = str(least) if least == most else f"{least} to {most}"
        lines.append([name, n, str(len(counted)), ", ".join(failed) or "none", f"{share:.2f} ({worst})"])
    return table(["algorithm", "seeds of each check", "measurements", "failed", "largest error in tolerances"], lines)


def share_of_tolerance(row: dict[str, str]) -> float:
    """:return: How much of its tolerance a measurement has used; of an upper bound, only what lies above."""
    exact, measured, tolerance = (float(row[name]) for name in ("exact", "measured", "tolerance"))
    above = measured - exact if row["check"].startswith("bandit policy") else abs(measured - exact)
    return above / tolerance if tolerance else 0.0


def field() -> str:
    """Verdicts of other libraries, a table for each kind of actions; where one fails, what was measured on each seed."""
    return "\n\n".join(f"{kind} actions:\n\n{field_of(kind)}" for kind in KINDS)


def field_of(kind: str) -> str:
    found: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    algorithms: dict[str, str] = {}
    for row in rows("conformance_field.csv"):
        if row["kind"] == kind:
            found[row["check"], row["algorithm"]].append(row)
            algorithms[row["algorithm"]] = row["versions"]
    names = [check.name for check in CHECKS if check.kind == kind]
    lines = [[name, *(cell(found[name, algorithm]) for algorithm in algorithms)] for name in names]
    versions = ["versions", *(text.replace(" ", "<br>") for text in algorithms.values())]
    return table(["check", *algorithms], [versions, *lines])


def cell(measurements: list[dict[str, str]]) -> str:
    if not measurements:
        return ""
    if all(row["verdict"] == "FAIL" for row in measurements):
        pairs = [(float(row["measured"]), float(row["exact"])) for row in measurements]
        return "**fails**: " + ", ".join(f"{measured:.4g} instead of {exact:.4g}" for measured, exact in pairs)
    return "; ".join(dict.fromkeys(row["verdict"] for row in measurements))


def write(folder: Path) -> None:
    for make in (checks, ours, field):
        (folder / f"conformance_{make.__name__}.md").write_text(make() + "\n")
