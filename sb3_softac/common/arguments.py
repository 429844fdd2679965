"""Checks of arguments, before any work is done. The errors say what is wrong and what to use instead."""

import math
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy

if TYPE_CHECKING:
    from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm


def check_policy_class(policy: object, base: type[BasePolicy], algorithm: str) -> None:
    """
    Require a policy of this algorithm; a saved model contains the policy class that it was created with.

    :param policy: Policy class, or its name.
    :param base: Base class of the policies of the algorithm.
    :param algorithm: Name of the algorithm.
    :raises ValueError: if it is a class for another algorithm.
    """
    if isinstance(policy, str) or (isinstance(policy, type) and issubclass(policy, base)):
        return
    given = f"{policy.__module__}.{policy.__qualname__}" if isinstance(policy, type) else repr(policy)
    raise ValueError(
        f"{algorithm} cannot use the policy {given}: give 'MlpPolicy', 'CnnPolicy', 'MultiInputPolicy' or a subclass of "
        f"{base.__module__}.{base.__qualname__}. Load a saved model with the class of the algorithm that saved it"
    )


def check_arguments(model: "SoftOffPolicyAlgorithm") -> None:
    """
    :param model: Model whose networks have not been built yet.
    :raises ValueError: if one of its arguments is out of its range.
    """
    n_critics = model.policy_kwargs.get("n_critics", 2)
    frequency = model.train_freq if isinstance(model.train_freq, int) else model.train_freq[0]
    rules = {
        "tau": (0.0 <= model.tau <= 1.0, "in [0, 1]: 1 copies the network, 0.005 is the usual slow average", model.tau),
        "gamma": (0.0 <= model.gamma <= 1.0, "in [0, 1]: 0.99 is the usual discount factor", model.gamma),
        "n_steps": (model.n_steps >= 1, "at least 1, the number of rewards in a target", model.n_steps),
        "batch_size": (model.batch_size >= 1, "at least 1 transition", model.batch_size),
        "buffer_size": (model.buffer_size >= 1, "at least 1 transition", model.buffer_size),
        "n_critics": (n_critics >= 1, "at least 1 (the papers use 2)", n_critics),
        "learning_starts": (model.learning_starts >= 0, "at least 0 environment steps", model.learning_starts),
        "train_freq": (not isinstance(frequency, int) or frequency >= 1, "at least 1 step or episode", model.train_freq),
        "gradient_steps": (model.gradient_steps >= -1, "at least 0, or -1 for one per step", model.gradient_steps),
        "target_update_interval": (
            model.target_update_interval >= 1,
            "at least 1 gradient step",
            model.target_update_interval,
        ),
        "random_steps": (
            model.random_steps is None or model.random_steps >= 0,
            "None (same as learning_starts) or at least 0",
            model.random_steps,
        ),
    }
    if isinstance(model.learning_rate, int | float):
        good = math.isfinite(model.learning_rate) and model.learning_rate >= 0.0
        rules["learning_rate"] = (good, "a finite number, at least 0, or a schedule", model.learning_rate)
    for name, (holds, expected, given) in rules.items():
        if not holds:
            raise ValueError(f"{name} must be {expected}, got {given}")


def check_bounded_box(action_space: spaces.Space) -> None:
    """
    Require an action space that a squashed policy can use.

    :param action_space: Action space of the environment.
    :raises AssertionError: if it is not a Box of floating-point numbers with finite, different bounds (the type is SB3's for
        unsupported spaces).
    """
    if not isinstance(action_space, spaces.Box):
        raise AssertionError(
            f"SoftAC_v1 and SQL need continuous actions (a Box), got {action_space}: for Discrete, MultiDiscrete and "
            "MultiBinary actions use DiscreteSAC, or SB3's DQN or PPO"
        )
    if not np.issubdtype(action_space.dtype, np.floating):
        raise AssertionError(
            f"The policy's actions are continuous, but {action_space} contains integers, so all actions would be truncated: "
            "give the environment a Box of np.float32 and round inside it, or use Discrete actions and DiscreteSAC"
        )
    remedy = "e.g. with gymnasium.wrappers.RescaleAction or TransformAction"
    if not np.isfinite([action_space.low, action_space.high]).all():
        raise AssertionError(
            f"The policy squashes its actions into the bounds of the Box, but {action_space} has infinite bounds: give the "
            f"environment's action space finite bounds, {remedy}"
        )
    with np.errstate(over="ignore"):
        width = action_space.high.astype(np.float32) - action_space.low.astype(np.float32)
    if not (np.isfinite(width) & (width > 0.0)).all():
        raise AssertionError(
            f"The policy squashes its actions into the bounds of the Box, but in {action_space} a lower and an upper bound "
            f"are equal, or too far apart for single precision: change the environment's action space, {remedy}"
        )
