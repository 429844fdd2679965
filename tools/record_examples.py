"""
Run the examples and keep what they print and draw: ``docs/examples/NAME.py`` becomes ``docs/examples/NAME.ipynb``.

    make examples                                     # all that have changed
    .venv/bin/python tools/record_examples.py NAME    # these, changed or not

The site shows the notebooks (docs/notebooks.py). Needs jupytext, nbclient and ipykernel, which ``make examples`` installs.
"""

import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def record(script: Path) -> None:
    notebook = jupytext.read(script)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook.cells.append(nbformat.v4.new_code_cell("import os; print(sum(os.times()[:4]))"))
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    # Of this process and its children: what it takes on one core that does nothing else
    notebook.metadata["seconds"] = round(float(notebook.cells.pop().outputs[0].text))
    del notebook.metadata["language_info"]
    for number, cell in enumerate(notebook.cells):
        cell.id = str(number)
        if cell.cell_type == "code":  # without progress bars and values that nobody reads
            cell.outputs = [output for output in cell.outputs if is_shown(output)]
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def is_shown(output: nbformat.NotebookNode) -> bool:
    return output.get("name") == "stdout" or "image/png" in output.get("data", {})


def changed(script: Path) -> bool:
    notebook = script.with_suffix(".ipynb")
    return not notebook.exists() or sources(jupytext.read(script)) != sources(jupytext.read(notebook))


def sources(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells]


if __name__ == "__main__":
    named = [EXAMPLES / f"{name}.py" for name in sys.argv[1:]]
    for script in named or filter(changed, sorted(EXAMPLES.glob("*.py"))):
        print(script.name)
        record(script)
