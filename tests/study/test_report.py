"""Reports: always written, complete, and compared at the same step."""

import csv
import re

import numpy as np
import pytest

from sb3_softac.study import StudyError, plots, report
from sb3_softac.study.__main__ import main
from sb3_softac.study.plots import return_against_strength, style_numbers
from sb3_softac.study.results import write_failure
from tests.study.small import NO_TRAINING, declare, declared, write_result, write_results


def two(folder, **changes):
    """A study of two algorithms that need no training: their results are written by the tests."""
    return declared(folder, **NO_TRAINING | {"algorithms": {"sac": None, "ppo": None}} | changes)


def page(study, folder):
    return report.write_report(study, folder / "report").read_text(encoding="utf-8")


def rows(folder, name):
    with open(folder / "report" / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def final_rows(folder):
    return {row["algorithm"]: row for row in rows(folder, "Pendulum-v1_deterministic_final")}


@pytest.fixture
def quick(monkeypatch):
    """Figures are laid out but not painted."""

    def save(figure, path):
        figure.set_layout_engine("none")  # takes most of the time
        figure.draw_without_rendering()
        return "<svg"

    monkeypatch.setattr(plots, "save", save)


def test_the_whole_page(tmp_path):
    """Every run is on it, and it needs no other file."""
    study = two(tmp_path, grid={"gamma": [0.9, 0.99]}, seeds=2, evaluation={"every": 250, "modes": ["stochastic"]})
    write_results(study)
    text = page(study, tmp_path)
    assert "8 of 8 runs are finished" in text and "without a usable result" not in text
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"", text) and "<script" not in text
    assert text.count("<svg") == 2 + 1 + 1  # learning curves, returns, sensitivity
    assert study.text.strip().splitlines()[0] in text and "torch: 2" in text
    row = rows(tmp_path, "Pendulum-v1_stochastic_final")[0]
    assert row["algorithm"] == "SAC, gamma 0.9" and row["n"] == "2" and row["steps"] == "1000"
    assert row["IQM"] == "9" and row["95 % interval of the IQM"] == "-" and row["all seeds"] == "4, 14"
    assert row["tolerance interval"] == "4 to 14" and row["IQM of the mean of all evaluations"] == "7.5"
    assert row["share of agents in the tolerance interval (confidence 0.95)"] == "0.03"
    assert row["IQM of the last 20 training episodes"] == "1.5"
    assert len(rows(tmp_path, "Pendulum-v1_stochastic_improvement")) == 4 * 3 / 2
    assert len(rows(tmp_path, "curves")) == 8 * 4
    for name in ("by_environment", "by_seconds", "final", "over_gamma"):
        for ending in ("png", "svg"):
            assert (tmp_path / "report" / f"Pendulum-v1_stochastic_{name}.{ending}").stat().st_size > 5_000


def test_nothing_yet(tmp_path, capsys):
    study = two(tmp_path)
    write_failure(study, study.runs[0], "ValueError: out of luck (x.py, line 3)\n\nTraceback ...")
    assert main(["report", str(tmp_path / "small.yml")]) == 0
    text = (study.output / "report" / "index.html").read_text()
    assert "No run has a result yet" in text and "0 of 6 runs are finished" in text
    assert "failed: ValueError: out of luck (x.py, line 3) (1): sac/Pendulum-v1/0" in text and "not started (5)" in text


def test_equal_budgets(tmp_path, quick):
    """PPO trains whole rollouts: what it learns after the declared steps does not count."""
    study = two(tmp_path)
    for run in study.runs:
        longer = run.algo == "ppo"
        write_result(study, run, range(250, 4001 if longer else 1001, 250), value=0.5 if longer else 1.0)
    text = page(study, tmp_path)
    assert "The runs are compared at step 1000, the last evaluation that all of them have.</p>" in text
    final = final_rows(tmp_path)
    assert final["SAC"]["all seeds"] == "4, 14, 24" and final["PPO"]["all seeds"] == "3.5, 13.5, 23.5"
    assert final["PPO"]["steps"] == "1000" and final["PPO"]["IQM of the mean of all evaluations"] == "12"
    assert final["PPO"]["IQM of the last 20 training episodes"] == "1.5"
    (better,) = rows(tmp_path, "Pendulum-v1_deterministic_improvement")
    assert float(better["probability"]) == pytest.approx(6 / 9, abs=0.01)
    assert max(int(row["timesteps"]) for row in rows(tmp_path, "curves")) == 1000


