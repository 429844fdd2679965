"""
Measures of the package: lines, classes, imports and names, as ``tests/test_architecture.py`` reads them.

``python tools/house.py`` prints them for the checkout that it lies in, ``python tools/house.py FOLDER`` for another one.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What SB3 calls or offers under a name with an underscore belongs to no room of ours; that file lists what we use
METHODS_OF_SB3 = set(re.findall(r"\b_[a-z]\w*", (ROOT / "tests/test_sb3_internals.py").read_text()))
# ``_update`` is what an algorithm consists of; engines call it
COMMON = {"_update"}


def lines(folder: Path) -> int:
    """:return: Number of lines of Python."""
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def docstring_lines(folder: Path) -> int:
    """:return: Lines of docstrings, those of attributes included."""
    number = 0
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and type(node.value.value) is str:
                number += (node.end_lineno or node.lineno) - node.lineno + 1
    return number


def is_module(root: Path, name: str) -> bool:
    """:return: Whether a dotted name is that of a module or package below the root."""
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported_modules(root: Path, path: Path) -> set[str]:
    """:return: Modules of the package that a file imports, anywhere and also by a string, without the package's name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}, imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"sb3_softac(\.\w+)+", node.value):
            names |= {node.value} if is_module(root, node.value) else set()
    return {name.removeprefix("sb3_softac.") for name in names if name.startswith("sb3_softac.")}


def room_of(package: Path, path: Path) -> str:
    """:return: The folder of a file, or a file's own name; engines are rooms, and so are programs, which nothing imports."""
    place = path.relative_to(package).with_suffix("").parts
    if place[-1] == "__main__":
        return ".".join(place)
    return ".".join(place[:2]) if place[0] == "engines" and len(place) > 2 else place[0]


def rooms(root: Path) -> dict[str, set[str]]:
    """:return: By room: the rooms that it imports."""
    package, found = root / "sb3_softac", {}
    for path in package.rglob("*.py"):
        room = room_of(package, path)
        for name in imported_modules(root, path):
            parts = name.split(".")
            if not is_module(package, parts[0]):
                continue
            is_engine = parts[0] == "engines" and len(parts) > 1 and is_module(package, ".".join(parts[:2]))
            other = ".".join(parts[:2]) if is_engine else parts[0]
            found.setdefault(room, set()).update({other} - {room})
    return found


def circles(root: Path) -> list[list[str]]:
    """:return: Groups of rooms that import one another, directly or through others."""
    reach = {room: set(others) for room, others in rooms(root).items()}
    for _ in reach:
        for room in reach:
            reach[room] |= {far for near in reach[room] for far in reach.get(near, set())}
    groups = {frozenset({other for other in reach[room] if room in reach.get(other, set())}) for room in reach}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def private_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """:return: Names with one underscore that are read of other objects than ``self`` and ``cls``, with the expression."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls") and not owner.startswith("super("):
                yield node.attr, ast.unparse(node)


def foreign_private_names(root: Path) -> list[str]:
    """:return: Private names of one room that another one uses."""
    package = root / "sb3_softac"
    defined: dict[str, set[str]] = {}
    uses = []
    for path in package.rglob("*.py"):
        tree, room = ast.parse(path.read_text()), room_of(package, path)
        own = defined.setdefault(room, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
        uses += [(room, path, name, text) for name, text in private_names(tree)]
    allowed = METHODS_OF_SB3 | COMMON
    everything = set().union(*defined.values())
    return [
        f"{path.relative_to(package)}: {text}"
        for room, path, name, text in uses
        if name in everything and name not in defined[room] | allowed
    ]


def doubled_names(root: Path) -> list[str]:
    """
    :return: Names that two files, or two classes, have. Files of equations are called as what they are used for, and each
        algorithm has its ``policies.py`` with SB3's names, as in SB3.
    """
    package = root / "sb3_softac"
    of_all = ("__init__", "__main__", "policies")
    paths = [path for path in package.rglob("*.py") if path.stem not in of_all and path.parent.name != "equations"]
    files = Counter(path.stem for path in paths)
    classes = Counter(
        node.name for path in paths for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    )
    return sorted(name for counter in (files, classes) for name, number in counter.items() if number > 1)


def our_bases(root: Path) -> dict[str, list[str]]:
    """:return: By algorithm, policy and network: the classes of the package in its MRO."""
    sys.path.insert(0, str(root))
    import torch as th
    from stable_baselines3.common.base_class import BaseAlgorithm

    import sb3_softac

    kinds = {value for value in vars(sb3_softac).values() if isinstance(value, type) and issubclass(value, BaseAlgorithm)}
    for kind in list(kinds):
        kinds |= set(kind.policy_aliases.values())
    for module in [module for name, module in sys.modules.items() if name.startswith("sb3_softac.")]:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, th.nn.Module) and value.__module__.startswith("sb3_softac."):
                kinds.add(value)
    found = {f"{kind.__module__}.{kind.__name__}": kind.__mro__ for kind in kinds}
    return {name: [each.__name__ for each in mro if each.__module__.startswith("sb3_softac.")] for name, mro in found.items()}


def main(root: Path) -> None:
    package = root / "sb3_softac"
    total, docs = lines(package), docstring_lines(package)
    in_c = sum(len(path.read_text().splitlines()) for path in package.rglob("*.[ch]"))
    print(f"package: {total} lines of Python, {total - docs} without docstrings, {in_c} of C; tests: {lines(root / 'tests')}")
    files = Counter(room_of(package, path) for path in package.rglob("*.py"))
    print("files per room:", ", ".join(f"{room} {number}" for room, number in sorted(files.items())))
    print("circles of rooms:", circles(root) or "none")
    print("private names of other rooms:", foreign_private_names(root) or "none")
    print("names used twice:", ", ".join(doubled_names(root)) or "none")
    table = (root / "docs/decisions/index.md").read_text().partition("## What is replaced in other libraries")[2]
    patches = re.findall(r"^\| `[\w.:]+` \|", table.partition("\n## ")[0], re.MULTILINE)
    print("replacements in other libraries:", len(patches))
    for name, mro in sorted(our_bases(root).items(), key=lambda item: -len(item[1])):
        if len(mro) > 1:
            print(f"  {len(mro)} classes: {' < '.join(mro)}  ({name.rpartition('.')[0]})")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
