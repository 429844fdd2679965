"""The statistics of the regression gate against numbers worked out by hand, and its decisions on made-up runs."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

gate = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "gate.py")))
STORED = [[4.0, 4.0], [5.0, 5.0], [6.0, 6.0], [7.0, 7.0]]


@pytest.mark.parametrize(
    ("new", "p"),
    [
        ([[1.0, 1.0], [2.0, 2.0]], 2 / 15),  # of the 15 choices of two among six, one is as bad; two numbers are tested
        ([[1.0, 1.0], [4.5, 4.5]], 4 / 15),
        ([[1.0, 8.0], [2.0, 9.0]], 2 / 15),  # worse in the first number, better in the second
        ([[8.0, 8.0], [9.0, 9.0]], 1.0),
    ],
)
def test_p_value(new, p):
    assert gate.p_value(np.array(new), np.array(STORED)) == pytest.approx(p)


@pytest.mark.parametrize(
    ("p", "n", "verdict"),
    [(1 / 2400, 3, "worse"), (1 / 2399, 3, "open"), (0.1, 6, "open"), (0.101, 3, "kept"), (0.05, 12, "kept")],
)
def test_verdict(p, n, verdict):
    assert gate.verdict(p, n) == verdict


def outcomes_of(shift):
    """What the gate finds if SQL loses so many standard deviations, and the runs that it asked for."""
    rng, asked = np.random.default_rng(0), []
    stored = {name: rng.normal(size=(30, 2)) for name in gate.ENTRIES}

    def train_all(runs):
        asked.extend(runs)
        return [tuple(rng.normal(size=2) - shift * (name == "SQL")) for name, _ in runs]

    return {outcome.algorithm: outcome for outcome in gate.gate(stored, 1000, train_all)}, asked


def test_a_large_loss_is_caught_at_the_first_look():
    outcomes, asked = outcomes_of(5.0)
    assert [name for name, outcome in outcomes.items() if outcome.verdict == "worse"] == ["SQL"]
    assert outcomes["SQL"].runs == 3 and outcomes["SQL"].wins < 0.05
    assert sorted(seed for name, seed in asked if name == "SQL") == [1000, 1100, 1200]


def test_a_smaller_loss_takes_more_runs():
    outcomes, asked = outcomes_of(1.8)
    assert outcomes["SQL"].verdict == "worse" and outcomes["SQL"].runs > 3
    assert len(asked) == len({*asked}) == sum(outcome.runs for outcome in outcomes.values())


def test_rates_are_those_that_are_stated():
    rng = np.random.default_rng(0)
    rates = {
        row["change"]: float(row["worse"]) for row in gate.simulate({"SoftAC_v1": rng.normal([-5, -1.5], 0.3, (30, 2))}, 60)
    }
    assert rates["none"] <= 0.01 and rates["every run loses a quarter"] > 0.9


def test_stored_runs_are_those_of_the_present_settings():
    assert {name: len(runs) >= gate.STORED for name, runs in gate.stored_runs().items()} == dict.fromkeys(gate.ENTRIES, True)


def test_a_run_repeats_itself_and_plants_are_felt(monkeypatch):
    monkeypatch.setitem(gate.ENTRIES, "DiscreteSAC", gate.ENTRIES["DiscreteSAC"]._replace(steps=440))
    first, again, planted = (gate.train("DiscreteSAC", 5, plant) for plant in (None, None, "no target network"))
    assert first == again != planted
