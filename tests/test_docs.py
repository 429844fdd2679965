"""The examples of the documentation, run as they stand."""

import importlib
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


TEACHING = sorted((ROOT / "docs" / "teach").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", [p for p in PAGES if "_build" not in p.parts and python_blocks(p)], ids=lambda p: p.stem)
def test_code_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    """Each by itself, as readers copy it, but for files that earlier blocks have written; those of a lesson in a row."""
    monkeypatch.chdir(tmp_path)
    lesson: dict[str, Any] = {"__name__": "__main__"}
    for number, (block, output) in enumerate(python_blocks(page), start=1):
        code = re.sub(r"(total_timesteps|gradient_steps)=[\d_]+", lambda match: f"{match[1]}={SHORT[match[1]]}", block)
        capsys.readouterr()
        exec(compile(code, f"{page}, block {number}", "exec"), lesson if page in TEACHING else {"__name__": "__main__"})
        if output:
            assert capsys.readouterr().out == output


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


def main_of(name: str) -> Callable[..., Any]:
    return runpy.run_path(str(ROOT / "docs" / "examples" / f"{name}.py"))["main"]


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("pendulum", -2000, 0),
        ("cartpole", 1, 500),
        ("taxi_masks", -2000, 10),
        ("tic_tac_toe", -1, 1),
        ("two_carts", 1, 500),
        ("pixels", 0, 1),
        ("custom_policy", -2000, 0),
        ("onnx_without_package", -2000, 0),
    ],
)
def test_examples_with_one_result(name, lowest, highest):
    assert lowest <= main_of(name)(timesteps=105) <= highest


def test_hindsight_example():
    without, with_her = main_of("her")(timesteps=105)
    assert 0 <= without <= 1 and 0 <= with_her <= 1


def test_demonstrations_are_learned_from():
    without, with_them = main_of("demonstrations")(timesteps=105)
    assert -100 <= without <= 100 and -100 <= with_them <= 100 and without != with_them


def test_callbacks_log(tmp_path):
    logged = main_of("callbacks")(timesteps=300, folder=str(tmp_path))
    assert 0 < logged["rollout/pole_angle"] < 0.5
    assert {"eval/mean_reward", "train/entropy", "rollout/ep_rew_mean"} <= logged.keys()
    assert (tmp_path / "best_model.zip").exists()


def test_the_resumed_training_is_the_same(capfd):
    assert main_of("resume")(timesteps=130) == 0.0
    assert "cut off" in capfd.readouterr().out


@pytest.mark.slow
def test_study_example(tmp_path):
    page = main_of("study")(timesteps=300, seeds=1, folder=str(tmp_path))
    assert page.stat().st_size > 10_000 and page.read_text().count("SoftAC_v1") > 1


def test_deep_and_tabular_answer_the_same_question():
    exact, learned, uniform = main_of("tabular_against_deep")(timesteps=400)
    assert uniform < exact and learned <= exact


def test_every_example_is_run():
    examples = {path.stem for path in (ROOT / "docs" / "examples").glob("*.py")}
    assert {name for name in examples if f'"{name}' not in Path(__file__).read_text()} == set()


def test_skills_are_composed(tmp_path):
    distances = main_of("compose_skills")(timesteps=105, picture=str(tmp_path / "compose_skills.png"))
    assert set(distances) == {"skill A", "skill B", "A + B at once", "A + B distilled"}
    assert all(distance.shape == (2,) and (0 <= distance).all() for distance in distances.values())
    assert (tmp_path / "compose_skills.png").stat().st_size > 10_000


def test_pretrained_models_are_fine_tuned():
    passed = main_of("fine_tune")(timesteps=210, seeds=[0])
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
