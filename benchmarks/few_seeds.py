"""
What 3 or 5 seeds would have claimed: subsets of the study ``studies/thirty_seeds.yml``, as if they were all there is.

    python -m sb3_softac.study run benchmarks/studies/thirty_seeds.yml
    python benchmarks/few_seeds.py

A claim is the interquartile mean (IQM) of the returns, averaged over all evaluations of a run. Draws subsets of each size
without replacement and writes ``benchmarks/results/few_seeds.csv``: where the IQM of nine in ten subsets lies, how often its
95 % bootstrap interval misses the IQM of all seeds, how far the algorithm would have been from the best one, and how often
above it. Draws these distributions, and the learning curves of all seeds for the README.
"""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sb3_softac.study import read_study
from sb3_softac.study.plots import MARKERS, learning_curves, line_style, style_numbers
from sb3_softac.study.results import by_name, read_results
from sb3_softac.study.statistics import bootstrap, interquartile_mean

HERE = Path(__file__).parent
RESULT = HERE / "results" / "few_seeds.csv"
SIZES, SUBSETS, INTERVALS = (3, 5, 10), 2_000, 200


def main() -> None:
    study = read_study(HERE / "studies" / "thirty_seeds.yml")
    results, _, missing = read_results(study)
    print(f"{len(results)} runs, {len(missing)} missing")
    groups = by_name(results, "CartPole-v1")
    returns = {name: np.array([result.returns["deterministic"].mean() for result in group]) for name, group in groups.items()}
    whole = {name: float(interquartile_mean(values)) for name, values in returns.items()}
    best = max(whole, key=lambda name: whole[name])
    rng, rows, drawn = np.random.default_rng(0), [], {}
    for size in SIZES:
        subsets = {
            name: np.array([rng.choice(values, size, replace=False) for _ in range(SUBSETS)])
            for name, values in returns.items()
        }
        means = {name: interquartile_mean(chosen, axis=1) for name, chosen in subsets.items()}
        for name, chosen in subsets.items():
            drawn[name, size] = means[name]
            low, high = bootstrap((chosen[:INTERVALS].T,), interquartile_mean)
            missed = (whole[name] < low) | (high < whole[name])
            low, high = np.quantile(means[name], [0.05, 0.95])
            from_low, to_high = np.quantile(means[name] - means[best], [0.05, 0.95])
            rows.append(
                {
                    "seeds": size,
                    "algorithm": name,
                    "IQM of all seeds": f"{whole[name]:.0f} (n = {len(returns[name])})",
                    "IQM of nine in ten subsets": f"{low:.0f} to {high:.0f}",
                    "95 % interval misses it": f"{np.mean(missed):.0%}",
                    f"distance to {best}, nine in ten": "-" if name == best else f"{from_low:+.0f} to {to_high:+.0f}",
                    f"ranked above {best}": "-" if name == best else f"{np.mean(means[best] < means[name]):.0%}",
                }
            )
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axis = figure.subplots()
    for k, (name, number) in enumerate(style_numbers(returns).items()):
        places, style = np.arange(len(SIZES) + 1) + 0.28 * k, line_style(number)
        axis.violinplot([drawn[name, size] for size in SIZES], places[:-1], widths=0.24, showextrema=False)
        for body in axis.collections[-len(SIZES) :]:
            body.set_facecolor(style["color"])
        last = np.full(len(returns[name]), places[-1])
        axis.scatter(last, returns[name], s=10, color=style["color"], marker=MARKERS[number], label=name)
        axis.axhline(whole[name], **style, linewidth=1)
    labels = [f"IQM of {size} seeds" for size in SIZES]
    axis.set_xticks(np.arange(len(SIZES) + 1) + 0.28, [*labels, "each seed"])
    axis.set_ylabel("return, mean of all evaluations")
    figure.legend(loc="outside upper center", ncols=len(returns))
    figure.savefig(RESULT.with_suffix(".png"), dpi=110)
    learning_curves(groups, {}, "deterministic", "environment steps").savefig(RESULT.with_name("thirty_seeds.png"), dpi=110)


if __name__ == "__main__":
    main()
