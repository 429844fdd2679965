"""The plots of a report: every seed, and the interquartile mean with its interval."""

import itertools
import json
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sb3_softac.study.declaration import group_name
from sb3_softac.study.results import Result, shared_evaluations
from sb3_softac.study.statistics import SEEDS_FOR_INTERVAL, iqm_band

# Okabe and Ito's colours, grey and brown: colour-blind readers tell them apart; in grey, line styles and markers do
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#661100")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
ALGORITHM_STYLES = dict(SoftAC_v1=0, DiscreteSAC=1, SQL=2, PPO=3, SAC=4, TD3=5, DQN=6, QRDQN=7, DiscreteSQL=8)
"""The same in all figures; variants take what a figure leaves free."""
COLUMNS = 3  # panels per row
SECONDS = "seconds of training (median of the seeds)"
AXES: dict[str, Callable[[Result], np.ndarray]] = {
    "environment steps": lambda result: result.timesteps,
    SECONDS: lambda result: result.seconds,
}
MAX_LABEL = 90
MAX_PIXELS = 50_000  # of a picture in one direction


def plot_text(text: str, width: int = 90) -> str:
    """
    :return: A name that a user has chosen as text for Matplotlib, which reads formulas between dollar signs and hides names
        that begin with an underscore. The middle of a long name is left out.
    """
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))
    if len(printable) > MAX_LABEL:
        printable = f"{printable[: MAX_LABEL - 21]}…{printable[-20:]}"
    wrapped = "\n".join(textwrap.wrap(printable, width))
    return (f" {wrapped}" if wrapped.startswith("_") else wrapped).replace("$", r"\$")


def line_style(number: int) -> dict[str, Any]:
    """:return: Colour and style of a line."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}


def colour_of(label: str) -> str:
    """:return: The colour of the algorithm that a label names among its words; grey if it names none."""
    words = label.replace(",", " ").split()
    return next((COLOURS[number] for name, number in ALGORITHM_STYLES.items() if name in words), "0.7")


def style_numbers(names: Iterable[str]) -> dict[str, int]:
    """:return: For each name the number of its :func:`line_style` and its marker."""
    names = list(names)
    taken = {ALGORITHM_STYLES.get(name) for name in names}
    n = len(COLOURS)
    free = (number % n for number in itertools.count(6, -1) if number % n not in taken or len(names) > n)
    return {name: ALGORITHM_STYLES[name] if name in ALGORITHM_STYLES else next(free) for name in names}


def band(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:return: Interquartile mean of ``[runs, ...]``, and what is shaded: its 95 % interval, or the range of too few seeds."""
    value, low, high = iqm_band(returns)
    if len(returns) < SEEDS_FOR_INTERVAL:
        low, high = (np.where(np.isnan(value), np.nan, limit) for limit in (returns.min(0), returns.max(0)))
    return value, low, high


def band_caption(groups: dict[str, list[Result]]) -> str:
    """:return: What lines and shaded bands show."""
    sizes = [len(group) for group in groups.values()]
    if max(sizes) == 1:
        return "a single seed"
    interval, few = "95 % interval", "range of all seeds"
    shade = few if max(sizes) < SEEDS_FOR_INTERVAL else interval
    if min(sizes) < SEEDS_FOR_INTERVAL <= max(sizes):
        shade = f"{interval} (with fewer than {SEEDS_FOR_INTERVAL} seeds: {few})"
    return f"interquartile mean, {shade}"


def draw_band(axes: Axes, x: Any, bands: tuple[np.ndarray, np.ndarray, np.ndarray], number: int, **style: Any) -> None:
    """Draw an interquartile mean as a line, and shade its band."""
    value, low, high = bands
    axes.plot(x, value, **line_style(number), **style)
    axes.fill_between(x, low, high, color=line_style(number)["color"], alpha=0.15, linewidth=0)


