"""Checks of the action space that say what to use instead."""

import numpy as np
from gymnasium import spaces


def check_bounded_box(action_space: spaces.Space) -> None:
    """
    Require what a squashed policy can act in.

    :param action_space: Action space of the environment.
    :raises AssertionError: if it is not a Box with finite bounds (the type is SB3's for unsupported spaces).
    """
    if not isinstance(action_space, spaces.Box):
        raise AssertionError(
            f"SoftAC_v1 and SQL need continuous actions (a Box), got {action_space}: for Discrete, MultiDiscrete and "
            "MultiBinary actions use DiscreteSAC, or SB3's DQN or PPO"
        )
    if not np.isfinite([action_space.low, action_space.high]).all():
        raise AssertionError(
            f"The policy squashes its actions into the bounds of the Box, but {action_space} has an infinite one: give the "
            "environment's action space finite bounds, e.g. with gymnasium.wrappers.RescaleAction or TransformAction"
        )
