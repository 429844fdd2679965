"""
What the start-up hook adds to a start of Python: the wall time of starts with it and without it, taken in turns.

Starts run in an environment of their own that holds the hook and, because Python lists the folder to find it, as many other
packages as an installation of RL Zoo brings::

    python benchmarks/startup.py
"""

import csv
import shutil
import statistics
import subprocess
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
STARTS = 300
NEIGHBOURS = 250


def make_environment(folder: Path, with_hook: bool) -> Path:
    """Create an environment and return its Python."""
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for number in range(NEIGHBOURS):
        (site / f"package{number}").mkdir()
    if with_hook:
        for name in ("sb3_softac.pth", "sb3_softac.start", "_sb3_softac_autoload.py"):
            shutil.copy(ROOT / name, site)
    return folder / "bin" / "python"


def start_ms(python: Path) -> float:
    """Start Python once."""
    start = time.perf_counter()
    subprocess.run([python, "-c", ""], check=True)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        without_hook, with_hook = (make_environment(Path(folder) / str(hook), hook) for hook in (False, True))
        start_ms(without_hook), start_ms(with_hook)  # the first start compiles the module
        pairs = [(start_ms(without_hook), start_ms(with_hook)) for _ in range(STARTS)]
    differences = sorted(after - before for before, after in pairs)
    low, median, high = statistics.quantiles(differences, n=4)
    rows = [
        ["starts", "ms without", "ms with", "added ms (median)", "quartiles"],
        [
            str(STARTS),
            *(f"{statistics.median(times):.2f}" for times in zip(*pairs, strict=True)),
            f"{median:.2f}",
            f"{low:.2f} to {high:.2f}",
        ],
    ]
    for row in rows:
        print("  ".join(f"{cell:>17}" for cell in row))
    with open(ROOT / "benchmarks" / "results" / "startup.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
