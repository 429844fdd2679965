"""Wheel, sdist and editable install in throw-away environments: contents, start-up, and what they leave behind."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from sb3_softac.engines.native.library import builds

ROOT = Path(__file__).parents[2]
HOOK_FILES = {"sb3_softac.pth", "sb3_softac.start", "_sb3_softac_autoload.py"}
TRAIN = ("-m", "rl_zoo3.train", "--algo", "softac_v1", "--env", "Walker2d-v4")  # word for word as the README has it
TRAIN_HELP = "import runpy, sys; sys.argv = ['train', '--help']; runpy.run_module('rl_zoo3.train', run_name='__main__')"


def call(*command, cwd, expect=0, **environment):
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SB3_SOFTAC_NO_ZOO")}
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**clean, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True
    )
    assert result.returncode == expect, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout + result.stderr


def pip(python, *arguments, cwd):
    return call(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *arguments, cwd=cwd)


def install(python, what, cwd):
    pip(python, "install", "--no-deps", "--no-index", "--no-build-isolation", *what, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what git would hand out, so that no build output of the checkout can get in."""
    folder = tmp_path_factory.mktemp("source") / "sb3_softac"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", "logs", "_build", "results", ".*_cache", "*.so"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """The sdist, and the wheel built from it, as ``python -m build`` does; once, also where several processes test."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "dist"
    with FileLock(shared / "dist.lock"):
        if not folder.exists():
            call(sys.executable, "-m", "build", "--no-isolation", "--outdir", shared / "unfinished", source, cwd=shared)
            (shared / "unfinished").rename(folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture
def make_environment(tmp_path):
    """
    Give empty environments that see the third-party packages of this one, but not its sb3_softac.

    The .pth file adds a path and nothing else: start-up files and editable finders in that folder are not run from there.
    """

    def make(see_third_party=True):
        folder = tmp_path / f"venv{len(list(tmp_path.iterdir()))}"
        venv.create(folder, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        if see_third_party:
            (site / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return folder / "bin" / "python", site

    return make


def test_contents(built):
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = archive.read(next(name for name in names if name.endswith("RECORD"))).decode()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    wanted = HOOK_FILES | {"sb3_softac/py.typed", "sb3_softac/hyperparams/softac_v1.yml", "sb3_softac/equations/bellman.py"}
    wanted |= {f"sb3_softac/hyperparams/presets/{path.name}" for path in (ROOT / "hyperparams" / "presets").iterdir()}
    assert wanted <= names
    assert all(name in record for name in wanted)
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/", "_build_hooks")) for name in names)
    requirements = " ".join(re.findall(r"Requires-Dist: ([\w-]+)", metadata)).lower()
    for package in ("stable-baselines3", "sb3-contrib", "rl_zoo3", "gymnasium", "torch", "requests", "pandas"):
        assert package in requirements
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"sb3_softac.pth", "sb3_softac.start", "_build_hooks.py", "hyperparams/softac_v1.yml", "LICENSE"} <= names
    folder = ROOT / "sb3_softac" / "engines" / "native" / "csrc"
    assert {"setup.py", *(f"sb3_softac/engines/native/csrc/{path.name}" for path in folder.iterdir())} <= names


@pytest.mark.skipif(shutil.which("gcc") is None or not builds(), reason="there is no C compiler, or nothing to build")
def test_libraries_are_in_the_wheel(built):
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"sb3_softac/engines/native/_step_{name}.so" for name in builds()} <= names
    assert not any(name.endswith((".c", ".h", ".o")) for name in names)
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")
    with tarfile.open(sdist) as archive:
        assert not any(name.endswith((".so", ".o")) for name in archive.getnames())


def test_page_on_the_index_has_full_addresses(source, tmp_path):
    home = "https://github.com/someone/sb3_softac"
    command = (sys.executable, "setup.py", "-q", "dist_info", "--output-dir", tmp_path)
    call(*command, cwd=source, GITHUB_REPOSITORY="someone/sb3_softac")
    page = next(tmp_path.glob("*.dist-info/METADATA")).read_text()
    assert f"Project-URL: Source, {home}\n" in page and f"git clone {home} " in page
    assert re.findall(r"\]\((?!https:|#).*", page) == []
    assert f"]({home}/raw/v" in page and f"]({home}/blob/v" in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "editable", "strict editable"])
def test_install_use_uninstall(kind, built, source, make_environment, tmp_path):
    wheel, _ = built  # from the sdist
    python, site = make_environment()
    before = files_of(site)
    what = {
        "wheel": [wheel],
        "editable": ["--editable", source],
        "strict editable": ["--editable", source, "--config-settings", "editable_mode=strict"],
    }
    install(python, what[kind], tmp_path)

    find = "import importlib.util; print(importlib.util.find_spec('sb3_softac').origin)"  # the training below imports it
    where = call(python, "-c", find, cwd=tmp_path)
    assert str(source if "editable" in kind else site) in where
    call(python, *TRAIN, "-n", "10", "--eval-freq", "-1", cwd=tmp_path)
    used = (tmp_path / "logs/softac_v1/Walker2d-v4_1/Walker2d-v4/config.yml").read_text()
    assert "random_steps" in used  # from our YAML, where the defaults do not have it
    switched_off = call(python, *TRAIN, cwd=tmp_path, expect=2, SB3_SOFTAC_NO_ZOO="1")
    assert "invalid choice: 'softac_v1'" in switched_off

    pip(python, "uninstall", "--yes", "sb3_softac", cwd=tmp_path)
    assert files_of(site) == before
    assert "invalid choice: 'softac_v1'" in call(python, *TRAIN, cwd=tmp_path, expect=2)


def files_of(site):
    return {str(path.relative_to(site)) for path in site.rglob("*") if path.name != "__pycache__"}


def test_start_up_is_light(built, make_environment, tmp_path):
    """Where everything that the hook must not import at start-up could be imported."""
    python, _ = make_environment()
    install(python, [built[0]], tmp_path)
    list_modules = "import sys; print(sorted({name.split('.')[0] for name in sys.modules}))"
    with_hook = set(re.findall(r"'(\w+)'", call(python, "-c", list_modules, cwd=tmp_path)))
    without_hook = set(re.findall(r"'(\w+)'", call(python, "-S", "-c", f"import os, site; {list_modules}", cwd=tmp_path)))
    assert with_hook - without_hook == {"_sb3_softac_autoload"}


def test_silent_without_the_zoo(built, make_environment, tmp_path):
    python, _ = make_environment(see_third_party=False)
    install(python, [built[0]], tmp_path)
    assert call(python, "-c", "", cwd=tmp_path) == ""
    missing = call(python, "-c", "import rl_zoo3", cwd=tmp_path, expect=1)
    assert "No module named 'rl_zoo3'" in missing and "sb3_softac" not in missing


@pytest.mark.slow
def test_a_broken_package_leaves_the_zoo_alive(built, make_environment, tmp_path):
    python, site = make_environment()
    install(python, [built[0]], tmp_path)
    (site / "sb3_softac" / "zoo" / "registration.py").write_text("raise RuntimeError('broken on purpose')\n")
    text = call(python, "-c", TRAIN_HELP, cwd=tmp_path)
    assert text.count("could not register with RL Zoo") == 1 and "broken on purpose" in text
    assert "--algo" in text and "softac_v1" not in text
    # The hook's own module gone, as after a careless removal: not a word at start-up
    (site / "_sb3_softac_autoload.py").unlink()
    shutil.rmtree(site / "__pycache__", ignore_errors=True)
    assert call(python, "-c", "", cwd=tmp_path) == ""
