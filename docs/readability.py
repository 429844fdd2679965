"""What the site adds to its pages: numbers at the right of their columns, and plots for a dark ground."""

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

NUMBER = re.compile(r"[-−]?\d[\d.,]*( ?%)?( ?\(?[-−±]?\d[\d.,]*(( (to|and) |-)[-−]?\d[\d.,]*)?\)?)?")
EMPTY = {"", "-", "–"}
DARK = {"#000000": "#dddddd", "#ffffff": "none", "<style": "<style>svg {fill: #dddddd}</style><style"}
"""What replaces black, which is also the colour of what has none, and white on a dark ground."""


def align_numbers(_app: Sphinx, doctree: nodes.document) -> None:
    """Mark the columns of tables that hold nothing but numbers."""
    for group in doctree.findall(nodes.tgroup):
        rows = [list(row.findall(nodes.entry)) for row in group.findall(nodes.row)]
        body = [list(row.findall(nodes.entry)) for part in group.findall(nodes.tbody) for row in part.findall(nodes.row)]
        for number, column in enumerate(zip(*body, strict=False)):
            texts = {cell.astext().strip() for cell in column} - EMPTY
            if texts and all(map(NUMBER.fullmatch, texts)):
                for row in rows:
                    row[number]["classes"].append("number")


def add_dark_plots(app: Sphinx, doctree: nodes.document) -> None:
    """Show a plot that is there as SVG, too, as two SVGs: one for a light ground, and one for a dark one."""
    page = Path(app.env.doc2path(app.env.docname)).parent
    dark_plots = Path(app.srcdir, "_build", "dark")
    for image in list(doctree.findall(nodes.image)):
        plot = (page / image["uri"]).with_suffix(".svg")
        if "://" in image["uri"] or not plot.exists():
            continue
        dark = dark_plots / plot.parent.name / plot.name
        dark.parent.mkdir(parents=True, exist_ok=True)
        svg = re.sub("|".join(DARK), lambda found: DARK[found[0]], plot.read_text(encoding="utf-8"))
        dark.write_text(svg, encoding="utf-8")
        twin = image.deepcopy()
        for node, file, ground in ((image, plot, "light"), (twin, dark, "dark")):
            node["uri"] = os.path.relpath(file, page)
            node["classes"].append(f"only-{ground}")
        image.parent.insert(image.parent.index(image) + 1, twin)


def setup(app: Sphinx) -> None:
    # Before Sphinx collects the pictures
    app.connect("doctree-read", align_numbers, priority=100)
    app.connect("doctree-read", add_dark_plots, priority=100)
