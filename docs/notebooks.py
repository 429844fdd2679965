"""Recorded examples as pages of the site: Sphinx reads their notebooks, which ``tools/record_examples.py`` writes."""

import base64
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser

DOCS = Path(__file__).parent
EXAMPLES = DOCS / "examples"
PICTURES = DOCS / "_build" / "pictures"


def as_markdown(name: str, notebook: dict[str, Any]) -> str:
    """:return: The page of a notebook: its text, its code, and below that what the code printed and drew."""
    parts = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        outputs = cell.get("outputs", [])
        if printed := "".join("".join(output.get("text", [])) for output in outputs):
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for drawn in (output["data"]["image/png"] for output in outputs if "data" in output):
            PICTURES.mkdir(parents=True, exist_ok=True)
            (PICTURES / f"{name}_{number}.png").write_bytes(base64.b64decode(drawn))
            parts.append(f"```{{image}} /_build/pictures/{name}_{number}.png\n:alt: What the code above has drawn.\n```")
    title, *rest = parts
    about = f"{{download}}`Notebook <{name}.ipynb>` · {{download}}`script <{name}.py>` · about {seconds(notebook)} on one core"
    heading, _, text = title.partition("\n")
    return "\n\n".join([heading, about, text, *rest])


def seconds(notebook: dict[str, Any]) -> str:
    """:return: How long the example took, such as "40 seconds"."""
    took = notebook["metadata"]["seconds"]
    return f"{10 * max(1, round(took / 10))} seconds" if took < 95 else f"{round(took / 60)} minutes"


def read(name: str) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return notebook


class NotebookParser(MystParser):  # type: ignore[misc]
    """Reads ``.ipynb`` as the Markdown of its page."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        name = Path(document.settings.env.docname).name
        super().parse(as_markdown(name, json.loads(inputstring)), document)
