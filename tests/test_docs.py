"""The examples of the documentation, run as they stand."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", [p for p in PAGES if "_build" not in p.parts and python_blocks(p)], ids=lambda p: p.stem)
def test_code_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The same code on fewer steps
    code = re.sub(r"total_timesteps=[\d_]+", "total_timesteps=120", "\n".join(python_blocks(page)))
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


def test_pendulum_example():
    example = runpy.run_path(str(ROOT / "docs" / "examples" / "pendulum.py"))
    assert -2000 < example["main"](timesteps=150) < 0


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("cartpole", 1, 500), ("taxi_masks", -2000, 10), ("two_carts", 1, 500)]
)
def test_discrete_examples(name, lowest, highest):
    example = runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))
    assert lowest <= example["main"](timesteps=200) <= highest


def test_skills_are_composed(tmp_path):
    example = runpy.run_path(str(ROOT / "docs" / "examples" / "compose_skills.py"))
    distances = example["main"](timesteps=200, picture=str(tmp_path / "compose_skills.png"))
    assert set(distances) == {"skill A", "skill B", "A + B at once", "A + B distilled"}
    assert all(distance.shape == (2,) and (0 <= distance).all() for distance in distances.values())
    assert (tmp_path / "compose_skills.png").stat().st_size > 10_000


def test_pretrained_models_are_fine_tuned():
    passed = runpy.run_path(str(ROOT / "docs" / "examples" / "fine_tune.py"))["main"](timesteps=240, seeds=[0])
    assert set(passed) == {"from scratch", "pretrained hot", "pretrained cold"}
    assert all(shares.shape == (1,) and 0 <= shares[0] <= 1 for shares in passed.values())


def test_frozenlake_example(tmp_path):
    example = runpy.run_path(str(ROOT / "docs" / "examples" / "frozenlake.py"))
    solutions = example["solve"]()
    example["draw"](solutions, str(tmp_path / "frozenlake.png"))
    assert (tmp_path / "frozenlake.png").stat().st_size > 10_000
    # What the page says: the field before the goal is worth most when cold, the start when hot.
    assert [int(solution.v.argmax()) for solution in solutions] == [14, 14, 0]


def test_readme_opens_with_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines[:12] if line.startswith("make ")]
    assert [command.split()[1] for command in commands] == ["train", "test"]
