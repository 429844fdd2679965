"""The build: what is shipped, what happens without a compiler, and that Python and C have the same structures in mind."""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from sb3_softac.engines.native import library

ROOT = Path(__file__).parents[3]
CSRC = ROOT / "sb3_softac" / "engines" / "native" / "csrc"
STRUCTURES = [library.Layer, library.Network, library.Slot, library.Optimizer, library.Step]
STRUCTURES += [library.SoftACStep, library.DiscreteStep]
COMPILER = shutil.which("gcc") or shutil.which("cc")
TRAIN = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable__")]
import gymnasium as gym
import sb3_softac
from sb3_softac import DiscreteSAC, SoftAC_v1

assert sb3_softac.__file__.startswith(sys.argv[1]), sb3_softac.__file__
for algorithm, env in ((SoftAC_v1, "Pendulum-v1"), (DiscreteSAC, "CartPole-v1")):
    settings = dict(learning_starts=3, batch_size=2, buffer_size=20, policy_kwargs=dict(net_arch=[2]), device="cpu", verbose=1)
    assert algorithm("MlpPolicy", gym.make(env), **settings).learn(9)._n_updates == 6
"""


def call(*command, cwd, **environment):
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    return result.stdout


def train_in(folder):
    """:return: What the models say of their way, in a copy of the package."""
    text = call(sys.executable, "-W", "error", "-c", TRAIN, folder, cwd=folder, PYTHONPATH=str(folder), SB3_SOFTAC_FAST="1")
    return [line for line in text.splitlines() if line.startswith("Gradient steps run in")]


@pytest.fixture
def source(tmp_path):
    """What the build reads, without libraries."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "sb3_softac", tmp_path / "sb3_softac", ignore=ignored)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "_build_hooks.py", "_sb3_softac_autoload.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_compiler_that_fails(source):
    command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    call(*command, cwd=source, CC="/bin/false", PYTHONPATH="")
    folder = source / "sb3_softac" / "engines" / "native"
    assert not list(folder.glob("*.so"))
    if library.builds():
        assert all("the C library was not built: install a C compiler" in way for way in train_in(source))


@pytest.mark.skipif(not library.builds(), reason="there is no build for this processor")
@pytest.mark.parametrize("kind", ["no library", "of other sources"])
def test_libraries_that_cannot_be_used(tmp_path, monkeypatch, kind):
    path = tmp_path / f"_step_{library.builds()[0]}.so"
    if kind == "no library":
        path.write_bytes(b"no library")
    elif COMPILER is None:
        pytest.skip("there is no C compiler")
    else:
        (tmp_path / "other.c").write_text("long long softac_v1_size = 8, discretesac_size = 8;\n")
        call(COMPILER, "-shared", "-fPIC", "-o", path, "other.c", cwd=tmp_path)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    loaded, reason = library.load.__wrapped__()
    assert loaded is None and reason.startswith("the C library cannot be used: ")
    assert ("built from different sources" in reason) == (kind == "of other sources")


@pytest.mark.skipif(len(library.builds()) < 2, reason="there is one build for this processor, or none")
def test_the_next_best_library_is_used(tmp_path, monkeypatch):
    broken, whole = (f"_step_{name}.so" for name in library.builds())
    if not (library.FOLDER / whole).exists():
        pytest.skip("the library was not built")
    (tmp_path / broken).write_bytes(b"no library")
    shutil.copy(library.FOLDER / whole, tmp_path)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    loaded, reason = library.load.__wrapped__()
    assert loaded is not None and reason == ""


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_structures_are_those_of_c(tmp_path):
    lines = [
        "#include <stdio.h>",
        "#include <stddef.h>",
        '#include "softac_v1.h"',
        '#include "discretesac.h"',
        "int main(void) {",
    ]
    expected = []
    for structure in STRUCTURES:
        name = structure.__name__
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        expected.append(f"{name} {ctypes.sizeof(structure)}")
        for field, _ in structure._fields_:
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name}*)0)->{field}));')
            expected.append(f"{name}.{field} {getattr(structure, field).offset} {getattr(structure, field).size}")
    (tmp_path / "layout.c").write_text("\n".join([*lines, "return 0;", "}"]))
    call(COMPILER, "-I", CSRC, "layout.c", "-o", "layout", cwd=tmp_path)
    assert call(tmp_path / "layout", cwd=tmp_path).splitlines() == expected


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_sources_compile_without_warnings(tmp_path, monkeypatch):
    flags = [flag for flag in extensions(monkeypatch)[0].extra_compile_args if not flag.startswith("-m")]
    call(COMPILER, *flags, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *sorted(CSRC.glob("*.c")), cwd=tmp_path)


def extensions(monkeypatch, machine=None):
    """What setup.py hands over."""
    found = {}
    with monkeypatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **kwargs: found.update(kwargs))
        patch.chdir(ROOT)
        if machine:
            patch.setattr("platform.machine", lambda: machine)
        spec = importlib.util.spec_from_file_location("setup_of_sb3_softac", ROOT / "setup.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return found["ext_modules"]


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("x86_64", {"avx2", "avx512"}),
        ("AMD64", {"avx2", "avx512"}),
        ("arm64", {"neon"}),
        ("aarch64", {"neon"}),
        ("riscv64", set()),
    ],
)
def test_what_is_shipped(monkeypatch, machine, names):
    modules = extensions(monkeypatch, machine)
    assert {module.name for module in modules} == {f"sb3_softac.engines.native._step_{name}" for name in names}
    for module in modules:
        assert module.optional and {Path(path).name for path in module.sources} == {path.name for path in CSRC.glob("*.c")}
        flags = " ".join(module.extra_compile_args)
        assert "native" not in flags and "-ffast-math" not in flags and "-Ofast" not in flags
        assert ("-mavx512f" in flags) == module.name.endswith("avx512")


@pytest.mark.parametrize(
    ("machine", "capability", "expected"),
    [
        ("x86_64", "AVX512", ("avx512", "avx2")),
        ("x86_64", "AVX2", ("avx2",)),
        ("x86_64", "DEFAULT", ()),
        ("arm64", "DEFAULT", ("neon",)),
        ("aarch64", "DEFAULT", ("neon",)),
    ],
)
def test_what_a_processor_can_run(monkeypatch, machine, capability, expected):
    monkeypatch.setattr(library.platform, "machine", lambda: machine)
    monkeypatch.setattr(library.th.backends.cpu, "get_cpu_capability", lambda: capability)
    assert library.builds() == expected


def test_builds_are_those_of_setup(monkeypatch):
    built = {
        name for machine in ("x86_64", "arm64") for name in re.findall(r"_step_(\w+)", str(extensions(monkeypatch, machine)))
    }
    known = {name for names in library.BUILDS.values() for name in names} | {"neon"}
    assert built == known
