"""The page of a study: every run is on it, and it needs no other file."""

import csv
import json
import re

import numpy as np
import pytest

from sb3_softac.study import read_study
from sb3_softac.study.plots import style_numbers
from sb3_softac.study.report import write_report
from sb3_softac.study.results import read_results

FILE = """
algorithms: [softac_v1, sac]
environments: [Pendulum-v1, Hopper-v4]
seeds: 4
n_timesteps: 300
grid: {ent_coef: [0.01, 0.1, 1.0], policy: [MlpPolicy, CnnPolicy]}
evaluation: {every: 100, episodes: 2, modes: [deterministic, stochastic]}
"""
VERSIONS = json.dumps({"torch": "2.13"})


def final_of(run, mode):
    """What the made-up runs come to."""
    return 10.0 * run.seed + 100 * (run.algo == "sac") + 1000 * (mode == "stochastic") + run.varied["ent_coef"]


def make_result(run, path, n=3, clock=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    returns = {
        mode: np.array([[0.0, 0], [1, 1], [final_of(run, mode) - 1, final_of(run, mode) + 1]])[:n]
        for mode in run.evaluation_modes
    }
    np.savez(
        path,
        timesteps=np.array([100, 200, 300])[:n],
        seconds=np.array([1.0, 2, 3])[:n] * (1 + run.seed) * clock,
        train_returns=np.arange(30.0)[: 0 if run.env == "Hopper-v4" else 30] + 4 * run.seed,
        train_timesteps=np.arange(10, 310, 10)[: 0 if run.env == "Hopper-v4" else 30],
        declaration=run.as_json(),
        versions=VERSIONS,
        **returns,
    )


@pytest.fixture
def study(tmp_path):
    (tmp_path / "many.yml").write_text(FILE)
    return read_study(tmp_path / "many.yml")


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_all_runs(study, tmp_path):
    for run in study.runs:
        make_result(run, study.result_of(run))
    page = write_report(study, tmp_path / "report")
    text = page.read_text()
    assert "96 of 96 runs are finished" in text and "not finished" not in text
    # needs no other file, and asks no other host
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"", text) and "<script" not in text
    assert text.count("<svg") == 2 * 2 * (2 + 1 + 2)  # environments, ways, and two curves, final returns, two sensitivities
    assert FILE.strip() in text and "torch: 2.13" in text
    rows = rows_of(tmp_path / "report" / "Hopper-v4_stochastic_final.csv")
    assert len(rows) == 12
    row = next(row for row in rows if row["algorithm"] == "SAC, ent_coef 0.1, policy CnnPolicy")
    assert row["IQM"] == "1115" and row["n"] == "4" and row["all seeds"] == "1100, 1110, 1120, 1130"
    assert row["95 % interval of the IQM"] == "-"  # four seeds are too few
    assert (
        row["tolerance interval"] == "1100 to 1130"
        and row["share of agents in the tolerance interval (confidence 0.95)"] == "0.25"
    )
    assert row["steps"] == "300" and row["IQM of the last 20 training episodes"] == "-"  # none has ended
    assert row["IQM of the mean of all evaluations"] == f"{(1115.1 + 1) / 3:.4g}"
    row = rows_of(tmp_path / "report" / "Pendulum-v1_stochastic_final.csv")[0]
    assert row["IQM of the last 20 training episodes"] == f"{19.5 + 6:.4g}"  # 10 to 29, seeds 0 to 3
    better = rows_of(tmp_path / "report" / "Pendulum-v1_deterministic_improvement.csv")
    assert len(better) == 12 * 11 / 2
    pair = next(
        row for row in better if row["better"].startswith("SoftAC_v1, ent_coef 0.01") and row["than"].startswith("SAC")
    )
    assert pair["probability"] == "0.00"
    curves = rows_of(tmp_path / "report" / "curves.csv")
    assert len(curves) == 96 * 3 and {row["timesteps"] for row in curves} == {"100", "200", "300"}
    for name in ("by_environment", "by_seconds", "final", "over_ent_coef", "over_policy"):
        for ending in ("png", "svg"):
            assert (tmp_path / "report" / f"Pendulum-v1_deterministic_{name}.{ending}").stat().st_size > 5_000


def test_runs_without_a_result_are_named(study, tmp_path):
    done, cut, begun, changed, *others = study.runs
    make_result(done, study.result_of(done))
    make_result(cut, study.partial_result_of(cut), n=2)
    for run, text in ((begun, begun.as_json()), (changed, changed.as_json().replace("300", "200"))):
        study.declaration_of(run).parent.mkdir(parents=True)
        study.declaration_of(run).write_text(text)
    results, partial, missing = read_results(study)
    assert [result.run for result in results] == [done] and [result.run for result in partial] == [cut]
    assert len(results) + len(missing) == 96
    reasons = {one.run.id: one.why for one in missing}
    assert reasons[cut.id] == "stopped after step 200 of 300, or still running"
    assert reasons[begun.id] == "started" and reasons[others[0].id] == "not started"
    assert reasons[changed.id] == "run with a different declaration (n_timesteps: 200 -> 300)"
    text = write_report(study, tmp_path / "report").read_text()
    assert "95 runs are not finished" in text
    for run in study.runs[1:]:
        assert run.id in text
    assert len(rows_of(tmp_path / "report" / "curves.csv")) == 3 + 2


def test_only_what_was_cut(study, tmp_path):
    make_result(study.runs[0], study.partial_result_of(study.runs[0]), n=1)
    text = write_report(study, tmp_path / "report").read_text()
    assert "0 of 96 runs" in text and text.count("<svg") == 2 * 2


def test_runs_without_a_clock(study, tmp_path):
    """They are drawn by steps only."""
    for run in study.runs[:4]:
        make_result(run, study.result_of(run), clock=np.nan)
    assert write_report(study, tmp_path / "report").read_text().count("<svg") == 2 * (1 + 1 + 2)


def test_the_same_files_each_time(study, tmp_path):
    for run in study.runs[:4]:
        make_result(run, study.result_of(run))
    first, second = (write_report(study, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_names_are_escaped(tmp_path):
    (tmp_path / "a.yml").write_text(FILE.replace("[softac_v1, sac]", "{'<script>x': {algo: sac}}"))
    study = read_study(tmp_path / "a.yml")
    make_result(study.runs[0], study.result_of(study.runs[0]))
    assert "<script" not in write_report(study, tmp_path / "report").read_text()


def test_an_algorithm_looks_the_same_in_all_figures():
    alone, among_variants = style_numbers(["SQL"]), style_numbers(["a variant", "SoftAC_v1", "SQL", "another"])
    assert alone["SQL"] == among_variants["SQL"] and len(set(among_variants.values())) == 4
    assert len(style_numbers(map(str, range(20)))) == 20
