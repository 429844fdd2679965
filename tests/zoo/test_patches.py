"""What is replaced in other libraries, and when: the table of docs/decisions has all of it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sb3_softac
from sb3_softac.zoo.patches import replace, wrap
from tests.zoo.commands import ENVIRONMENT

PACKAGE = Path(sb3_softac.__file__).parent
ROOT = PACKAGE.parent
MODULES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "_sb3_softac_autoload.py"]


def documented():
    text = (ROOT / "docs/decisions/index.md").read_text().partition("## What is replaced in other libraries")[2]
    return set(re.findall(r"^\| `([\w.:]+)` \|", text.partition("\n## ")[0], re.MULTILINE))


def foreign_names(tree):
    """:return: Names in a file that are modules, classes or functions of others."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("sb3_softac"):
            names |= {alias.asname or alias.name for alias in node.names}
    return names - {"sb3_softac"}


def root(node):
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def changed_objects(tree):
    """:return: The objects whose attributes or entries a file sets or deletes."""
    for node in ast.walk(tree):
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
            parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
            yield from (part.value for part in parts if isinstance(part, ast.Attribute | ast.Subscript))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            yield node.args[0]


EXCEPT = {
    "os.environ",  # is there for it
    "sys.path",
    "sys.argv",
    "sys.modules",  # a configuration of the user's own
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_replaced_behind_the_back_of_the_list(path):
    tree = ast.parse(path.read_text())
    foreign = foreign_names(tree)
    found = {ast.unparse(node) for node in changed_objects(tree) if root(node) in foreign}
    found |= {
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("wrap", "replace")
        if "zoo" in path.parts and not isinstance(node.args[0], ast.Constant)
    }
    assert found - EXCEPT <= (
        {"f'yaml:{loader}'"} if path.name == "safe.py" else {"target"} if path.name == "patches.py" else set()
    )


def test_the_list_is_complete():
    calls = [node for path in MODULES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [
        node.args[0].value
        for node in calls
        if root(node.func) in ("wrap", "replace") and isinstance(node.args[0], ast.Constant)
    ]
    assert {*named, "yaml:UnsafeLoader"} == documented()


BARE = """
import importlib, json, pkgutil, sys
import rl_zoo3
for name in "train utils exp_manager enjoy hyperparams_opt callbacks load_from_hub record_video".split():
    importlib.import_module(f"rl_zoo3.{name}")
found = set()
for name, module in sorted(sys.modules.items()):
    if name.startswith("sb3_softac") or name.startswith("_sb3_softac") or not hasattr(module, "__dict__"):
        continue
    for key, value in list(vars(module).items()):
        holders = [(f"{name}:{key}", value)]
        if isinstance(value, type) and value.__module__ == name:
            holders += [(f"{name}:{key}.{inner}", getattr(part, "__func__", part)) for inner, part in vars(value).items()]
        for label, part in holders:
            try:
                own = hasattr(part, "wrapped_by") or getattr(part, "__module__", "").startswith("sb3_softac")
            except Exception:
                continue
            if own:
                found.add(label)
print("FOUND", json.dumps(sorted(found)))
"""
ALWAYS = {
    *(f"rl_zoo3{module}:create_test_env" for module in ("", ".utils", ".enjoy", ".record_video")),
    *(f"rl_zoo3.exp_manager:ExperimentManager.{name}" for name in ("__init__", "create_envs")),
}
CHECKPOINTS = {f"rl_zoo3.exp_manager:ExperimentManager.{name}" for name in ("create_log_folder", "create_callbacks")}


@pytest.mark.parametrize(
    ("variables", "expected"), [({}, ALWAYS), ({"SB3_SOFTAC_CHECKPOINT_EVERY": "9"}, ALWAYS | CHECKPOINTS)]
)
def test_a_bare_import_changes_what_the_list_says(variables, expected):
    command = [sys.executable, "-c", BARE]
    output = subprocess.run(command, env={**ENVIRONMENT, **variables}, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r'"([^"]+)"', output.partition("FOUND")[2])) == expected


class Holder:
    def method(self, x):
        return x

    @staticmethod
    def static(x):
        return x


def double(original, *args):
    return 2 * original(*args)


def other(original, *args):
    return 3 * original(*args)


def test_wrapping_happens_once_and_stacks(monkeypatch):
    for name, call in (("method", lambda: Holder().method(1)), ("static", lambda: Holder.static(1))):
        monkeypatch.setattr(Holder, name, vars(Holder)[name])  # restored afterwards
        for wrapper, expected in ((double, 2), (double, 2), (other, 6), (double, 6)):
            wrap(f"{__name__}:Holder.{name}", wrapper)
            assert call() == expected


def test_modules_of_the_zoo_that_imported_a_function_follow(monkeypatch):
    import rl_zoo3
    import rl_zoo3.utils

    for module in (rl_zoo3, rl_zoo3.utils):
        monkeypatch.setattr(module, "linear_schedule", rl_zoo3.utils.linear_schedule)
    replace("rl_zoo3.utils:linear_schedule", double)
    assert rl_zoo3.linear_schedule is rl_zoo3.utils.linear_schedule is double
