"""
How the policies of all discrete algorithms choose actions with masks: functions in place of methods of SB3's ``SACPolicy``.

Such a policy has ``branches`` and a method ``log_pi(obs, masks)``, from tensors to log-probabilities.
"""

from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.maskable.distributions import MaskableDistribution, make_masked_proba_distribution
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_softac.algorithm.policies import require_finite_actions


def masked_log_probs(policy: Any, obs: PyTorchObs, action_masks: np.ndarray | None = None) -> th.Tensor:
    """Log-probabilities of the options of all branches ``[batch, n]``, in nats; masks are checked."""
    if action_masks is None:
        return policy.log_pi(obs)
    batch = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
    return policy.log_pi(obs, th.as_tensor(policy.branches.check_masks(action_masks, batch), device=policy.device))


def masked_choice(
    policy: Any, observation: PyTorchObs, deterministic: bool = False, action_masks: np.ndarray | None = None
) -> th.Tensor:
    """Actions of the action space ``[batch, *action_space.shape]``; without masks everything is allowed."""
    log_pi = policy.log_probs(observation, action_masks)
    require_finite_actions(log_pi)
    return policy.branches.choose(log_pi, deterministic)


def masked_forward(
    policy: Any, obs: PyTorchObs, deterministic: bool = False, action_masks: np.ndarray | None = None
) -> th.Tensor:
    """Actions ``[batch, *action_space.shape]``, as ``_predict`` chooses them; a user's ``_predict`` may have no masks."""
    return policy._predict(obs, deterministic, **({} if action_masks is None else {"action_masks": action_masks}))


def masked_predict(
    policy: Any,
    observation: np.ndarray | dict[str, np.ndarray],
    state: tuple[np.ndarray, ...] | None = None,
    episode_start: np.ndarray | None = None,
    deterministic: bool = False,
    action_masks: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
    """SB3's ``predict`` with sb3-contrib's ``action_masks``, as the algorithm's; without masks all actions are allowed."""
    policy.set_training_mode(False)
    if isinstance(observation, tuple):
        raise ValueError(
            "predict() got a tuple: Gymnasium's reset() returns (obs, info), so pass only obs; the reset() of a VecEnv "
            "returns obs"
        )
    obs, vectorized = policy.obs_to_tensor(observation)
    with th.no_grad():
        actions = masked_forward(policy, obs, deterministic, action_masks).cpu().numpy().astype(policy.action_space.dtype)
    return (actions if vectorized else actions.squeeze(axis=0)), state


def masked_distribution(policy: Any, obs: PyTorchObs, action_masks: np.ndarray | None = None) -> MaskableDistribution:
    """
    The policy's distribution, as SB3's and sb3-contrib's policies return it.

    Probabilities are in ``.distribution.probs`` ``[batch, n]`` (Discrete) or in ``.distributions[i].probs`` of each branch.

    :param obs: Observations as tensors (``policy.obs_to_tensor`` makes them).
    :param action_masks: True where an action is allowed, one row per observation; None if all are.
    :return: sb3-contrib's distribution; its actions are counted from 0.
    :raises ValueError: if a mask has the wrong shape or forbids everything.
    """
    distribution = make_masked_proba_distribution(policy.action_space)
    return distribution.proba_distribution(policy.log_probs(obs, action_masks))
