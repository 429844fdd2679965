"""Action masks of environments, by sb3-contrib's protocol: an environment that has a method ``action_masks()``."""

from typing import Any

import gymnasium as gym
import numpy as np
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv


class ActionMaskInfo(gym.Wrapper):
    """
    Put the mask of the state that a step leads to into ``info["action_masks"]``.

    A vectorized environment resets itself when an episode ends; after that, ``action_masks()`` belongs to the new episode. The
    value of the last state, which counts if a time limit ended the episode, needs the mask from before.

    :param env: Environment with a method ``action_masks()``.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: Action.
        :return: What the environment returns, with the mask added to the last entry.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "action_masks": self.env.get_wrapper_attr("action_masks")()}


def keep_last_masks(env: VecEnv) -> VecEnv:
    """
    Have every environment with masks report them in its info, see :class:`ActionMaskInfo`.

    :param env: Vectorized environment; the environments of a ``DummyVecEnv`` are wrapped in place.
    :return: The same vectorized environment.
    :raises ValueError: if its environments live in other processes and are not wrapped.
    """
    if not is_masking_supported(env) or all(env.env_is_wrapped(ActionMaskInfo)):
        return env
    venv = env.unwrapped
    if not isinstance(venv, DummyVecEnv):
        raise ValueError(
            f"The environments of this {type(venv).__name__} have action masks, but the masks of their last states are out of "
            "reach behind it: wrap each environment in sb3_softac.discretesac.masks.ActionMaskInfo, "
            "e.g. make_vec_env(..., wrapper_class=ActionMaskInfo)"
        )
    venv.envs = [ActionMaskInfo(single) for single in venv.envs]
    return env


def masks_of_next_states(infos: list[dict[str, Any]], dones: np.ndarray, n_actions: int) -> np.ndarray:
    """
    :param infos: What the environments reported, with masks.
    :param dones: Whether the episodes ended ``[n_envs]``.
    :param n_actions: Number of entries of a mask.
    :return: Masks of the states that the last step led to, before any reset ``[n_envs, n_actions]``. Terminal states, which
        have no value and may have no action, count as if everything were allowed.
    """
    masks = [
        np.ones(n_actions, dtype=bool)
        if done and not info.get("TimeLimit.truncated", False)
        else np.asarray(info["action_masks"], dtype=bool).reshape(-1)
        for info, done in zip(infos, dones, strict=True)
    ]
    return np.stack(masks)
