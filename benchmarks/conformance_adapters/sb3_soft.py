"""sb3-soft: options that change the fixed point are switched off."""

from typing import Any, ClassVar

import numpy as np
import sb3_soft
import torch as th

from sb3_softac.conformance import Subject


class SDSAC(Subject):
    """Without the entropy penalty and with a range in which nothing is clipped: both are meant to change the fixed point."""

    algorithm = sb3_soft.SDSAC
    settings: ClassVar[dict[str, Any]] = dict(beta=0.0, clip_range=1e3)


class SQL(Subject):
    """Its Q-function is one network, and its target follows environment steps, every 10000 of them by default."""

    algorithm = sb3_soft.SQL
    settings: ClassVar[dict[str, Any]] = dict(target_update_interval=1)

    @th.no_grad()
    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        return self._get(network.replace("critic", "q_net"))(self._obs(states))[None].double().numpy()

    @th.no_grad()
    def scale_targets(self, factor: float) -> None:
        for parameter in self.model.q_net_target.parameters():
            parameter.mul_(factor)
