"""Reports of results of any kind: always written, compared at the same step, with what is missing named."""

import csv
import io
import json

import numpy as np
import pytest

from sb3_softac.study import plots, read_study, report
from sb3_softac.study.__main__ import main
from sb3_softac.study.results import at_equal_steps, is_finished, read_result, read_results, shared_evaluations, write_failure

FILE = """
algorithms: {algorithms}
environments: [Pendulum-v1]
seeds: 3
n_timesteps: 1000
evaluation: {{every: 250, episodes: 2}}
{more}
"""


def declare(folder, algorithms="[sac, ppo]", more=""):
    (folder / "odd.yml").write_text(FILE.format(algorithms=algorithms, more=more), encoding="utf-8")
    return read_study(folder / "odd.yml")


def write(study, run, steps=(250, 500, 750, 1000), value=1.0, to=None, **changes):
    """A result whose returns are the number of the evaluation, the seed and a value of its own."""
    path = to or study.result_of(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.array(steps, int)
    returns = np.arange(len(steps))[:, None] + 10.0 * run.seed + value * np.ones((1, 2))
    content = {
        "timesteps": steps,
        "deterministic": returns.astype(np.float32),
        "seconds": steps / 100,
        "train_returns": np.arange(len(steps), dtype=np.float32),
        "train_timesteps": steps,
        "declaration": np.array(run.as_json()),
        "versions": np.array(json.dumps({"torch": "2"})),
    }
    np.savez_compressed(path, **{**content, **changes})
    return path


def rows(folder, name):
    with open(folder / "report" / f"Pendulum-v1_deterministic_{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def quick(monkeypatch):
    """Figures are laid out but not painted."""

    def save(figure, path):
        figure.set_layout_engine("none")  # takes most of the time
        figure.draw_without_rendering()
        return "<svg"

    monkeypatch.setattr(plots, "save", save)


def why(study):
    """What is said of the first run, whose result is of no use; the others have theirs."""
    results, partial, missing = read_results(study)
    assert [result.run for result in results] == list(study.runs[1:]) and not partial
    (one,) = missing
    assert one.run == study.runs[0]
    return one.why


def page(study, folder):
    return report.write_report(study, folder / "report").read_text(encoding="utf-8")


def test_equal_budgets(tmp_path, quick):
    """PPO trains whole rollouts: what it learns after the declared steps does not count."""
    study = declare(tmp_path)
    for run in study.runs:
        longer = run.algo == "ppo"
        write(study, run, range(250, 4001 if longer else 1001, 250), value=0.5 if longer else 1.0)
    text = page(study, tmp_path)
    assert "The runs are compared at step 1000, the last evaluation that all of them have.</p>" in text
    final = {row["algorithm"]: row for row in rows(tmp_path, "final")}
    assert final["SAC"]["all seeds"] == "4, 14, 24" and final["PPO"]["all seeds"] == "3.5, 13.5, 23.5"
    assert final["PPO"]["steps"] == "1000" and final["PPO"]["IQM of the mean of all evaluations"] == "12"
    assert final["PPO"]["IQM of the last 20 training episodes"] == "1.5"
    (better,) = rows(tmp_path, "improvement")
    assert float(better["probability"]) == pytest.approx(6 / 9, abs=0.01)
    with open(tmp_path / "report" / "curves.csv", encoding="utf-8") as file:
        assert max(int(row["timesteps"]) for row in csv.DictReader(file)) == 1000


def test_several_environments_at_a_time_shift_the_steps(tmp_path, quick):
    """The evaluation nearest to the step counts, not the one before it."""
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run, (248, 496, 744, 992) if run.algo == "ppo" else (250, 500, 750, 1000))
    assert "compared at step 992 to 1000" in page(study, tmp_path)
    assert {row["all seeds"] for row in rows(tmp_path, "final")} == {"4, 14, 24"}


def test_more_steps_for_one_algorithm(tmp_path, quick):
    study = declare(tmp_path, "{sac: , ppo: {n_timesteps: 2000}}")
    for run in study.runs:
        write(study, run, range(250, run.n_timesteps + 1, 250))
    text = page(study, tmp_path)
    assert "compared at step 1000" in text and "evaluated for longer" in text and "(PPO: step 2000)" in text
    assert {row["steps"] for row in rows(tmp_path, "final")} == {"1000"}


def test_seeds_that_end_at_different_steps(tmp_path, quick):
    """A callback has stopped some of them."""
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run, range(250, 1001 - 250 * run.seed, 250))
    text = page(study, tmp_path)
    assert "compared at step 500" in text and "(SAC: step 500 to 1000; PPO: step 500 to 1000)" in text
    assert rows(tmp_path, "final")[0]["all seeds"] == "2, 12, 22"
    group = read_results(study)[0][:3]
    assert [at.tolist() for at in shared_evaluations(group)] == [[0, 1]] * 3
    assert [result.timesteps.tolist() for result in at_equal_steps({"": group})[""]] == [[250, 500]] * 3


