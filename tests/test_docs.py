"""The examples of the documentation, run as they stand."""

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import sb3_contrib.common.maskable.evaluation
import stable_baselines3.common.evaluation

ROOT = Path(__file__).parent.parent
SHORT = {"total_timesteps": 105, "gradient_steps": 5}  # learning starts after 100 steps


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """As users run them, in C where it can be, but with few episodes in each evaluation."""
    monkeypatch.setenv("SB3_SOFTAC_FAST", "1")
    for module in (stable_baselines3.common.evaluation, sb3_contrib.common.maskable.evaluation):
        monkeypatch.setattr(module, "evaluate_policy", few_episodes(module.evaluate_policy))


def few_episodes(evaluate_policy: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, n_eval_episodes=10, **kwargs: evaluate_policy(
        *args, n_eval_episodes=min(n_eval_episodes, 3), **kwargs
    )


def python_blocks(path: Path) -> list[tuple[str, str]]:
    """:return: The blocks of code of a page, each with the block of text right after it: what the code prints, or nothing."""
    return re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", path.read_text(), flags=re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    """:return: The files that a page tells the reader to save, by name."""
    return dict(re.findall(r"Save this as `([\w.]+)`.*?\n\n```\w+\n(.*?)```", page.read_text(), flags=re.DOTALL))


TEACHING = sorted((ROOT / "docs" / "teach").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", [p for p in PAGES if "_build" not in p.parts and python_blocks(p)], ids=lambda p: p.stem)
def test_code_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    """Each by itself, as readers copy it, but for files that earlier blocks have written; those of a lesson in a row."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    files = files_of(page)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    lesson: dict[str, Any] = {"__name__": "__main__"}
    for number, (block, output) in enumerate(python_blocks(page), start=1):
        if block in files.values():
            continue
        code = re.sub(r"(total_timesteps|gradient_steps)=[\d_]+", lambda match: f"{match[1]}={SHORT[match[1]]}", block)
        capsys.readouterr()
        exec(compile(code, f"{page}, block {number}", "exec"), lesson if page in TEACHING else {"__name__": "__main__"})
        if output:
            assert capsys.readouterr().out == output


@pytest.mark.slow
def test_commands_for_an_environment_of_ones_own_run(tmp_path):
    """Word for word, in a row; the files that they read ask for fewer steps."""
    page = ROOT / "docs" / "guide" / "own_environment.md"
    for name, content in files_of(page).items():
        (tmp_path / name).write_text(content.replace("15000", "300").replace("every: 1500", "every: 150"))
    bin_first = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": bin_first, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    printed = ""
    for commands in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
        done = subprocess.run(
            ["bash", "-e", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, commands + done.stderr
        printed += done.stdout
    assert "Mean reward" in printed and "observation_noise" in printed
    for made in ("logs/discretesac/Courier-v0_1/Courier-v0.zip", "study/report/index.html", "robustness"):
        assert (tmp_path / made).exists(), made


@pytest.mark.parametrize("page", TEACHING, ids=lambda p: p.stem)
def test_teaching_page_shows_all_that_its_code_prints(page):
    text = page.read_text()
    assert all(bool(output) == ("print(" in code) for code, output in python_blocks(page))
    assert text.count("```text") == sum(bool(output) for _, output in python_blocks(page))


@pytest.mark.parametrize("page", TEACHING, ids=lambda p: p.stem)
def test_formulas_of_a_teaching_page_link_to_functions(page):
    links = re.findall(r"\{py:\w+\}`(?:[^`<]*<|~)?([\w.]+)>?`", page.read_text())
    assert len(links) == page.read_text().count("{py:")
    assert links
    for link in links:
        module, name = link.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), link


@pytest.mark.slow
def test_teaching_pictures_are_drawn_and_shown(tmp_path, monkeypatch):
    folder = ROOT / "docs" / "teach"
    monkeypatch.syspath_prepend(folder)
    runpy.run_path(str(folder / "pictures.py"))["main"](tmp_path)
    drawn, kept = sorted(tmp_path.glob("*.png")), sorted(folder.glob("*.png"))
    assert [picture.name for picture in drawn] == [picture.name for picture in kept]
    assert all(10_000 < picture.stat().st_size < 80_000 for picture in drawn + kept)
    pages = "".join(page.read_text() for page in TEACHING)
    assert all(re.search(rf"figure\}} {picture.name}\n:alt: ", pages) for picture in kept)


EXAMPLES = ROOT / "docs" / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run_example(name: str, steps: int = SHORT["total_timesteps"]) -> None:
    """Run a script with fewer steps and without progress bars."""
    code = (EXAMPLES / f"{name}.py").read_text().replace("progress_bar=True", "progress_bar=False")
    code = re.sub(r"((?:total_timesteps|gradient_steps|eval_freq)=)\d[\d_]+", rf"\g<1>{steps}", code)
    code = code.replace("1_333", str(2 * steps // 3)).replace("every=500", f"every={steps // 4}")  # where it is cut off
    exec(compile(code, f"{name}.py", "exec"), {"__name__": "__main__"})


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    yield tmp_path
    plt.close("all")


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"callbacks", "resume", "study"}))
def test_example_runs(name, in_folder, capsys):
    run_example(name)
    printed = capsys.readouterr().out
    assert printed and (name != "frozenlake" or printed == recorded_output(name))  # that one is exact
    assert all(picture.stat().st_size > 5_000 for picture in in_folder.glob("*.png"))


def test_callbacks_log(in_folder, capsys):
    run_example("callbacks", steps=300)
    assert {"rollout/pole_angle", "eval/mean_reward", "train/entropy"} <= set(capsys.readouterr().out.split())
    assert (in_folder / "best" / "best_model.zip").exists()


def test_the_resumed_training_is_the_same(in_folder, capsys):
    run_example("resume", steps=130)
    printed = capsys.readouterr().out
    assert "cut off" in printed and "largest difference: 0.0" in printed


@pytest.mark.slow
def test_study_example(in_folder, capsys):
    run_example("study")
    assert "SoftAC_v1" in capsys.readouterr().out
    assert (in_folder / "pendulum" / "report" / "index.html").stat().st_size > 10_000


def notebook_of(name: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"{name}.ipynb").read_text())


def recorded_output(name: str) -> str:
    outputs = [output for cell in notebook_of(name)["cells"] for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", "")) for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_the_recorded_script(name):
    """``make examples`` records what has changed."""
    script = (EXAMPLES / f"{name}.py").read_text()
    cells = re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", script, flags=re.MULTILINE | re.DOTALL)
    expected = [re.sub("^# ?", "", text, flags=re.MULTILINE).strip() if kind else text.strip() for kind, text in cells]
    notebook = notebook_of(name)
    assert ["".join(cell["source"]) for cell in notebook["cells"]] == expected and notebook["metadata"]["seconds"] > 0


def test_every_example_is_in_the_gallery():
    gallery = (EXAMPLES / "index.md").read_text()
    assert [name for name in NAMES if f"]({name}.ipynb)" not in gallery or f"\n{name}\n" not in gallery] == []


def test_readme_opens_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines[:12] if line.startswith("make ")]
    assert [command.split()[1] for command in commands] == ["train", "test"]


MARKDOWN = [ROOT / "CONTRIBUTING.md", *(page for page in PAGES if "_build" not in page.parts)]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda p: p.stem)
def test_no_code_is_cut_off_at_the_right(page):
    """Beside the menu of the site there is room for 88 characters."""
    inside, wide = "", []
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = "" if inside else line
        elif re.fullmatch(r"```(python|bash|yaml|text)?", inside) and len(line) > 88:
            wide.append(line)
    assert wide == []
