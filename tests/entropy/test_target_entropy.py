"""What DiscreteSAC's target_entropy argument may be, and what the schedules do."""

import math

import numpy as np
import pytest
import torch as th

from sb3_softac.entropy.target_entropy import DroppingTarget, LinearTarget, RatioTarget, discrete_target

CPU = th.device("cpu")
MAX_ENTROPY = math.log(4)


def make(target_entropy):
    return discrete_target(target_entropy, MAX_ENTROPY, CPU)


def drop(**options):
    """A drop schedule that follows the entropy at once."""
    return make({"schedule": "drop", "start": 0.8, "decay": 0.01, "patience": 3, "timeout": 50, **options})


@pytest.mark.parametrize(
    ("spec", "kind", "ratio"),
    [
        ("auto", RatioTarget, 0.98),
        ("ratio_0.5", RatioTarget, 0.5),
        ("ratio_0", RatioTarget, 0.0),
        ("ratio_1", RatioTarget, 1.0),
        (0.5 * MAX_ENTROPY, RatioTarget, 0.5),
        (0, RatioTarget, 0.0),
        (MAX_ENTROPY, RatioTarget, 1.0),
        ("0.7", RatioTarget, 0.7 / MAX_ENTROPY),
        (dict(schedule="linear"), LinearTarget, 0.98),
        (dict(schedule="linear", start=0.7, end=0.1, fraction=0.5), LinearTarget, 0.7),
        (dict(schedule="drop"), DroppingTarget, 0.98),
        (dict(schedule="drop", start=0.6), DroppingTarget, 0.6),
    ],
)
def test_kinds(spec, kind, ratio):
    target = make(spec)
    assert type(target) is kind
    assert target.ratio.item() == pytest.approx(ratio) and target.ratio.shape == ()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lots", r"'lots' is not valid: use 'auto'"),
        ("ratio_x", "not valid"),
        (None, "not valid"),
        (1.5, r"1\.5 nats cannot be reached: .*between 0 and 1\.386 nats$"),
        (-0.1, "cannot be reached: .*it is never negative. Use 'auto'"),
        (math.nan, "nan is not valid"),
        ("ratio_1.1", r"in \[0, 1\] .*got 1\.1"),
        ("ratio_-0.1", r"in \[0, 1\]"),
        ("ratio_nan", "'ratio_nan' is not valid"),
        (dict(), r"needs the key 'schedule', one of \['drop', 'linear'\]"),
        (dict(schedule="cosine"), "needs the key 'schedule'"),
        (dict(schedule="linear", start=2), r"target_entropy: start must be .*got 2"),
        (dict(schedule="drop", start=2), r"target_entropy: start must be .*got 2"),
        (
            dict(schedule="linear", stop=0.3),
            r"unknown options \['stop'\] of schedule 'linear'; use \['end', 'fraction', 'start'\]",
        ),
        (dict(schedule="drop", fraction=0.3), r"unknown options \['fraction'\] of schedule 'drop'"),
        (dict(schedule="linear", device="cpu"), r"unknown options \['device'\]"),
        (dict(schedule="linear", start=1.5), r"in \[0, 1\]"),
        (dict(schedule="linear", end=-0.5), r"in \[0, 1\]"),
        (dict(schedule="linear", fraction=0.0), r"fraction must be a number in \(0, 1\], got 0\.0"),
        (dict(schedule="drop", start=-0.5), r"in \[0, 1\]"),
        (dict(schedule="drop", end=1.5), r"in \[0, 1\]"),
        (dict(schedule="drop", start=0.3, end=0.9), r"drops from start=0\.3, it cannot end higher, at end=0\.9"),
        (dict(schedule="drop", factor=1.5), r"factor must be a number in \(0, 0.9999\]"),
        (dict(schedule="drop", patience=0), r"patience must be an integer, at least 1, or infinity"),
        (dict(schedule="drop", timeout=0), r"timeout must be an integer, at least 1, or infinity"),
        (dict(schedule="drop", tolerance=0.0), r"tolerance must be a number in \(0, 1\]"),
        (dict(schedule="drop", max_std=2.0), r"max_std must be a number in \(0, 1\]"),
        (dict(schedule="drop", decay=0.0), r"decay must be a number in \(0, 0.9999\]"),
    ],
)
def test_errors(spec, message):
    with pytest.raises(ValueError, match=message):
        make(spec)


def test_the_callers_dictionary_is_left_alone():
    spec = dict(schedule="linear", start=0.7)
    make(spec)
    assert spec == dict(schedule="linear", start=0.7)


def test_a_constant_follows_nothing():
    target = make("ratio_0.5")
    target.update(0.1)
    target.observe({"entropy_ratio": np.full(10, 0.9)})
    target.load_state(target.state())
    assert target.ratio.item() == 0.5 and target.state() == {}


