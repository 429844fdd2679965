import math

import pytest
import torch as th
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac.entropy.temperature import AutoTemperature, FixedTemperature, ScheduledTemperature, make_temperature

CPU = th.device("cpu")


def make(ent_coef, bounds=None):
    return make_temperature(ent_coef, CPU, learning_rate=0.1, bounds=bounds)


@pytest.mark.parametrize(
    ("ent_coef", "kind", "value"),
    [
        (0.2, FixedTemperature, 0.2),
        ("0.3", FixedTemperature, 0.3),
        (1, FixedTemperature, 1.0),
        ("auto", AutoTemperature, 1.0),
        ("auto_0.1", AutoTemperature, 0.1),
        ("auto_1e-3", AutoTemperature, 1e-3),
        (LinearSchedule(1.0, 0.1, 1.0), ScheduledTemperature, 1.0),
        ("lin_0.2", ScheduledTemperature, 0.2),
    ],
)
def test_kinds(ent_coef, kind, value):
    temperature = make(ent_coef)
    assert type(temperature) is kind
    assert temperature.alpha.item() == pytest.approx(value)
    assert temperature.alpha.shape == () and not temperature.alpha.requires_grad


@pytest.mark.parametrize(
    "ent_coef", [0.0, -0.2, "auto_0", "auto_-1", "lin_0", math.nan, math.inf, "auto_nan", lambda _: 0.0, lambda p: p]
)
def test_temperatures_that_are_not_positive(ent_coef):
    with pytest.raises(ValueError, match="greater than 0"):
        make(ent_coef)


@pytest.mark.parametrize("ent_coef", ["automatic", "auto0.1", "auto_x", "lin", "lin_x", "", None])
def test_malformed(ent_coef):
    with pytest.raises(ValueError, match=r"not valid.*auto_<initial value>"):
        make(ent_coef)


def test_schedule_is_followed_in_place():
    temperature = make(LinearSchedule(1.0, 0.2, 1.0))
    held = temperature.alpha
    temperature.update(0.5)
    assert held.item() == pytest.approx(0.6)
    assert temperature.losses(th.zeros(3), -1.0) == {} and temperature.optimizer is None
    assert temperature.parameters() == []


def test_schedule_that_fails_midway():
    temperature = make(lambda progress: 1.0 if progress in (0.0, 1.0) else -1.0)
    with pytest.raises(ValueError, match="greater than 0"):
        temperature.update(0.5)


def test_a_line_ends_at_a_thousandth():
    temperature = make("lin_0.2")
    temperature.update(0.0)
    assert temperature.alpha.item() == pytest.approx(2e-4)
    temperature.update(0.5)
    assert temperature.alpha.item() == pytest.approx((0.2 + 2e-4) / 2)
