"""The rules of the layout, read off the code."""

import ast
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
house = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "house.py")))
PACKAGE = ROOT / "sb3_softac"
ALGORITHMS = {"softac_v1", "discretesac", "sql", "discretesql"}
# What each room may import from the package; the files outside of the rooms and zoo may import anything but the rooms that may
# be removed and zoo.
GROUND = {"checks", "files"}
MAY_IMPORT = {
    "checks": set(),
    "files": set(),
    "equations": set(),
    "tabular": set(),
    "envs": set(),
    "nets": {"equations"},
    "replay": set(),
    "entropy": {"equations"},
    "algorithm": {"equations", "nets", "replay", "entropy"},
    "discrete": {"equations", "nets", "replay", "entropy", "algorithm"},
    "engines": {"equations", "nets", "replay", "entropy", "algorithm", "discrete", "softac_v1", "discretesac"},
    "resume": {"algorithm", "replay"},
    "export": {"algorithm"},
    "study": {"zoo", "resume", "robustness"},
    "robustness": {"envs"},
    "conformance": {"tabular"},
    **{algorithm: {"algorithm", "replay", "entropy", "nets", "equations"} for algorithm in ALGORITHMS},
}
MAY_IMPORT["sql"].add("envs")  # draws pictures of MultiGoal
for discrete in ("discretesac", "discretesql"):
    MAY_IMPORT[discrete].add("discrete")
# Each may be deleted: nothing but the folder itself imports it
ENGINES = {path.parent.name for path in PACKAGE.glob("engines/*/__init__.py")}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    place = path.relative_to(PACKAGE).with_suffix("").parts
    imported = house.imported_modules(ROOT, path)
    rooms = {name.split(".")[0] for name in imported} & {each.stem for each in PACKAGE.iterdir()} - {place[0]}
    if place[0] not in ("zoo", "study"):
        assert not rooms & {"zoo", "study"}
    if place[0] in MAY_IMPORT:
        assert rooms <= MAY_IMPORT[place[0]] | (GROUND if place[0] not in GROUND else {"files"} - {place[0]})
    engines = {name.split(".")[1] for name in imported if name.startswith("engines.")} & ENGINES
    assert engines <= {place[1] if place[0] == "engines" else ""}
    assert not any(name.endswith("__main__") for name in imported)


def test_no_circle_and_no_foreign_private_name():
    assert house.circles(ROOT) == []
    assert house.foreign_private_names(ROOT) == []


FAULTS = {
    "a circle": ("nets/circle.py", "def later():\n    from sb3_softac.replay import batch\n"),
    "a circle by a string": ("nets/circle.py", "import importlib\nimportlib.import_module('sb3_softac.replay.batch')\n"),
    "a private name": ("replay/private.py", "def shown(model):\n    return model._choose_engine\n"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_they_are_found(name, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "sb3_softac", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    file, text = FAULTS[name]
    (tmp_path / "sb3_softac" / file).write_text(text)
    (tmp_path / "sb3_softac" / "replay" / "other.py").write_text("from sb3_softac.nets import base\n")
    found = house.circles(tmp_path) if "circle" in name else house.foreign_private_names(tmp_path)
    assert found == ([["nets", "replay"]] if "circle" in name else ["replay/private.py: model._choose_engine"])


def test_classes_are_few():
    """At most three of ours in the MRO of an algorithm, two in that of a policy or a network."""
    for name, mro in house.our_bases(ROOT).items():
        assert len(mro) <= (3 if mro[-1] == "SoftOffPolicyAlgorithm" else 2), (name, mro)


def test_rooms_of_the_arrows_exist():
    assert MAY_IMPORT.keys() | {"zoo"} == {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"checks"}


TRAIN = """
import sys

# An editable installation would find the room where it was copied from
sys.meta_path = [finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable__")]

import gymnasium as gym
import sb3_softac
from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1

assert sb3_softac.__file__.startswith({folder!r}), sb3_softac.__file__


def make(algorithm, **kwargs):
    env = gym.make("CartPole-v1" if algorithm in (DiscreteSAC, DiscreteSQL) else "Pendulum-v1")
    settings = dict(learning_starts=3, batch_size=2, buffer_size=20, policy_kwargs=dict(net_arch=[2]), device="cpu")
    return algorithm("MlpPolicy", env, **settings, **kwargs)


for algorithm in (SoftAC_v1, DiscreteSAC, SQL, DiscreteSQL):
    assert make(algorithm).learn(6)._n_updates == 3
    try:
        make(algorithm, cuda_graphs=True)
    except ImportError as error:
        print(error)
"""


@pytest.mark.parametrize(
    "left",
    [set(), *(pytest.param({name}, marks=pytest.mark.slow) for name in sorted(ENGINES))],
    ids=lambda left: " ".join(left) or "none",
)
def test_engines_can_be_deleted(left, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "sb3_softac", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ENGINES - left:
        shutil.rmtree(tmp_path / "sb3_softac" / "engines" / name)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN.format(folder=str(tmp_path))]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    reason = "cuda_graphs=True needs sb3_softac.engines.cuda_graphs, which is not installed"
    assert result.stdout.splitlines() == ([] if "cuda_graphs" in left else [reason] * len(ALGORITHMS))


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
