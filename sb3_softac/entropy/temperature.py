"""
The temperature alpha (SB3: ``ent_coef``) as an object with one interface: fixed, scheduled or learned.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac.checks import Refused, evaluate, is_number, number, read, shown
from sb3_softac.equations.temperature import temperature_loss

# Where "lin_<value>" ends, as a fraction of where it starts: the Zoo's linear schedules end at 0, which no temperature may be
LINEAR_END = 1e-3
NAME = "ent_coef (the temperature)"
Bounds = tuple[float | None, float | None]

SINGLE = th.finfo(th.float32)
TEMPERATURE = number("a finite number greater than 0 (in single precision)", lambda value: SINGLE.tiny <= value <= SINGLE.max)


class Temperature(ABC):
    """Interface of a temperature."""

    optimizer: th.optim.Optimizer | None = None
    """Optimizer of the temperature's parameters; None if there are none."""

    @property
    @abstractmethod
    def alpha(self) -> th.Tensor:
        """The temperature in units of reward per nat, a tensor without dimensions and without gradient."""

    def update(self, progress_remaining: float) -> None:  # noqa: B027  (most temperatures have no schedule to follow)
        """Follow the schedule before each round of gradient steps; progress is 1 at the start of training, 0 at its end."""

    def losses(self, log_pi: th.Tensor, target_entropy: th.Tensor | float) -> dict[str, th.Tensor]:
        """
        The loss of the temperature's own parameters, to be minimised along with those of the networks.

        :param log_pi: Log-densities of sampled actions, or minus the entropies ``[...]``, in nats.
        :param target_entropy: Target entropy of the policy in nats, a number or one per state ``[...]``.
        :return: The scalar loss under the name by which it is logged; empty if nothing is learned.
        """
        return {}

    def parameters(self) -> list[th.Tensor]:
        """:return: The learned parameters of the temperature."""
        return []

    def bound(self) -> None:  # noqa: B027
        """Clamp a learned temperature to its bounds; called after each step of the optimizer."""


class FixedTemperature(Temperature):
    """
    A constant, as in arXiv:1801.01290 (there as a reward scale of 1 / alpha).

    :param value: Temperature; 0 for a deterministic policy, whose entropy does not count.
    :param device: Device of the networks.
    """

    def __init__(self, value: float, device: th.device):
        self._alpha = th.tensor(float(value), device=device)

    @property
    def alpha(self) -> th.Tensor:
        return self._alpha


class ScheduledTemperature(FixedTemperature):
    """
    A function of the training progress.

    :param schedule: Maps the remaining progress (1 at the start, 0 at the end) to a temperature greater than 0.
    :param device: Device of the networks.
    :raises ValueError: if the schedule gives a temperature that is not a finite number greater than 0.
    """

    def __init__(self, schedule: Schedule, device: th.device):
        super().__init__(_scheduled(schedule, 1.0), device)
        _scheduled(schedule, 0.0)  # a schedule that falls to 0 is found now, not at the end of the training
        self.schedule = schedule

    def update(self, progress_remaining: float) -> None:
        # In place: whoever holds the tensor sees the new value.
        self._alpha.fill_(_scheduled(self.schedule, progress_remaining))


class AutoTemperature(Temperature):
    """
    Learned so that the entropy of the policy meets a target (arXiv:1812.05905); SB3's ``ent_coef="auto"``.

    :param value: Initial temperature, greater than 0.
    :param device: Device of the networks.
    :param learning_rate: Learning rate of log alpha.
    :param bounds: Smallest and largest temperature, each may be None; None for no bounds.
    :param starts: Whether the training starts with this value, so that it must be within the bounds.
    :raises ValueError: if the initial value is not a finite number greater than 0, or not within the bounds.
    """

    optimizer: th.optim.Optimizer

    def __init__(
        self, value: float, device: th.device, learning_rate: float, bounds: Bounds | None = None, starts: bool = True
    ):
        value = read(NAME, value, TEMPERATURE)
        low, high = check_bounds(bounds) or (None, None)
        if starts and ((low is not None and value < low) or (high is not None and value > high)):
            raise Refused(f"ent_coef starts at {value}, outside of ent_coef_bounds=({low}, {high})")
        self.set_bounds(bounds)
        self.log_ent_coef = th.full((1,), math.log(value), device=device, requires_grad=True)
        self.optimizer = th.optim.Adam([self.log_ent_coef], lr=learning_rate, fused=True)

    def set_bounds(self, bounds: Bounds | None) -> None:
        """Change the bounds, None for none; the next step of the optimizer clamps the temperature to them."""
        low, high = check_bounds(bounds) or (None, None)
        self._log_bounds = None if low is None else math.log(low), None if high is None else math.log(high)

    @th.no_grad()
    def restart_as(self, new: "AutoTemperature") -> None:
        """Become like a new one, except that the parameter is the same tensor: a checkpoint restores its value only."""
        self.log_ent_coef.copy_(new.log_ent_coef)
        self.optimizer, self._log_bounds = new.optimizer, new._log_bounds
        self.optimizer.param_groups[0]["params"] = [self.log_ent_coef]

    @property
    def alpha(self) -> th.Tensor:
        return self.log_ent_coef.detach().exp().squeeze(0)

    def losses(self, log_pi: th.Tensor, target_entropy: th.Tensor | float) -> dict[str, th.Tensor]:
        return {"ent_coef_loss": temperature_loss(self.log_ent_coef, log_pi, target_entropy)}

    def parameters(self) -> list[th.Tensor]:
        return [self.log_ent_coef]

    @th.no_grad()
    def bound(self) -> None:
        if self._log_bounds != (None, None):
            self.log_ent_coef.clamp_(*self._log_bounds)


