"""What is replaced in other libraries, and when: the table of docs/decisions has all of it."""

import ast
import json
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
TREES = {path: ast.parse(path.read_text()) for path in (*PACKAGE.rglob("*.py"), ROOT / "_sb3_softac_autoload.py")}
USERS_OWN = {"os.environ", "sys.path", "sys.argv", "sys.modules"}  # are there to be changed
IMPORTS = ("import_module", "resolve_name", "__import__")


def root(node):
    """:return: The name that an expression starts with: ``a`` of ``a.b[0].c``, ``type(a).b`` and ``vars(a)``."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in IMPORTS:
                return name
            node = node.args[0] if name in ("type", "vars", "getattr") else node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return None
    return node.id


def foreign_names(tree):
    """:return: Names in a file that are modules, classes or functions of others."""
    names = {*IMPORTS, "builtins"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("sb3_softac", "_sb3_softac")):
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Assign) and root(node.value) in IMPORTS:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names - {"sb3_softac"}


def replaced(tree):
    """:return: Objects of others whose attributes or entries a file sets or deletes."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete | ast.For | ast.With):
            targets = [part for part in ast.walk(node) if isinstance(getattr(part, "ctx", None), ast.Store | ast.Del)]
            found += [part.value for part in targets if isinstance(part, ast.Attribute | ast.Subscript)]
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
                found.append(node.args[0])
            elif re.search(r"(__dict__|vars\(.*\))\.(update|setdefault|pop)$", ast.unparse(node.func)):
                found.append(node.func)
    return {ast.unparse(node) for node in found if root(node) in foreign_names(tree)} - USERS_OWN


@pytest.mark.parametrize(
    "code",
    [
        *("yaml.Loader = x", "yaml.a.b, y = x", "del yaml.Loader", "yaml.table['x'] = y", "yaml.n += 1", "yaml.x: int = 3"),
        *("setattr(yaml, 'x', y)", "delattr(yaml.a, 'x')", "yaml.__dict__['x'] = y", "vars(yaml)['x'] = y"),
        *("yaml.__dict__.update(x=y)", "vars(yaml).update(x=y)", "type(yaml.x).y = z", "for yaml.x in y: pass"),
        *("from yaml import Loader\nLoader.x = y", "module = import_module('os')\nmodule.x = y"),
        *("resolve_name('os:path').x = y", "from yaml import Loader as L\ndef f():\n    L.x = y"),
    ],
)
def test_replacements_are_found(code):
    assert replaced(ast.parse(f"import yaml\n{code}"))


@pytest.mark.parametrize(
    "code", ["own.x = yaml.y", "self.x[yaml.y] = z", "setattr(own, 'x', y)", "os.environ['x'] = yaml.y", "table = yaml.x"]
)
def test_changes_of_our_own_objects_are_not_meant(code):
    assert not replaced(ast.parse(f"import os, yaml\n{code}"))


def test_nothing_is_replaced_outside_of_the_one_place():
    assert {path.name: names for path, tree in TREES.items() if (names := replaced(tree))} == {}


def documented():
    text = (ROOT / "docs/decisions/index.md").read_text().partition("## What is replaced in other libraries")[2]
    return set(re.findall(r"^\| `([\w.:]+)` \|", text.partition("\n## ")[0], re.MULTILINE))


def test_the_list_is_complete():
    calls = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    ours = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("wrap", "replace") and call.args]
    named = {ast.unparse(call.args[0]).strip("'") for call in ours} - {"target", "f'yaml:{loader}"}
    assert {*named, "yaml:UnsafeLoader"} == documented()


IN_THIS_PROCESS = """
import importlib, json, sys
import rl_zoo3
for name in "train utils exp_manager enjoy hyperparams_opt callbacks load_from_hub record_video".split():
    importlib.import_module(f"rl_zoo3.{name}")

def is_ours(value):
    try:
        value = getattr(value, "__func__", value)
        return "wrapped_by" in vars(value) or value.__module__.startswith("sb3_softac")
    except Exception:  # of objects that are imported when they are looked at
        return False

found = set()
for name, module in list(sys.modules.items()):
    if name.split(".")[0] in ("sb3_softac", "_sb3_softac_autoload") or type(module) is not type(sys):
        continue
    for key, value in list(vars(module).items()):
        found |= {f"{name}:{key}"} if is_ours(value) else set()
        if isinstance(value, type) and value.__module__ == name:
            found |= {f"{name}:{key}.{inner}" for inner, part in vars(value).items() if is_ours(part)}
print("FOUND", json.dumps(sorted(found)))
"""
ALWAYS = {
    *(f"rl_zoo3{module}:create_test_env" for module in ("", ".utils", ".enjoy", ".record_video")),
    *(f"rl_zoo3.exp_manager:ExperimentManager.{name}" for name in ("__init__", "create_envs")),
}
CHECKPOINTS = {f"rl_zoo3.exp_manager:ExperimentManager.{name}" for name in ("create_log_folder", "create_callbacks")}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, ALWAYS), pytest.param({"SB3_SOFTAC_CHECKPOINT_EVERY": "9"}, ALWAYS | CHECKPOINTS, marks=pytest.mark.slow)],
)
def test_a_bare_import_changes_what_the_list_says(variables, expected):
    command = [sys.executable, "-c", IN_THIS_PROCESS]
    output = subprocess.run(command, env={**ENVIRONMENT, **variables}, capture_output=True, text=True)
    assert set(json.loads(output.stdout.partition("FOUND")[2])) == expected, output.stderr


class Holder:
    def method(self, x):
        return x

    @staticmethod
    def static(x):
        return x


def double(original, *args):
    return 2 * original(*args)


def triple(original, *args):
    return 3 * original(*args)


def test_wrapping_happens_once_and_stacks(undo_patches):
    for name, call in (("method", lambda: Holder().method(1)), ("static", lambda: Holder().static(1))):
        for wrapper, expected in ((double, 2), (double, 2), (triple, 6), (double, 6)):
            wrap(f"{__name__}:Holder.{name}", wrapper)
            assert call() == expected


def test_modules_of_the_zoo_that_imported_a_function_follow(undo_patches, monkeypatch):
    import rl_zoo3.exp_manager

    monkeypatch.setattr(rl_zoo3.exp_manager, "linear_schedule", triple, raising=False)  # of somebody else
    replace("rl_zoo3.utils:linear_schedule", double)
    assert rl_zoo3.linear_schedule is rl_zoo3.utils.linear_schedule is double
    assert rl_zoo3.exp_manager.linear_schedule is triple
