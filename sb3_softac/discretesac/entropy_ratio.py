"""How DiscreteSAC follows its target entropy, a ratio of the largest possible entropy."""

import numpy as np

from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.discrete.branches import Branches
from sb3_softac.entropy.target_entropy import DroppingTarget, make_target_entropy

# Entropy, as a part of the largest possible one, that a working policy does not fall to while its target is larger than 0.1
LOST_RATIO = 1e-3


class EntropyRatio(SoftOffPolicyAlgorithm):
    """
    The part of DiscreteSAC that handles its target entropy.

    The constructor's parameters are those of :class:`~sb3_softac.algorithm.off_policy.SoftOffPolicyAlgorithm`.
    """

    branches: Branches
    _target_entropy_state: dict[str, float]
    """State of a schedule that depends on the policy; saved with the model."""

    def _check_arguments(self) -> None:
        super()._check_arguments()
        make_target_entropy(self.__dict__["target_entropy"], self.branches.max_entropy, self.device)

    def _setup_target_entropy(self) -> None:
        self._target = make_target_entropy(self.__dict__["target_entropy"], self.branches.max_entropy, self.device)
        if "target_entropy" not in self._said_anew:
            self._target.load_state(self.__dict__.get("_target_entropy_state", {}))
        self._target_entropy_state = self._target.state()

    def _target_entropy_in_nats(self) -> float:
        return float(self._target.ratio) * self.branches.max_entropy

    def _defer_logs(self) -> bool:
        # The scheduled target looks at the entropies after each round
        return super()._defer_logs() and not isinstance(self._target, DroppingTarget)

    def _follow_schedules(self, progress_remaining: float) -> None:
        super()._follow_schedules(progress_remaining)
        self._target.follow(progress_remaining)

    def _entropy_is_lost(self, logs: dict[str, np.ndarray]) -> np.ndarray:
        return (logs["entropy_ratio"] < LOST_RATIO) & (logs["target_entropy_ratio"] > 0.1)

    def _follow_logs(self, logs: dict[str, np.ndarray]) -> None:
        self._target.observe(logs["entropy_ratio"])
        self._target_entropy_state = self._target.state()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_target"]