def _scheduled(schedule: Schedule, progress_remaining: float) -> float:
    return evaluate(NAME, schedule, progress_remaining, TEMPERATURE)


def check_bounds(bounds: Any) -> Bounds | None:
    """The argument ``ent_coef_bounds`` as a tuple; ValueError if it is not valid."""
    if bounds is None:
        return None
    try:
        low, high = (None if bound is None else TEMPERATURE.read(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise Refused(
            "ent_coef_bounds must be the smallest and the largest temperature, finite numbers greater than 0 or None for no "
            f"bound, got {shown(bounds)}"
        ) from None
    if low is not None and high is not None and low > high:
        raise Refused(f"ent_coef_bounds must not have a lower bound above the upper one, got {shown(bounds)}")
    return low, high


def make_temperature(
    ent_coef: str | float | Schedule,
    device: th.device,
    learning_rate: float,
    bounds: Bounds | None = None,
    starts: bool = True,
) -> Temperature:
    """
    Read SB3's ``ent_coef`` argument.

    :param ent_coef: A number greater than 0, ``"auto"``, ``"auto_<initial value>"``, ``"lin_<initial value>"`` (falls linearly
        to a thousandth of it), or a schedule.
    :param device: Device of the networks.
    :param learning_rate: Learning rate of a learned temperature.
    :param bounds: Smallest and largest value of a learned temperature, each may be None; None for no bounds.
    :param starts: Whether the training starts with it; False if a learned value is about to take its place.
    :return: The temperature.
    :raises ValueError: if ``ent_coef`` is none of these, or bounds are given for a temperature that is not learned.
    """
    kind, value = _read_ent_coef(ent_coef)
    if bounds is not None and kind != "auto":
        raise Refused(
            f"ent_coef_bounds={bounds} apply only to a learned temperature, but ent_coef={ent_coef!r}: leave one of them out"
        )
    if callable(ent_coef):
        return ScheduledTemperature(ent_coef, device)
    if kind == "lin":
        return ScheduledTemperature(LinearSchedule(value, LINEAR_END * value, 1.0), device)
    if kind == "auto":
        return AutoTemperature(value, device, learning_rate, bounds, starts)
    return FixedTemperature(read(NAME, value, TEMPERATURE), device)


def _read_ent_coef(ent_coef: Any) -> tuple[str, float]:
    """:return: ``"auto"``, ``"lin"`` or ``""`` for neither, and the number that was given (1 for none)."""
    if callable(ent_coef) and not isinstance(ent_coef, type):
        return "", 1.0
    text = "auto_1" if isinstance(ent_coef, str) and ent_coef == "auto" else ent_coef
    kind = next((kind for kind in ("auto", "lin") if isinstance(text, str) and text.startswith(f"{kind}_")), "")
    try:
        if not isinstance(text, str) and not is_number(text):
            raise TypeError
        return kind, float(text.removeprefix(f"{kind}_") if isinstance(text, str) else text)
    except (TypeError, ValueError):
        raise Refused(
            f"ent_coef={shown(ent_coef)} is not valid: use a number greater than 0, 'auto', 'auto_<initial value>' (e.g. "
            "'auto_0.1'), 'lin_<initial value>', or a schedule (a function of the remaining progress)"
        ) from None


def check_ent_coef(ent_coef: Any, bounds: Bounds | None = None, starts: bool = True) -> Any:
    """The argument ``ent_coef``, NumPy's numbers as floats; ValueError if :func:`make_temperature` refuses it."""
    make_temperature(ent_coef, th.device("cpu"), 0.0, bounds, starts)
    return float(ent_coef) if is_number(ent_coef) and not isinstance(ent_coef, int) else ent_coef
