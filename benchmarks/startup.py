"""
Cost of the start-up hook per start of the interpreter, as ``-X importtime`` reports it for the hook's module.

Run it with the Python of an environment that holds a regular install (an editable one also pays for setuptools' own finder)::

    python benchmarks/startup.py
"""

import csv
import re
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
STARTS = 50


def hook_ms() -> float:
    """Start Python once and read off the time spent in the hook's module and whatever it imports."""
    result = subprocess.run([sys.executable, "-X", "importtime", "-c", ""], capture_output=True, text=True, check=True)
    match = re.search(r"\|\s+(\d+) \|\s+_sb3_softac_autoload", result.stderr)
    if match is None:
        sys.exit("the hook is not installed: pip install .")
    return int(match.group(1)) / 1e3


def main() -> None:
    times = [hook_ms() for _ in range(STARTS)]
    rows = [["starts", "min ms", "median ms", "max ms"]]
    rows.append([str(STARTS), *(f"{figure(times):.3f}" for figure in (min, statistics.median, max))])
    for row in rows:
        print("  ".join(f"{cell:>10}" for cell in row))
    with open(RESULTS / "startup.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
