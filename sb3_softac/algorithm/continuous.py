"""Code that the algorithms with continuous actions share: a bounded action space and a target entropy in nats."""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from sb3_softac.algorithm.arguments import ARGUMENTS, check_bounded_box
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.checks import Argument, number, read
from sb3_softac.equations.temperature import continuous_target_entropy

# Nats per action dimension below the target: a tanh-Gaussian reaches them only where tanh is flat
LOST_NATS = 5.0
NATS = number("a finite number of nats or 'auto'")


def _target_entropy(value: Any) -> Any:
    if isinstance(value, str):
        return value if value == "auto" else NATS.read(float(value))
    return NATS.read(value)


class ContinuousOffPolicyAlgorithm(SoftOffPolicyAlgorithm):
    """
    Base of the algorithms with Box actions.

    The constructor's parameters are those of :class:`~sb3_softac.algorithm.off_policy.SoftOffPolicyAlgorithm`.
    """

    arguments: ClassVar[dict[str, Argument]] = {
        **ARGUMENTS,
        "target_entropy": Argument(NATS.expected, _target_entropy),
    }

    @staticmethod
    def _check_action_space(action_space: spaces.Space) -> None:
        check_bounded_box(action_space)

    def _setup_target_entropy(self) -> None:
        nats = read("target_entropy", self.__dict__["target_entropy"], self.arguments["target_entropy"])
        assert self.action_space.shape is not None
        self._target_nats = continuous_target_entropy(self.action_space.shape) if nats == "auto" else float(nats)

    def _target_entropy_in_nats(self) -> float:
        return self._target_nats

    def _entropy_is_lost(self, logs: dict[str, np.ndarray]) -> np.ndarray:
        assert self.action_space.shape is not None
        return logs["entropy"] < self._target_nats - LOST_NATS * math.prod(self.action_space.shape)
