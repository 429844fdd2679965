"""Configuration of the documentation site."""

import importlib
import os
import sys
from importlib import resources
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import conformance_tables  # noqa: E402
import equation_table  # noqa: E402
import inventories  # noqa: E402
import learned_paths  # noqa: E402
import ledger  # noqa: E402
import notebooks  # noqa: E402
import readability  # noqa: E402
import study_reports  # noqa: E402

import sb3_softac  # noqa: E402

project = "sb3_softac"
author = copyright = "sb3_softac contributors"
release = version = sb3_softac.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# For those who add an algorithm: with its base class
autodoc_default_options = {"exclude-members": "arguments, own_policies, policy_base, trains, targets"}
intersphinx_mapping = inventories.write_inventories(DOCS / "inventories.txt", DOCS / "_build" / "inventories")
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"sb3_softac\..*\.Self\w+"),  # type variables
    # neither has a page in its own documentation
    ("py:class", r"stable_baselines3\.common\.(buffers|type_aliases)\.\w+"),
    ("py:class", r"sb3_contrib\..*"),
    # parts of the inside that arguments are made of
    (
        "py:class",
        r"sb3_softac\.(engines\.cuda_graphs\.capture\.Capturer|export\.policy\.Normalization|(checks\.Argument|replay\.observation_store\.ObservationStore))",
    ),
]

pygments_dark_style = "github-dark"  # furo's default underlines the names of modules, as if they were links
html_theme = "furo"
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}
HOME = f"https://github.com/{os.environ['GITHUB_REPOSITORY']}" if "GITHUB_REPOSITORY" in os.environ else ""  # in a workflow
if HOME:
    html_theme_options["footer_icons"] = [{"name": "Source code", "url": HOME, "html": "Source code", "class": ""}]
html_title = f"sb3_softac {version}"
html_logo = html_favicon = "_static/logo.svg"
html_copy_source = False
# One file that holds MathJax and its fonts, so that formulas need no network; "mathjax" is the package django-static-mathjax
PLAYGROUND = ["../sb3_softac/tabular/playground.js", "../sb3_softac/tabular/playground.css", "_build/learned_paths.js"]
html_static_path = ["_static", str(resources.files("mathjax") / "static" / "mathjax" / "es5" / "tex-svg.js"), *PLAYGROUND]
mathjax_path = "tex-svg.js"
html_extra_path = ["_build/extra"]  # reports of the studies

(DOCS / "_build" / "extra" / "studies").mkdir(parents=True, exist_ok=True)
(DOCS / "_build" / "learned_paths.js").write_text(learned_paths.as_script())
html_css_files = ["site.css"]


def write_tables(_app: object) -> None:
    (DOCS / "_build" / "equation_table.md").write_text(equation_table.as_markdown())
    (DOCS / "_build" / "ledger.md").write_text(ledger.as_markdown())
    (DOCS / "_build" / "results.md").write_text(ledger.at_a_glance())
    conformance_tables.write(DOCS / "_build")


def fill_in_address(_app: object, _page: str, source: list[str]) -> None:
    source[0] = source[0].replace("<address of this repository>", HOME or "<address of this repository>")


def write_reports(_app: object) -> None:
    study_reports.write_reports(DOCS / "_build" / "extra" / "studies")


def add_playground(app: object, _page: str, _template: str, context: dict[str, str], _doctree: object) -> None:
    """Pages with a playground load its script and style."""
    if 'class="playground' in context.get("body", ""):
        app.add_css_file("playground.css")  # type: ignore[attr-defined]
        for script in ("playground.js", "learned_paths.js"):
            app.add_js_file(script)  # type: ignore[attr-defined]


def module_of(_app: object, module: str, name: str) -> str | None:
    """Where the source of an object is. A member of a class is where the class is: Sphinx would link back to another name."""
    owner = getattr(importlib.import_module(module), name.partition(".")[0], None)
    return getattr(owner, "__module__", module)


def setup(app: Sphinx) -> None:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(notebooks.NotebookParser)
    readability.setup(app)
    app.connect("builder-inited", write_tables)
    app.connect("builder-inited", write_reports)
    app.connect("source-read", fill_in_address)
    app.connect("html-page-context", add_playground)
    app.connect("viewcode-follow-imported", module_of)
