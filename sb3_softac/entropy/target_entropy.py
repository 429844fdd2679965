"""
The target entropy for a learned temperature, as an object with one interface for all algorithms: constant or scheduled.

For continuous policies the target is in nats; for discrete policies it is a fraction of the largest possible entropy,
log|A| (summed over branches, and over the allowed actions of a state where there are masks), so that one setting serves every
action space.
"""

import inspect
import math
from typing import Any

import numpy as np
import torch as th

from sb3_softac.checks import Argument, Refused, did_you_mean, integer, number, read, shown
from sb3_softac.equations.temperature import continuous_target_entropy

# Hyperparameters of arXiv:1910.07207 (appendix)
PAPER_RATIO = 0.98
# A continuous policy counts as having lost its entropy this many nats per action dimension below the target: a tanh-Gaussian
# gets there only where tanh is flat
LOST_NATS = 5.0
# A discrete policy counts as having lost its entropy below this ratio if the target is larger than 0.1: a working policy stays
# above
LOST_RATIO = 1e-3

STEPS = integer(1, " gradient step")
COUNT = Argument("an integer, at least 1, or infinity", lambda value: value if value == math.inf else STEPS.read(value))
NATS = number("a number of nats")
RATIO = number("a ratio of log|A| in [0, 1] (1 is the uniform policy)", lambda ratio: 0.0 <= ratio <= 1.0)