ODD = {
    "a single run": lambda study: [write(study, study.runs[0])],
    "one evaluation": lambda study: [write(study, run, (250,)) for run in study.runs],
    "constant": lambda study: [write(study, run, deterministic=np.zeros((4, 2))) for run in study.runs],
    "negative": lambda study: [write(study, run, value=-1e4) for run in study.runs],
    "huge": lambda study: [write(study, run, value=1e30) for run in study.runs],
    "no training episodes": lambda study: [
        write(study, run, train_returns=np.zeros(0), train_timesteps=np.zeros(0, int)) for run in study.runs
    ],
    "no episode in one": lambda study: [
        write(study, run, train_returns=np.zeros(run.seed), train_timesteps=np.full(run.seed, 9)) for run in study.runs
    ],
    "no steps in common": lambda study: [write(study, run, (251 + run.seed, 501 + run.seed)) for run in study.runs],
    "the same step twice": lambda study: [write(study, run, (250, 250, 500, 500)) for run in study.runs],
    "only after the last step": lambda study: [write(study, run, (1008,)) for run in study.runs],
    "no clock": lambda study: [write(study, run, seconds=np.full(4, np.nan)) for run in study.runs],
    "only unfinished": lambda study: [write(study, run, (250,), to=study.partial_result_of(run)) for run in study.runs],
}


@pytest.mark.parametrize("what", ODD)
def test_a_report_of_odd_results(tmp_path, quick, what):
    study = declare(tmp_path)
    ODD[what](study)
    text = page(study, tmp_path)
    assert "could not be made" not in text and "<svg" in text


@pytest.mark.parametrize(("value", "seeds"), [(np.nan, 3), (np.nan, 11), (-np.inf, 11)])
def test_returns_that_are_not_finite(tmp_path, quick, value, seeds):
    """They have no place in the order: no number is made of them, and the runs are named."""
    study = declare(tmp_path)
    (tmp_path / "odd.yml").write_text(study.text.replace("seeds: 3", f"seeds: {seeds}"))
    study = read_study(tmp_path / "odd.yml")
    for run in study.runs:
        odd = {"deterministic": np.full((4, 2), value)} if (run.algo, run.seed) == ("sac", 1) else {}
        write(study, run, **odd)
    text = page(study, tmp_path)
    assert "could not be made" not in text
    assert "not finite, and the means and intervals with them are missing: sac/Pendulum-v1/1." in text
    final = {row["algorithm"]: row for row in rows(tmp_path, "final")}
    assert final["SAC"]["IQM"] == "-" and final["PPO"]["IQM"] != "-"
    (better,) = rows(tmp_path, "improvement")
    assert better["probability"] == "-"


GRIDS = {
    "tables": "{policy_kwargs: [{net_arch: [4]}, {net_arch: [8, 8]}], ent_coef: [0.1, 1.0]}",
    "lists": "{train_freq: [[1, step], [1, episode]]}",
    "tables and words": "{target_entropy: [auto, {schedule: {start: 0.9, end: 0.1}}, -1.0]}",
    "booleans and numbers": "{ent_coef: [1, true, 0.5]}",
    "infinity": "{max_grad_norm: [1.0, .inf]}",
    "nothing": "{target_entropy: [null, 1.0]}",
    "long texts": "{policy: [" + ", ".join(letter * 200 for letter in "abc") + "]}",
}


@pytest.mark.parametrize("what", GRIDS)
def test_a_grid_over_values_of_any_kind(tmp_path, quick, what):
    study = declare(tmp_path, "[sac]", f"grid: {GRIDS[what]}\nhyperparams: {{}}")
    for run in study.runs:
        write(study, run)
    text = page(study, tmp_path)
    n_varied = len(study.runs[0].varied)
    assert "could not be made" not in text and text.count("<svg") == 3 + n_varied
    assert len(rows(tmp_path, "final")) == len(study.runs) / 3


NAMES = ["$x_$", "$", "a $b$ \\\\$", "_hidden", "été, α", "<b>&", "%s {x}", "x\\ny", "a/../..", "x" * 300]


