"""
The learning curve of SoftAC_v1 on Walker2d-v4 for the README: all finished seeds, beside published returns at the last step.

    python -m sb3_softac.study run benchmarks/studies/million_steps.yml
    python benchmarks/walker2d.py
"""

import csv
from pathlib import Path

from sb3_softac.study import read_study
from sb3_softac.study.plots import learning_curves
from sb3_softac.study.results import by_name, read_results

HERE = Path(__file__).parent
ENV = "Walker2d-v4"


def main() -> None:
    results, partial, _ = read_results(read_study(HERE / "studies" / "million_steps.yml"))
    with open(HERE / "results" / "published.csv", newline="", encoding="utf-8") as file:
        published = [float(row["Walker2d"].removeprefix("about ").split()[0]) for row in csv.DictReader(file)]
    figure = learning_curves(by_name(results, ENV), by_name(partial, ENV), "deterministic", "environment steps")
    main_plot = figure.axes[0]
    main_plot.axhspan(min(published), max(published), color="0.85", zorder=0)
    main_plot.text(0, max(published), " published means at the last step", va="top", fontsize="small", color="0.3")
    figure.savefig(HERE / "results" / "walker2d.png", dpi=110)


if __name__ == "__main__":
    main()
