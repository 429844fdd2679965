"""
The temperature alpha (SB3: ``ent_coef``) as an object with one interface: fixed, scheduled or learned.
"""

import math
from abc import ABC, abstractmethod

import torch as th
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac.equations.temperature import temperature_loss

# Where "lin_<value>" ends, as a part of where it starts: the Zoo's linear schedules end at 0, which no temperature may be
LINEAR_END = 1e-3


class Temperature(ABC):
    """Interface of a temperature."""

    optimizer: th.optim.Optimizer | None = None
    """Optimizer of the temperature's parameters; None if there are none."""

    @property
    @abstractmethod
    def alpha(self) -> th.Tensor:
        """The temperature in units of reward per nat, a tensor without dimensions and without gradient."""

    def update(self, progress_remaining: float) -> None:  # noqa: B027  (most temperatures have no schedule to follow)
        """
        Follow the schedule; called once before each round of gradient steps.

        :param progress_remaining: 1 at the start of training, 0 at its end.
        """

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

    :param value: Temperature, greater than 0.
    :param device: Device of the networks.
    :raises ValueError: if it is not a finite number greater than 0.
    """

    def __init__(self, value: float, device: th.device):
        self._alpha = th.tensor(check_temperature(value), device=device)

    @property
    def alpha(self) -> th.Tensor:
        return self._alpha


class NoTemperature(Temperature):
    """
    0, for a deterministic policy, whose entropy does not count.

    :param device: Device of the networks.
    """

    def __init__(self, device: th.device):
        self._alpha = th.zeros((), device=device)

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
        check_temperature(schedule(0.0))  # a schedule that falls to 0 is found now, not at the end of the training
        super().__init__(schedule(1.0), device)
        self.schedule = schedule

    def update(self, progress_remaining: float) -> None:
        # In place: whoever holds the tensor sees the new value.
        self._alpha.fill_(check_temperature(self.schedule(progress_remaining)))


class AutoTemperature(Temperature):
    """
    Learned so that the entropy of the policy meets a target (arXiv:1812.05905); SB3's ``ent_coef="auto"``.

    :param value: Initial temperature, greater than 0.
    :param device: Device of the networks.
    :param learning_rate: Learning rate of log alpha.
    :param bounds: Smallest and largest temperature; None for no bounds.
    :raises ValueError: if the initial value is not a finite number greater than 0, or not within the bounds.
    """

    optimizer: th.optim.Optimizer

    def __init__(self, value: float, device: th.device, learning_rate: float, bounds: tuple[float, float] | None = None):
        self._log_bounds = None
        if bounds is not None:
            low, high = (check_temperature(bound) for bound in bounds)
            if not low <= value <= high:
                raise ValueError(f"ent_coef starts at {value}, outside of ent_coef_bounds=({low}, {high})")
            self._log_bounds = math.log(low), math.log(high)
        self.log_ent_coef = th.full((1,), math.log(check_temperature(value)), device=device, requires_grad=True)
        self.optimizer = th.optim.Adam([self.log_ent_coef], lr=learning_rate, fused=True)

    @property
    def alpha(self) -> th.Tensor:
        return self.log_ent_coef.detach().exp().squeeze(0)

    def losses(self, log_pi: th.Tensor, target_entropy: th.Tensor | float) -> dict[str, th.Tensor]:
        return {"ent_coef_loss": temperature_loss(self.log_ent_coef, log_pi, target_entropy)}

    def parameters(self) -> list[th.Tensor]:
        return [self.log_ent_coef]

    @th.no_grad()
    def bound(self) -> None:
        if self._log_bounds is not None:
            self.log_ent_coef.clamp_(*self._log_bounds)


def check_temperature(value: float) -> float:
    """
    Validate a temperature.

    :param value: Candidate.
    :return: The same number.
    :raises ValueError: if it is not a finite number greater than 0.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"ent_coef (the temperature) must be a finite number greater than 0, got {value}")
    return float(value)


def make_temperature(
    ent_coef: str | float | Schedule, device: th.device, learning_rate: float, bounds: tuple[float, float] | None = None
) -> Temperature:
    """
    Read SB3's ``ent_coef`` argument.

    :param ent_coef: A number greater than 0, ``"auto"``, ``"auto_<initial value>"``, ``"lin_<initial value>"`` (falls linearly
        to a thousandth of it), or a schedule.
    :param device: Device of the networks.
    :param learning_rate: Learning rate of a learned temperature.
    :param bounds: Smallest and largest value of a learned temperature; None for no bounds.
    :return: The temperature.
    :raises ValueError: if ``ent_coef`` is none of these, or bounds are given for a temperature that is not learned.
    """
    kind, value = _read_ent_coef(ent_coef)
    if bounds is not None and kind != "auto":
        raise ValueError(
            f"ent_coef_bounds={bounds} apply only to a learned temperature, but ent_coef={ent_coef!r}: leave one of them out"
        )
    if callable(ent_coef):
        return ScheduledTemperature(ent_coef, device)
    if kind == "lin":
        return ScheduledTemperature(LinearSchedule(value, LINEAR_END * value, 1.0), device)
    return AutoTemperature(value, device, learning_rate, bounds) if kind == "auto" else FixedTemperature(value, device)


def _read_ent_coef(ent_coef: str | float | Schedule) -> tuple[str, float]:
    """:return: ``"auto"``, ``"lin"`` or ``""`` for neither, and the number that was given (1 for none)."""
    if callable(ent_coef):
        return "", 1.0
    text = "auto_1" if ent_coef == "auto" else str(ent_coef)
    kind = next((kind for kind in ("auto", "lin") if text.startswith(f"{kind}_")), "")
    try:
        return kind, float(text.removeprefix(f"{kind}_") if kind else text)
    except ValueError:
        raise ValueError(
            f"ent_coef={ent_coef!r} is not valid: use a number greater than 0, 'auto', 'auto_<initial value>' (e.g. "
            "'auto_0.1'), 'lin_<initial value>', or a schedule (a function of the remaining progress)"
        ) from None