def test_evaluations_that_are_a_few_steps_apart(tmp_path, quick):
    """The number of parallel environments shifts them: the nearest one counts, not the one before."""
    study = two(tmp_path)
    for run in study.runs:
        write_result(study, run, (248, 496, 744, 992) if run.algo == "ppo" else (250, 500, 750, 1000))
    assert "compared at step 992 to 1000" in page(study, tmp_path)
    assert {row["all seeds"] for row in final_rows(tmp_path).values()} == {"4, 14, 24"}


def test_more_steps_for_one_algorithm(tmp_path, quick):
    study = two(tmp_path, algorithms={"sac": None, "ppo": {"n_timesteps": 2000}})
    for run in study.runs:
        write_result(study, run, range(250, run.n_timesteps + 1, 250))
    text = page(study, tmp_path)
    assert "compared at step 1000" in text and "evaluated for longer" in text and "(PPO: step 2000)" in text
    assert {row["steps"] for row in final_rows(tmp_path).values()} == {"1000"}


def test_seeds_that_end_at_different_steps(tmp_path, quick):
    study = two(tmp_path)
    for run in study.runs:
        write_result(study, run, range(250, 1001 - 250 * run.seed, 250))
    text = page(study, tmp_path)
    assert "compared at step 500" in text and "(SAC: step 500 to 1000; PPO: step 500 to 1000)" in text
    assert final_rows(tmp_path)["SAC"]["all seeds"] == "2, 12, 22"


def no_episodes(run):
    return {"train_returns": np.zeros(run.seed), "train_timesteps": np.full(run.seed, 9)}


ODD = {
    "a single run": lambda study: write_result(study, study.runs[0]),
    "one evaluation": lambda study: write_results(study, steps=(250,)),
    "constant": lambda study: write_results(study, deterministic=np.zeros((4, 2))),
    "huge": lambda study: write_results(study, value=1e30),
    "no episode in one": lambda study: [write_result(study, run, **no_episodes(run)) for run in study.runs],
    "no steps in common": lambda study: [write_result(study, run, (251 + run.seed, 501 + run.seed)) for run in study.runs],
    "the same step twice": lambda study: write_results(study, steps=(250, 250, 500, 500)),
    "only after the last step": lambda study: write_results(study, steps=(1008,)),
    "no clock": lambda study: write_results(study, seconds=np.full(4, np.nan)),
    "only unfinished": lambda study: [write_result(study, run, (250,), to=study.partial_result_of(run)) for run in study.runs],
}


@pytest.mark.parametrize("results", ODD)
def test_odd_results(tmp_path, quick, results):
    study = two(tmp_path)
    ODD[results](study)
    text = page(study, tmp_path)
    # by steps, by time, and, if runs are finished, their returns
    assert "could not be made" not in text and text.count("<svg") == (2 if results in ("no clock", "only unfinished") else 3)


@pytest.mark.parametrize(("value", "seeds"), [(np.nan, 3), (-np.inf, 11)])
def test_returns_that_are_not_finite(tmp_path, quick, value, seeds):
    """They cannot be ranked: there is no number that would include them, and the runs are named."""
    study = two(tmp_path, seeds=seeds)
    write_results(study)
    write_result(study, study.runs[1], deterministic=np.full((4, 2), value))
    text = page(study, tmp_path)
    assert "could not be made" not in text
    assert "not finite, so there are no means and intervals of: sac/Pendulum-v1/1." in text
    assert final_rows(tmp_path)["SAC"]["IQM"] == "-" and final_rows(tmp_path)["PPO"]["IQM"] != "-"
    (better,) = rows(tmp_path, "Pendulum-v1_deterministic_improvement")
    assert better["probability"] == "-"


