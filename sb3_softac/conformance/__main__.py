"""``python -m sb3_softac.conformance --algo module:Class``: run the checks and print a table."""

import argparse
import sys

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sb3_softac.conformance import CheckResult, import_subject, run

COLOURS = {"pass": "green", "FAIL": "bold red", "not applicable": "dim"}


def rounded(value: float) -> str:
    return f"{value:.4g}"


def cells(result: CheckResult) -> list[str]:
    """:return: One row of the table."""
    colour = COLOURS[result.verdict]
    name, verdict = f"{result.check.name} [dim]{result.check.kind}[/]", f"[{colour}]{result.verdict}[/]"
    if isinstance(found := result.found, Exception):
        found = f"{type(found).__name__}: {found}"
    if isinstance(found, str):
        return [name, "", "", "", verdict, escape(found)]
    measured = rounded(found.measured)
    if found.interval is not None:
        measured += " ({} to {})".format(*map(rounded, found.interval))
    exact = ("at most " if found.at_most else "") + rounded(found.exact)
    return [name, exact, measured, rounded(found.tolerance), verdict, result.check.failure if result.verdict == "FAIL" else ""]


def main(arguments: list[str] | None = None) -> int:
    """:return: 1 if a check failed, else 0."""
    about = "Exact checks of a maximum-entropy algorithm."
    parser = argparse.ArgumentParser(prog="python -m sb3_softac.conformance", description=about)
    parser.add_argument("--algo", required=True, help="class with SB3's interface, or adapter: module:Class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="run the checks whose name contains this")
    given = parser.parse_args(arguments)
    if given.seed < 0:
        parser.error(f"--seed must be at least 0, got {given.seed}")
    try:
        results = run(import_subject(given.algo), given.seed, given.only)
    except (ImportError, ValueError) as error:
        sys.exit(f"error: {error}")
    table = Table(title=f"{given.algo}, seed {given.seed}", title_justify="left")
    for column in ("check", "exact", "measured", "tolerance", "verdict", "what it means"):
        table.add_column(column, overflow="fold")
    failures = 0
    with Live(table, console=Console(), refresh_per_second=2, vertical_overflow="visible"):
        for result in results:
            table.add_row(*cells(result))
            failures += result.verdict == "FAIL"
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
