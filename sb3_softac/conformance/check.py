"""What a check is, and what it returns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from sb3_softac.conformance.subject import NotApplicable, Subject

KINDS = {"Box": spaces.Box(-1.0, 1.0, (1,), np.float32), "Discrete": spaces.Discrete(3)}


class Measurement(NamedTuple):
    """What a check has found."""

    exact: float
    measured: float
    tolerance: float
    interval: tuple[float, float] | None = None
    """Where the measured value lies with a confidence of 99.9 %; None if it was not estimated from samples."""
    at_most: bool = False
    """Whether a measured value below the exact one is as good."""

    @property
    def passed(self) -> bool:
        """Fails only if the whole interval is further from the exact value than the tolerance."""
        low, high = self.interval or (self.measured, self.measured)
        return low <= self.exact + self.tolerance and (self.at_most or high >= self.exact - self.tolerance)


Function = Callable[..., Measurement]


@dataclass(frozen=True)
class Check:
    """One check for one kind of action space."""

    name: str
    kind: str
    function: Function
    failure: str
    """What a failure means, in one sentence."""

    def run(self, subject: type[Subject], seed: int = 0) -> "CheckResult":
        """Run the check on one seed."""
        try:
            if error := subject.refuses(KINDS[self.kind]):
                raise NotApplicable(f"takes no {self.kind} actions: {error}")
            found: Measurement | str | Exception = self.function(subject, seed)
        except NotApplicable as reason:
            found = str(reason)
        except Exception as error:
            found = error
        return CheckResult(self, found)


class CheckResult(NamedTuple):
    """A check and what came of it."""

    check: Check
    found: Measurement | str | Exception
    """The measurement, why the check is not applicable, or the error that ended it."""

    @property
    def verdict(self) -> str:
        """``"pass"``, ``"FAIL"`` or ``"not applicable"``."""
        if isinstance(self.found, str):
            return "not applicable"
        return "pass" if isinstance(self.found, Measurement) and self.found.passed else "FAIL"

    def as_row(self) -> list[str]:
        """:return: Name, kind, exact value, measured value and both ends of its interval, tolerance and verdict."""
        numbers = [""] * 5
        if isinstance(found := self.found, Measurement):
            interval = found.interval or (found.measured, found.measured)
            numbers = [f"{value:.5g}" for value in (found.exact, found.measured, *interval, found.tolerance)]
        return [self.check.name, self.check.kind, *numbers, self.verdict]


CHECKS: list[Check] = []
"""All checks, in the order in which they run."""


def check(*kinds: str) -> Callable[[Function], Function]:
    """Register a function for these kinds of action space. Its docstring says what a failure means."""

    def register(function: Function) -> Function:
        name, failure = function.__name__.replace("_", " "), " ".join((function.__doc__ or "").split())
        CHECKS.extend(
            Check(name, kind, partial(function, kind=kind) if len(kinds) > 1 else function, failure) for kind in kinds
        )
        return function

    return register


def run(subject: type[Subject], seed: int = 0, only: str = "") -> Iterator[CheckResult]:
    """
    Run the checks for the action spaces that the algorithm takes.

    :param subject: The adapter; ``as_subject`` makes one of a class with SB3's interface.
    :param seed: Seed of the models and of the problems' random numbers.
    :param only: Run the checks whose name contains this.
    :return: The results, one at a time.
    :raises ValueError: if the algorithm cannot be created at all, or no check has such a name.
    """
    refused = {kind: error for kind, space in KINDS.items() if (error := subject.refuses(space))}
    if len(refused) == len(KINDS):
        raise ValueError(f"{subject.__name__} can be created neither for Box nor for Discrete actions: {refused}")
    if not (chosen := [each for each in CHECKS if only in each.name and each.kind not in refused]):
        names = sorted({each.name for each in CHECKS if each.kind not in refused})
        raise ValueError(
            f"no check for {sorted(KINDS.keys() - refused.keys())} actions has {only!r} in its name: choose from {names}"
        )
    return (each.run(subject, seed) for each in chosen)