GRIDS = [
    {"policy_kwargs": [{"net_arch": [4]}, {"net_arch": [8, 8]}], "ent_coef": [0.1, 1.0]},
    {"train_freq": [[1, "step"], [1, "episode"]]},
    {"target_entropy": ["auto", {"schedule": {"start": 0.9, "end": 0.1}}, -1.0, None]},
    {"ent_coef": [1, True, 0.5]},
    {"max_grad_norm": [1.0, float("inf")]},
    {"policy": [letter * 200 for letter in "abc"]},
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: ",".join(grid))
def test_a_grid_over_values_of_any_type(tmp_path, quick, grid):
    study = two(tmp_path, algorithms=["sac"], grid=grid)
    write_results(study)
    text = page(study, tmp_path)
    assert "could not be made" not in text and text.count("<svg") == 3 + len(grid)
    assert len(final_rows(tmp_path)) == len(study.runs) / 3


def test_names(tmp_path, quick):
    """They are no formulas, paths or markup."""
    names = ["$x_$", "$", "a $b$ \\$", "_hidden", "été, α", "<script>&", "%s {x}", "x\ny", "a/../..", "x" * 300]
    study = two(tmp_path, algorithms={name: {"algo": "sac"} for name in names})
    for run in study.runs:
        write_result(study, run)
        assert study.results in study.result_of(run).parents and study.output in study.folder_of(run).parents
        assert ".." not in study.result_of(run).parts
    text = page(study, tmp_path)
    assert "could not be made" not in text and "<script" not in text
    assert list(final_rows(tmp_path)) == list(dict.fromkeys(run.name for run in study.runs))


def test_a_section_that_fails(tmp_path, quick, monkeypatch):
    study = two(tmp_path)
    write_results(study)

    def fail(*args):
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr(report, "final_table", fail)
    with pytest.warns(UserWarning, match="'Pendulum-v1, deterministic policy' of the report could not be made"):
        text = page(study, tmp_path)
    assert "This section could not be made: ZeroDivisionError: an accident" in text and "How to read it" in text


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    path = declare(tmp_path)
    assert main(["report", str(path), "--to", str(path / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_every_seed_is_in_the_picture(tmp_path):
    returns = np.arange(6.0).reshape(2, 3)
    content = {
        "mass": ("factor", (0.5, 1, 2), {"sac": returns, "td3": returns + 9}),
        "push": ("force in N", (0, 1, 2), {"sac": returns + 20, "td3": returns}),
    }
    figure = return_against_strength(content)
    assert plots.save(figure, tmp_path / "plot") == plots.save(return_against_strength(content), tmp_path / "plot")
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == ["mass", "push"]
    assert [panel.get_xlabel() for panel in panels] == ["factor", "force in N"]
    drawn = [line.get_ydata().tolist() for line in panels[0].lines]
    assert all(row.tolist() in drawn for row in [*returns, *(returns + 9), returns.mean(axis=0)])
    assert panels[0].lines[0].get_xdata().tolist() == [0.5, 1, 2]


def test_an_algorithm_looks_the_same_in_all_figures():
    alone, among_variants = style_numbers(["SQL"]), style_numbers(["a variant", "SoftAC_v1", "SQL", "another"])
    assert alone["SQL"] == among_variants["SQL"] and len(set(among_variants.values())) == 4
    assert len(style_numbers(map(str, range(20)))) == 20


def test_a_single_run_has_no_tolerance_interval(tmp_path):
    study = two(tmp_path, seeds=1)
    write_results(study)
    page(study, tmp_path)
    assert rows(tmp_path, "Pendulum-v1_deterministic_final")[0]["tolerance interval"] == "-"


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refused(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(report.tempfile, "TemporaryFile", refused)
    with pytest.raises(StudyError, match=r"Permission denied\): choose one with --to"):
        report.write_report(two(tmp_path), tmp_path / "report")