def test_names(tmp_path, quick):
    """They are no formulas, paths or markup."""
    table = ", ".join(f'"{name}": {{algo: sac}}' for name in NAMES)
    study = declare(tmp_path, f"{{{table}}}")
    for run in study.runs:
        write(study, run)
        assert study.results in study.result_of(run).parents and study.output in study.folder_of(run).parents
        assert ".." not in study.result_of(run).parts
    text = page(study, tmp_path)
    assert "could not be made" not in text and "<b>" not in text
    assert [row["algorithm"] for row in rows(tmp_path, "final")] == list(dict.fromkeys(run.name for run in study.runs))


def test_nothing_yet(tmp_path, capsys):
    """A report says so, and what became of the runs."""
    study = declare(tmp_path)
    write_failure(study, study.runs[0], "ValueError: out of luck (x.py, line 3)\n\nTraceback ...")
    assert main(["report", str(tmp_path / "odd.yml")]) == 0
    text = (tmp_path / "odd" / "report" / "index.html").read_text()
    assert "No run has a result yet" in text and "0 of 6 runs are finished" in text
    assert "failed: ValueError: out of luck (x.py, line 3) (1): sac/Pendulum-v1/0" in text and "not started (5)" in text


def test_failed_runs_are_listed_as_failed(tmp_path):
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run, (250,), to=study.partial_result_of(run))
        write_failure(study, run, "out of luck")
    assert {one.why for one in read_results(study)[2]} == {"failed: out of luck"}
    write(study, study.runs[0])
    assert [one.run for one in read_results(study)[0]] == [study.runs[0]]  # repeated, and finished


def npy():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped byte": lambda path: path.write_bytes(path.read_bytes()[:300] + b"\xff\xfe" + path.read_bytes()[302:]),
    "text": lambda path: path.write_text("nothing"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "an array alone": lambda path: path.write_bytes(npy()),
    "no returns": lambda path: np.savez(path, timesteps=np.arange(3)),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_result_counts_as_none(tmp_path, what):
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run)
    path = study.result_of(study.runs[0])
    DAMAGES[what](path)
    assert str(path) in why(study)
    with pytest.warns(UserWarning, match=r"sac/Pendulum-v1/0\.npz.*counts as not finished"):
        assert not is_finished(study, study.runs[0])


@pytest.mark.parametrize(
    "change",
    [
        {"timesteps": np.arange(3)},
        {"seconds": np.arange(3.0)},
        {"train_timesteps": np.arange(9)},
        {"versions": np.array("3")},
        {"versions": np.array("{")},
        {"deterministic": np.array([None, {}], object)},
        {"timesteps": np.array(["a"] * 4)},
        {"timesteps": np.zeros((4, 4))},
    ],
)
def test_a_result_that_does_not_fit(tmp_path, change):
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run)
    write(study, study.runs[0], **change)
    assert str(study.result_of(study.runs[0])) in why(study)


def test_a_result_of_another_declaration(tmp_path):
    """Put back from a copy, for example: the folder of the run knows nothing of it."""
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run)
    first = study.runs[0]
    study.declaration_of(first).parent.mkdir(parents=True)
    study.declaration_of(first).write_text(first.as_json())
    assert len(read_results(study)[0]) == 6
    write(study, first, declaration=np.array(first.as_json().replace("1000", "2000")))
    assert why(study) == "run with a different declaration (n_timesteps: 2000 -> 1000)"


def test_a_run_without_an_evaluation(tmp_path, quick):
    """A callback has ended it before the first one."""
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run)
    path = write(study, study.runs[0], (), train_returns=np.ones(1), train_timesteps=np.ones(1, int))
    assert len(read_result(study.runs[0], path).timesteps) == 0
    assert "ended by a callback before the first evaluation (1): sac/Pendulum-v1/0" in page(study, tmp_path)
    assert is_finished(study, study.runs[0])  # it would end there again


def test_a_damaged_declaration_is_named(tmp_path, quick, capsys):
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run)
    declaration = study.declaration_of(study.runs[0])
    declaration.parent.mkdir(parents=True)
    declaration.write_text('{"algo": ')
    assert "run.json cannot be read" in page(study, tmp_path)
    assert main(["run", str(tmp_path / "odd.yml")]) == 2
    assert "remove the folder" in capsys.readouterr().err


def test_a_section_that_fails_leaves_the_rest(tmp_path, monkeypatch):
    study = declare(tmp_path)
    for run in study.runs:
        write(study, run)

    def fail(*args):
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr(report, "final_table", fail)
    with pytest.warns(UserWarning, match="'Pendulum-v1, deterministic policy' of the report could not be made"):
        text = page(study, tmp_path)
    assert "This section could not be made: ZeroDivisionError: an accident" in text and "How to read it" in text


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    declare(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["report", str(tmp_path / "odd.yml"), "--to", str(tmp_path / "file" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err
