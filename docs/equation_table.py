"""Which equation of which paper is which function, and which test holds it: read off the code, for the docs and the tests."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import sb3_softac.equations

TESTS = Path(__file__).parent.parent / "tests" / "equations"
KINDS = r"Eq\. [\w, ().]+?|Table [\w ().]+?|Algorithm \d+ \([\w -]+\)|Theorem \d+|Lemma \d+"
TAG = re.compile(rf"^(?:(?:{KINDS}), arXiv:\d{{4}}\.\d{{5}}v\d|This package's)")


def equations() -> dict[str, tuple[str, str]]:
    """:return: ``module.function -> (tag, summary)`` of the functions in ``sb3_softac.equations``; a missing tag is empty."""
    table = {}
    for info in pkgutil.iter_modules(sb3_softac.equations.__path__):
        module = importlib.import_module(f"sb3_softac.equations.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or info.name == "shapes":
                continue
            first_line = (inspect.getdoc(function) or "").splitlines()[0]
            tag = TAG.match(first_line)
            table[f"{info.name}.{name}"] = (tag.group() if tag else "", first_line)
    return table


def tests_of(function: str) -> list[str]:
    """:return: Names of the tests in the file that mirrors the module, which call the function."""
    module, name = function.split(".")
    path = TESTS / f"test_{module}.py"
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module(body=[], type_ignores=[])
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and any(isinstance(child, ast.Name) and child.id == name for child in ast.walk(node))
    ]


def as_markdown() -> str:
    """:return: The table of the docs."""
    lines = ["| equation | function | tests |", "|---|---|---|"]
    for function, (tag, _) in equations().items():
        tests = "; ".join(name.removeprefix("test_").replace("_", " ") for name in tests_of(function))
        lines.append(f"| {tag} | {{py:func}}`{function} <sb3_softac.equations.{function}>` | {tests} |")
    return "\n".join(lines) + "\n"
