"""A page on which to change the temperature and discount of a finite MDP, and to see its exact policy at once."""

import json
import math
from html import escape
from pathlib import Path

import numpy as np

from sb3_softac.checks import integer, read
from sb3_softac.tabular.mdp import TabularMDP

HERE = Path(__file__).parent
MAX_ENTRIES = 200_000
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 0 auto; padding: 0 1rem; }}
{style}</style>
<h1>{title}</h1>
<div class="playground">Turn JavaScript on: this page computes in the browser.</div>
<script>
{script}
Playground.tables = {tables};
</script>
</html>
"""


def write_playground(mdp: TabularMDP, path: str | Path, title: str = "Playground", columns: int | None = None) -> None:
    """
    Write one HTML file that needs no server and no network: soft values as colours, the policy as arrows, sampled paths, and
    the return and entropy over the temperature.

    The states are cells of a grid, from the top left on. An action is drawn in the direction in which it mostly moves, or, if
    these directions do not tell the actions apart, as one of several spokes.

    :param mdp: The MDP.
    :param path: The file; replaced if it exists.
    :param title: Title of the page.
    :param columns: Cells per row; by default about the square root of the number of states.
    :raises ValueError: if the MDP is too large for a page, its discount is none that the page can show, or ``columns`` is no
        integer of at least 1.
    """
    columns = math.ceil(math.sqrt(mdp.n_states)) if columns is None else read("columns", columns, integer(1))
    if not 0.5 <= mdp.discount <= 0.99 or not math.isclose(mdp.discount, round(mdp.discount, 2)):
        raise ValueError(
            f"the page has discounts from 0.5 to 0.99 in steps of 0.01, not {mdp.discount}: give the MDP one of them"
        )
    entries = mdp.transitions.nnz + mdp.rewards.size
    if entries > MAX_ENTRIES:
        raise ValueError(
            f"the MDP has {entries} transitions and rewards, more than the {MAX_ENTRIES} that a page can solve at once"
        )
    scale = max(float(np.abs(mdp.rewards).max()), 1e-3)
    tables = {
        "name": title,
        "about": f"{mdp.n_states} states, {mdp.n_actions} actions.",
        "columns": columns,
        "directions": directions(mdp, columns).tolist(),
        "temperature": [float(f"{factor * scale:.2g}") for factor in (1e-3, 10, 0.1)],
        "discount": mdp.discount,
        "nStates": mdp.n_states,
        "nActions": mdp.n_actions,
        "terminal": mdp.terminal.astype(int).tolist(),
        "initial": mdp.initial.tolist(),
        "rewards": mdp.rewards.ravel().tolist(),
        "starts": mdp.transitions.indptr.tolist(),
        "targets": mdp.transitions.indices.tolist(),
        "probabilities": mdp.transitions.data.tolist(),
    }
    page = PAGE.format(
        title=escape(title),
        style=(HERE / "playground.css").read_text(encoding="utf-8"),
        script=(HERE / "playground.js").read_text(encoding="utf-8"),
        tables=json.dumps(tables).replace("<", "\\u003c"),
    )
    Path(path).write_text(page, encoding="utf-8")


def directions(mdp: TabularMDP, columns: int) -> np.ndarray:
    """
    :return: For each action the side to which it mostly moves, of the four on the grid; if these do not tell the actions
        apart, spokes at equal angles ``[n_actions, 2]``.
    """
    table = mdp.transitions.tocoo()
    states, actions = np.divmod(table.row, mdp.n_actions)
    moves = np.stack([table.col % columns - states % columns, table.col // columns - states // columns], axis=1)
    counted = (np.abs(moves).sum(axis=1) == 1) & ~mdp.terminal[table.col]
    drift = np.zeros((mdp.n_actions, 2))
    np.add.at(drift, actions[counted], table.data[counted, None] * moves[counted])
    sides = np.where(np.abs(drift) == np.abs(drift).max(axis=1, keepdims=True), np.sign(drift), 0.0)
    if (np.abs(sides).sum(axis=1) == 1).all() and len(np.unique(sides, axis=0)) == mdp.n_actions:
        return sides
    angles = 2 * np.pi * np.arange(mdp.n_actions) / mdp.n_actions
    return np.round(np.stack([np.cos(angles), np.sin(angles)], axis=1), 3)