class TargetEntropy:
    """
    A constant number of nats, for continuous actions; base class of the targets of discrete policies.

    :param nats: Target in nats.
    :param action_dim: Number of action dimensions.
    """

    needs_entropy = False
    """Whether :meth:`observe` must be called after each round of gradient steps."""

    def __init__(self, nats: float, action_dim: int):
        self._nats, self._action_dim = nats, action_dim

    @property
    def nats(self) -> float:
        """The current target in nats; for discrete policies, with all actions allowed."""
        return self._nats

    def update(self, progress_remaining: float) -> None:
        """Follow a schedule, called before each round of gradient steps; 1 at the start of training, 0 at its end."""

    def observe(self, logs: dict[str, np.ndarray]) -> None:
        """Receive what a round of gradient steps logged, by name ``[n_steps]``."""

    def is_lost(self, logs: dict[str, np.ndarray]) -> np.ndarray:
        """:return: Whether the policy had almost no entropy, far below the target ``[n_steps]``."""
        return logs["entropy"] < self._nats - LOST_NATS * self._action_dim

    def state(self) -> dict[str, float]:
        """:return: The state that a resumed training run needs."""
        return {}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue with what :meth:`state` returned."""


class RatioTarget(TargetEntropy):
    """
    A constant ratio, as in arXiv:1910.07207; base class of the schedules.

    :param max_entropy: log|A|, in nats.
    :param device: Device of the networks.
    :param ratio: Ratio of the largest entropy, in [0, 1].
    :raises ValueError: if the ratio is out of range.
    """

    def __init__(self, max_entropy: float, device: th.device, ratio: float = PAPER_RATIO):
        self.max_entropy = max_entropy
        self.ratio = th.tensor(check_ratio("target_entropy", ratio), device=device)
        """Target as a ratio of the largest entropy, a tensor without dimensions."""

    @property
    def nats(self) -> float:
        return float(self.ratio) * self.max_entropy

    def is_lost(self, logs: dict[str, np.ndarray]) -> np.ndarray:
        return (logs["entropy_ratio"] < LOST_RATIO) & (logs["target_entropy_ratio"] > 0.1)


class LinearTarget(RatioTarget):
    """
    A ratio that changes linearly with the training progress.

    :param max_entropy: log|A|, in nats.
    :param device: Device of the networks.
    :param start: Ratio at the start.
    :param end: Ratio from ``fraction`` on.
    :param fraction: Part of the training, in (0, 1], over which the ratio goes from ``start`` to ``end``.
    :raises ValueError: if a value is out of range.
    """

    def __init__(
        self, max_entropy: float, device: th.device, start: float = PAPER_RATIO, end: float = 0.3, fraction: float = 1.0
    ):
        self.start, self.end = check_ratio("target_entropy: start", start), check_ratio("target_entropy: end", end)
        super().__init__(max_entropy, device, self.start)
        self.fraction = check_range("fraction", fraction, 1.0)

    def update(self, progress_remaining: float) -> None:
        done = min((1.0 - progress_remaining) / self.fraction, 1.0)
        self.ratio.fill_(self.start + done * (self.end - self.start))


class DroppingTarget(RatioTarget):
    """
    Target entropy scheduling (TES-SAC, arXiv:2112.02852): the target drops once the policy has settled at it.

    The policy has settled when, for ``patience`` gradient steps in a row, the moving average of its entropy is within
    ``tolerance`` of the target and the moving standard deviation is below ``max_std``. A target that the policy never reaches
    would never drop, so it drops after ``timeout`` gradient steps in any case (not in the paper).

    :param max_entropy: log|A|, in nats.
    :param device: Device of the networks.
    :param start: Ratio at the start.
    :param end: Smallest ratio.
    :param factor: Each drop multiplies the ratio by this, in (0, 0.9999].
    :param patience: Number of gradient steps in a row for which the policy must have settled.
    :param timeout: Gradient steps after which the ratio drops in any case.
    :param tolerance: Largest distance of the average from the target, as a ratio.
    :param max_std: Largest standard deviation, as a ratio.
    :param decay: Weight of the past in the moving averages, in (0, 0.9999].
    :raises ValueError: if a value is out of range.
    """

    needs_entropy = True

    def __init__(
        self,
        max_entropy: float,
        device: th.device,
        start: float = PAPER_RATIO,
        end: float = 0.0,
        factor: float = 0.9,
        patience: int = 1_000,
        timeout: int = 5_000,
        tolerance: float = 0.01,
        max_std: float = 0.05,
        decay: float = 0.999,
    ):
        self._target = self._mean = start = check_ratio("target_entropy: start", start)
        super().__init__(max_entropy, device, start)
        self.end, self.factor = check_ratio("target_entropy: end", end), check_range("factor", factor, 0.9999)
        if self.end > start:
            raise Refused(f"target_entropy: the ratio drops from start={start}, it cannot end higher, at end={self.end}")
        self.patience = read("target_entropy: patience", patience, COUNT)
        self.timeout = read("target_entropy: timeout", timeout, COUNT)
        self.tolerance = check_range("tolerance", tolerance, 1.0)
        self.max_std = check_range("max_std", max_std, 1.0)
        self.decay = check_range("decay", decay, 0.9999)
        self._square = start**2
        self._settled = self._age = 0

    def observe(self, logs: dict[str, np.ndarray]) -> None:
        for ratio in logs["entropy_ratio"].tolist():
            self._mean += (1.0 - self.decay) * (ratio - self._mean)
            self._square += (1.0 - self.decay) * (ratio**2 - self._square)
            std = math.sqrt(max(self._square - self._mean**2, 0.0))
            near = abs(self._mean - self._target) < self.tolerance and std < self.max_std
            self._settled = self._settled + 1 if near else 0
            self._age += 1
            if self._settled >= self.patience or self._age >= self.timeout:
                self._target = max(self.factor * self._target, self.end)
                self._settled = self._age = 0
        self.ratio.fill_(self._target)

    def state(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("_target", "_mean", "_square", "_settled", "_age")}

    def load_state(self, state: dict[str, float]) -> None:
        vars(self).update(state)
        self.ratio.fill_(self._target)


SCHEDULES: dict[str, type[RatioTarget]] = {"linear": LinearTarget, "drop": DroppingTarget}


def read_nats(value: Any) -> float | str:
    """:return: A number of nats, also from text as YAML has it, or ``"auto"``; raises ValueError for anything else."""
    if not isinstance(value, str):
        return NATS.read(value)
    return value if value == "auto" else NATS.read(float(value))


def continuous_target(target_entropy: Any, shape: tuple[int, ...]) -> TargetEntropy:
    """The target entropy for continuous actions: a number of nats, or ``"auto"`` for minus the number of dimensions."""
    nats = read(
        "target_entropy",
        target_entropy,
        Argument("a finite number of nats or 'auto' (schedules are for discrete actions)", read_nats),
    )
    return TargetEntropy(continuous_target_entropy(shape) if nats == "auto" else float(nats), math.prod(shape))


def discrete_target(target_entropy: Any, max_entropy: float, device: th.device) -> RatioTarget:
    """
    The target entropy for discrete actions: ``"auto"`` (0.98 log|A|), ``"ratio_<r>"`` (r log|A|), a number of nats, or a
    dictionary with the key ``schedule`` (``"linear"`` or ``"drop"``) and its options.
    """
    if isinstance(target_entropy, dict):
        options = dict(target_entropy)
        name = options.pop("schedule", None)
        if not isinstance(name, str) or name not in SCHEDULES:
            raise Refused(f"target_entropy={shown(target_entropy)} needs the key 'schedule', one of {sorted(SCHEDULES)}")
        kind = SCHEDULES[name]
        known = inspect.signature(kind).parameters.keys() - {"max_entropy", "device"}
        if unknown := [option for option in options if option not in known]:
            raise Refused(
                f"target_entropy: unknown options {unknown} of schedule {name!r}{did_you_mean(unknown[0], known)}; use "
                f"{sorted(known)}"
            )
        return kind(max_entropy, device, **options)
    if isinstance(target_entropy, str) and target_entropy == "auto":
        return RatioTarget(max_entropy, device)
    is_ratio = isinstance(target_entropy, str) and target_entropy.startswith("ratio_")
    try:
        value = NATS.read(float(target_entropy.removeprefix("ratio_")) if isinstance(target_entropy, str) else target_entropy)
    except (TypeError, ValueError):
        raise Refused(
            f"target_entropy={shown(target_entropy)} is not valid: use 'auto' (0.98 log|A|), 'ratio_<r>' for r log|A| (e.g. "
            "'ratio_0.5'), a number of nats, or a dictionary with a 'schedule'"
        ) from None
    if is_ratio:
        return RatioTarget(max_entropy, device, value)
    if not 0.0 <= value <= max_entropy:
        advice = f" (for a ratio write 'ratio_{value}')" if 0.0 <= value <= 1.0 else ""
        if value < 0.0:
            advice = ": unlike a density's, it is never negative. Use 'auto' or e.g. 'ratio_0.5'"
        raise Refused(
            f"target_entropy={value} nats cannot be reached: the entropy of this action space is between 0 and "
            f"{max_entropy:.3f} nats{advice}"
        )
    # A single action has zero entropy
    return RatioTarget(max_entropy, device, value / max_entropy if max_entropy else 0.0)


def check_ratio(name: str, ratio: Any) -> float:
    """:raises ValueError: if it is not in [0, 1]."""
    return float(read(name, ratio, RATIO))


def check_range(name: str, value: Any, high: float) -> float:
    """:raises ValueError: if it is not in (0, high]."""
    inside = number(f"a number in (0, {high:g}]", lambda candidate: 0.0 < candidate <= high)
    return read(f"target_entropy: {name}", value, inside)
