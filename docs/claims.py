"""
What the pages say about results, held against the result files.

    python docs/claims.py           # lists what the results contradict
    python docs/claims.py --write   # puts the computed numbers into the pages

``claims.txt`` has, below the name of each page, the pieces of its text that tell results, a line each. In place of a number
stands the expression in braces that computes it from the names of :func:`vocabulary`; the page may have any number of digits.
An expression after a question mark is a condition without which the words are wrong, and is no part of the text.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import ledger

ROOT = Path(__file__).parent.parent
CLAIMS = Path(__file__).with_name("claims.txt")
NUMBER = r"-?\d+(?:\.\d+)?"
NOT_PROSE = re.compile(
    r"""^```(?!\{(?:image|figure)).*?^``` | ^```\{.*?$ | ^\$\$.*?\$\$ | ^:(?:file|header-rows):.*?$   # blocks, options
    | \$[^$\n]+\$ | `[^`]*` | \]\([^)]*\) | <[^>]*>   # formulas, code, addresses
    | \barXiv:\S+ | [A-Z]\w+-v\d | \w*[A-Za-z_]\d[\w.-]*   # names
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


class Checked(NamedTuple):
    """A page beside its claims."""

    complaints: list[str]
    text: str
    """The page with the computed numbers."""
    unclaimed: list[str]
    """Numbers in the prose that no claim holds, each with the words before it."""


def read_claims(path: Path = CLAIMS) -> dict[str, list[str]]:
    """:return: The claims by page."""
    claims: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())):
        if line.startswith("# "):
            own = claims.setdefault(line[2:], [])
        else:
            own.append(line)
    return claims


def as_written(value: float, example: str) -> str:
    """:return: The number with as many decimals as the example."""
    decimals = len(example.partition(".")[2])
    return f"{round(float(value), decimals) + 0.0:.{decimals}f}"


def check(text: str, claims: list[str], vocabulary: dict[str, object]) -> Checked:
    """Hold a page against its claims."""
    complaints, spans, corrections = [], [], []
    for claim in claims:
        words, expressions = re.split(r"\{[^{}]+\}", claim), re.findall(r"\{([^{}]+)\}", claim)
        values = [eval(expression.removeprefix("?"), dict(vocabulary)) for expression in expressions]
        holes = ["()" if expression.startswith("?") else f"({NUMBER})" for expression in expressions]
        literals = [re.sub(r"(\\ )+", r"\\s+", re.escape(part)) for part in words]
        pattern = literals[0] + "".join(hole + literal for hole, literal in zip(holes, literals[1:], strict=True))
        found = list(re.finditer(pattern, text))
        complaints += [] if found else [f"not in the page: {claim}"]
        for match in found:
            spans.append(match.span())
            for group, (expression, value) in enumerate(zip(expressions, values, strict=True), start=1):
                if expression.startswith("?"):
                    complaints += [] if value else [f"no longer true, {expression}: {match[0]}"]
                elif match[group] != (computed := as_written(value, match[group])):
                    complaints.append(f"{match[group]} should be {computed}, {expression}: {match[0]}")
                    corrections.append((match.span(group), computed))
    unclaimed = re.finditer(rf"(?:\S+\s+){{0,4}}[^\s\w]*{NUMBER}", without_digits(text, spans))
    for (start, end), computed in sorted(corrections, reverse=True):
        text = text[:start] + computed + text[end:]
    return Checked(complaints, text, [" ".join(match[0].split()) for match in unclaimed])


def without_digits(text: str, spans: list[tuple[int, int]]) -> str:
    """:return: The text with no digits in these spans and outside of prose."""
    for start, end in [*spans, *(match.span() for match in NOT_PROSE.finditer(text))]:
        text = text[:start] + re.sub(r"\d", "x", text[start:end]) + text[end:]
    return text


def main() -> None:
    for page, claims in read_claims().items():
        checked = check((ROOT / page).read_text(encoding="utf-8"), claims, ledger.vocabulary())
        for complaint in checked.complaints:
            print(f"{page}: {complaint}")
        if "--write" in sys.argv:
            (ROOT / page).write_text(checked.text, encoding="utf-8")


if __name__ == "__main__":
    main()