def test_linear_follows_the_progress_in_place():
    target = make(dict(schedule="linear", start=0.9, end=0.1, fraction=0.5))
    held = target.ratio
    for progress_remaining, expected in ((1.0, 0.9), (0.75, 0.5), (0.5, 0.1), (0.2, 0.1), (0.0, 0.1), (1.0, 0.9)):
        target.update(progress_remaining)
        assert held.item() == pytest.approx(expected)
    whole = make(dict(schedule="linear", start=0.2, end=0.8))
    whole.update(0.5)
    assert whole.ratio.item() == pytest.approx(0.5)  # may rise too


def test_drops_once_the_policy_has_settled():
    target = drop()
    held = target.ratio
    target.observe({"entropy_ratio": np.full(2, 0.8)})
    assert held.item() == pytest.approx(0.8)
    target.observe({"entropy_ratio": np.full(1, 0.8)})
    assert held.item() == pytest.approx(0.72)  # the third step of patience
    target.observe({"entropy_ratio": np.full(20, 0.8)})
    assert held.item() == pytest.approx(0.72)  # the policy is not there yet
    target.observe({"entropy_ratio": np.full(4, 0.72)})
    assert held.item() == pytest.approx(0.648)  # the first of them calms the standard deviation down


def test_a_disturbance_restarts_the_patience():
    target = drop()
    target.observe({"entropy_ratio": np.array([0.8, 0.8, 0.4, 0.8, 0.8])})
    assert target.ratio.item() == pytest.approx(0.8)
    target.observe({"entropy_ratio": np.full(10, 0.8)})
    assert target.ratio.item() == pytest.approx(0.72)


def test_the_patience_counts_from_the_last_drop():
    target = drop(tolerance=1.0, max_std=1.0)
    for steps, expected in ((2, 0.8), (1, 0.72), (2, 0.72), (1, 0.648)):
        target.observe({"entropy_ratio": np.full(steps, 0.8)})
        assert target.ratio.item() == pytest.approx(expected)


def test_a_policy_that_swings_around_the_target_has_not_settled():
    swings = np.tile([0.7, 0.9], 100)
    calm, nervous = (drop(decay=0.9, patience=10, tolerance=0.05, max_std=max_std, timeout=1_000) for max_std in (0.2, 0.05))
    for target in (calm, nervous):
        target.observe({"entropy_ratio": swings})
    assert calm.ratio.item() < 0.8 and nervous.ratio.item() == pytest.approx(0.8)


def test_the_distance_from_the_target_counts():
    near, far = drop(tolerance=0.05), drop(tolerance=0.01)
    for target in (near, far):
        target.observe({"entropy_ratio": np.full(20, 0.77)})
    assert near.ratio.item() < 0.8 and far.ratio.item() == pytest.approx(0.8)


def test_moving_averages_of_the_paper():
    """Against the averages written out: mean and standard deviation with weight ``decay`` of the past."""
    target, mean, square = drop(decay=0.9, patience=1_000), 0.8, 0.64
    ratios = np.random.default_rng(0).uniform(0.2, 0.9, 30)
    target.observe({"entropy_ratio": ratios})
    for ratio in ratios:
        mean, square = 0.9 * mean + 0.1 * ratio, 0.9 * square + 0.1 * ratio**2
    state = target.state()
    assert (state["_mean"], state["_square"]) == (pytest.approx(mean), pytest.approx(square))


def test_timeout():
    target = drop()
    target.observe({"entropy_ratio": np.full(49, 0.1)})
    assert target.ratio.item() == pytest.approx(0.8)
    target.observe({"entropy_ratio": np.full(1, 0.1)})
    assert target.ratio.item() == pytest.approx(0.72)
    target.observe({"entropy_ratio": np.full(50, 0.1)})
    assert target.ratio.item() == pytest.approx(0.648)  # counted from the last drop


def test_floor():
    target = drop(end=0.5, factor=0.7)
    target.observe({"entropy_ratio": np.full(200, 0.1)})
    assert target.ratio.item() == pytest.approx(0.5)


@pytest.mark.parametrize("split", [2, 80])  # before a drop by patience, and between two by timeout
def test_state_round_trip(split):
    ratios = np.concatenate([np.full(4, 0.8), np.random.default_rng(0).uniform(0.1, 0.5, 116)])
    straight, parted, resumed = drop(), drop(), drop()
    straight.observe({"entropy_ratio": ratios})
    parted.observe({"entropy_ratio": ratios[:split]})
    resumed.load_state(parted.state())
    assert resumed.ratio.item() == parted.ratio.item()
    resumed.observe({"entropy_ratio": ratios[split:]})
    assert resumed.state() == straight.state() and resumed.ratio.item() == straight.ratio.item()


def test_a_fresh_target_loads_the_empty_state():
    target = drop()
    target.load_state({})
    assert target.ratio.item() == pytest.approx(0.8)
