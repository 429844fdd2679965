"""Detects a policy that has permanently lost its entropy, which observations of a large scale can cause."""

import warnings

import numpy as np

# Consecutive gradient steps after which it cannot be a coincidence
PATIENCE = 100


class SaturationWatch:
    """
    Warns once when the entropy is lost and a rising temperature does not restore it.

    Observations in the thousands make the outputs of an untrained network so large that a softmax or tanh saturates. The
    temperature then rises without effect.
    """

    def __init__(self) -> None:
        self._steps, self._first_alpha, self._warned = 0, 0.0, False

    def observe(self, lost: np.ndarray, alpha: np.ndarray) -> None:
        """Look at gradient steps ``[n_steps]``: whether the entropy was lost, far below its target, and the temperature."""
        for is_lost, value in zip(lost.tolist(), alpha.tolist(), strict=True):
            if self._steps == 0:
                self._first_alpha = value
            self._steps = self._steps + 1 if is_lost else 0
            if self._steps > PATIENCE and value > self._first_alpha and not self._warned:
                self._warned = True
                warnings.warn(
                    f"The policy has had almost no entropy for {PATIENCE} gradient steps, and a rising temperature does not "
                    "restore it: its outputs are saturated, for example because of observations of a large scale. Normalize "
                    "them, e.g. with SB3's VecNormalize",
                    stacklevel=2,
                )