def learning_curves(groups: dict[str, list[Result]], partial: dict[str, list[Result]], mode: str, axis: str) -> Figure:
    """
    :return: The interquartile means with their bands, over the steps that all have; below, a panel for each name with every
        seed over all its steps (unfinished: dotted).
    """
    names = list(dict.fromkeys([*groups, *partial]))
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(7, 3.8 + 1.6 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[2.4, *[1] * rows])
    main = figure.add_subplot(grid[0, :])
    for position, (name, number) in enumerate(style_numbers(names).items()):
        panel = figure.add_subplot(grid[1 + position // columns, position % columns], sharey=main)
        group, unfinished, colour = groups.get(name, []), partial.get(name, []), line_style(number)["color"]
        for result in unfinished:
            panel.plot(AXES[axis](result), result.returns[mode], color=colour, linestyle=":", linewidth=1)
        for result in group:
            panel.plot(AXES[axis](result), result.returns[mode], color=colour, linewidth=0.7, alpha=0.6)
        if group:
            shared = [*zip(group, shared_evaluations(group), strict=True)]
            x = np.median([AXES[axis](result)[at] for result, at in shared], axis=0)
            bands = band(np.array([result.returns[mode][at] for result, at in shared]))
            draw_band(main, x, bands, number, linewidth=2, label=plot_text(f"{name} (n = {len(group)})"))
            panel.plot(x, bands[0], color="black", linewidth=1.2)
        seeds = "1 seed" if len(group) == 1 else f"{len(group)} seeds"
        title = f"{name}, {seeds}" + (f", {len(unfinished)} unfinished" if unfinished else "")
        panel.set_title(plot_text(title, 90 // columns), fontsize="small")
        panel.tick_params(labelsize="x-small", labelleft=position % columns == 0)
        panel.xaxis.set_major_locator(MaxNLocator(5))
    main.set_ylabel(f"return, {mode} policy")
    if groups:
        columns = min(COLUMNS, len(groups))
        style: dict[str, Any] = {"fontsize": "small", "title": band_caption(groups), "title_fontsize": "small"}
        figure.legend(*main.get_legend_handles_labels(), loc="outside upper center", ncols=columns, **style)
        if axis == "environment steps":  # a longer training of one of them would squeeze the others
            main.set_xlim(0, min(max(AXES[axis](result).max() for result in group) for group in groups.values()))
    figure.supxlabel(axis, fontsize="medium")
    return figure


def final_returns(groups: dict[str, list[Result]], mode: str, step: str) -> Figure:
    """:return: The return of each run at the step of comparison, with the interquartile mean and its interval."""
    figure = Figure(figsize=(7, 0.8 + 0.45 * len(groups)), layout="constrained")
    plot = figure.subplots()
    for row, (name, number) in enumerate(style_numbers(groups).items()):
        group = groups[name]
        final = [result.final(mode) for result in group]
        value, low, high = band(np.array(final))
        spread = np.linspace(-0.16, 0.16, len(final)) if len(final) > 1 else [0.0]
        marker, colour = MARKERS[number % len(MARKERS)], line_style(number)["color"]
        plot.scatter(final, np.add(row, spread), s=14, color=colour, marker=marker, alpha=0.7)
        plot.plot([low, high], [row + 0.3] * 2, color="0.3", linewidth=1.5)
        plot.plot([value], [row + 0.3], "d", color="0.1", markersize=5)
    plot.set_yticks(range(len(groups)), [plot_text(f"{name} (n = {len(group)})", 45) for name, group in groups.items()])
    plot.invert_yaxis()
    plot.set_xlabel(f"return at step {step}, {mode} policy")
    figure.suptitle(f"points: seeds; diamond and bar: {band_caption(groups)}", fontsize="small")
    return figure


def sensitivity(groups: dict[str, list[Result]], mode: str, key: str, step: str) -> Figure:
    """
    :return: The return at the step of comparison over a hyperparameter, whose values may be of any type: one line for each
        combination of the others.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    plot = figure.subplots()
    lines: dict[str, list[list[Result]]] = {}
    for group in groups.values():
        run = group[0].run
        others = {name: value for name, value in run.varied.items() if name != key}
        lines.setdefault(group_name(run.algorithm, others), []).append(group)
    values = [group[0].run.varied[key] for line in lines.values() for group in line]
    texts = list(dict.fromkeys(map(json.dumps, values)))
    are_numbers = all(type(value) in (int, float) and abs(value) < float("inf") for value in values)
    for name, number in style_numbers(lines).items():
        line = lines[name]
        points = [group[0].run.varied[key] for group in line]
        x = np.array(points if are_numbers else [texts.index(json.dumps(value)) for value in points], float)
        finals = [[result.final(mode) for result in group] for group in line]
        for at, final in zip(x, finals, strict=True):
            plot.scatter([at] * len(final), final, s=8, color=line_style(number)["color"], alpha=0.5)
        order = np.argsort(x)
        bands = np.array([band(np.array(final)) for final in finals])[order].T
        draw_band(plot, x[order], tuple(bands), number, marker=MARKERS[number % len(MARKERS)], label=plot_text(name))
    if are_numbers and min(values) > 0 and max(values) >= 10 * min(values):
        plot.set_xscale("log")
    if not are_numbers:
        plot.set_xticks(range(len(texts)), [plot_text(text, 80 // len(texts) + 4) for text in texts], fontsize="small")
    plot.set_xlabel(plot_text(key))
    plot.set_ylabel(f"return at step {step}, {mode} policy")
    plot.legend(fontsize="small")
    return figure


def return_against_strength(panels: dict[str, tuple[str, tuple[float, ...], dict[str, np.ndarray]]]) -> Figure:
    """
    :param panels: By perturbation: unit of the strength, strengths, and by algorithm the returns ``[runs, strengths]``.
    :return: A panel for each perturbation with every run, and the interquartile mean of each algorithm with its band.
    """
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns + 0.6, 2.7 * rows + 0.9), layout="constrained")
    plots = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for plot in plots.flat[len(panels) :]:
        plot.set_visible(False)
    numbers = style_numbers(dict.fromkeys(name for _, _, algorithms in panels.values() for name in algorithms))
    for (name, (unit, strengths, algorithms)), plot in zip(panels.items(), plots.flat, strict=False):
        for algorithm, returns in algorithms.items():
            number = numbers[algorithm]
            plot.plot(strengths, returns.T, color=line_style(number)["color"], linewidth=0.5, alpha=0.4)
            style = {"linewidth": 1.8, "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
            draw_band(plot, strengths, band(returns), number, label=plot_text(f"{algorithm} (n = {len(returns)})"), **style)
        plot.set_title(plot_text(name.replace("_", " ")), fontsize="small")
        plot.set_xlabel("\n".join(textwrap.wrap(unit, 36)), fontsize="x-small")
        plot.tick_params(labelsize="x-small")
    figure.supylabel("return, deterministic policy", fontsize="medium")
    handles, labels = plots.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)), fontsize="small")
    return figure


def save(figure: Figure, path: Path) -> str:
    """Write a figure as PNG and SVG to a path without extension, and return the SVG for a page."""
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "path"}):
        dpi = min(110, MAX_PIXELS / max(figure.get_size_inches()))
        figure.savefig(path.with_name(f"{path.name}.png"), dpi=dpi)
        figure.set_layout_engine("none")  # keep this layout: computing it takes most of the time
        figure.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None})
    svg = path.with_name(f"{path.name}.svg").read_text(encoding="utf-8")
    return svg[svg.index("<svg") :]
