"""The rules of the layout, read off the code."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sb3_softac"
ALGORITHMS = {"softac_v1", "discretesac", "sql"}
# What each room may import from the package; rooms that are not named here may import anything but zoo.
MAY_IMPORT = {
    "equations": {"equations"},
    "nets": {"nets", "equations"},
    "common": {"common", "equations", "nets"},
    "tabular": {"tabular"},
    "checkpoint": {"checkpoint", "common"},
    **{algorithm: {algorithm, "common", "nets", "equations"} for algorithm in ALGORITHMS},
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [node.module or ""]
        rooms |= {name.split(".")[1] for name in names if name.startswith("sb3_softac.")}
    return rooms


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    room = path.relative_to(PACKAGE).parts[0]
    rooms = imported_rooms(path)
    if room != "zoo":
        assert "zoo" not in rooms
    if room in MAY_IMPORT:
        assert rooms <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", sorted((PACKAGE / "equations").glob("*.py")), ids=lambda path: path.stem)
def test_equations_are_pure(path):
    """Only torch and the standard library's math come in; no randomness and no modules."""
    tree = ast.parse(path.read_text())
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"math", "torch", "sb3_softac"}
    assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {attribute for attribute in attributes if attribute.startswith("rand")} | (attributes & {"item", "Module"})


def equation_table():
    spec = importlib.util.spec_from_file_location("equation_table", ROOT / "docs" / "equation_table.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_every_equation_has_a_tag_and_a_test():
    table = equation_table()
    assert len(table.equations()) >= 9
    for function, (tag, first_line) in table.equations().items():
        assert tag, f"{function} does not open with the tag of its equation: {first_line!r}"
        assert table.tests_of(function), f"{function} has no test in tests/equations"
