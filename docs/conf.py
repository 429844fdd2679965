"""Configuration of the documentation site."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import equation_table  # noqa: E402

import sb3_softac  # noqa: E402

project = "sb3_softac"
author = copyright = "sb3_softac contributors"
release = version = sb3_softac.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
html_theme = "sphinx_rtd_theme"
html_static_path = ["_static"]


def write_equation_table(_app: object) -> None:
    (DOCS / "_build").mkdir(exist_ok=True)
    (DOCS / "_build" / "equation_table.md").write_text(equation_table.as_markdown())


def setup(app: object) -> None:
    app.connect("builder-inited", write_equation_table)  # type: ignore[attr-defined]
