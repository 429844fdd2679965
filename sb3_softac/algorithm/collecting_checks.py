"""Checks of what is collected, before it enters the replay buffer and every checkpoint from then on."""

from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from sb3_softac.algorithm.arguments import OWN_AND_SB3

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm


def require_normalization_on_top(env: VecEnv | None, normalization: VecNormalize) -> None:
    """
    The replay buffer stores the input of VecNormalize and normalizes it when sampling, so this input has to be the complete
    observation.

    :param env: Environment of the model.
    :param normalization: Its VecNormalize.
    :raises ValueError: if frames are stacked above it.
    """
    layer: Any = env
    while layer is not normalization:
        if isinstance(layer, VecFrameStack):
            raise ValueError(
                "VecFrameStack stacks the output of VecNormalize, but the replay buffer stores observations from before the "
                "normalization: put VecNormalize on top, VecNormalize(VecFrameStack(env, n)). In a file of RL Zoo, write "
                "vec_env_wrapper: [{stable_baselines3.common.vec_env.VecFrameStack: {n_stack: n}}] instead of "
                "frame_stack: n"
            )
        layer = layer.venv


def require_fitting_buffer(model: "SoftOffPolicyAlgorithm") -> None:
    """:raises ValueError: if the replay buffer, which may have been loaded, cannot store what is about to be collected."""
    if not type(model.replay_buffer).__module__.startswith(OWN_AND_SB3):
        return  # a user's own, which may store what it likes
    ours = {"n_envs": model.n_envs, "obs_shape": get_obs_shape(model.observation_space)}
    ours["action_dim"] = get_action_dim(model.action_space)
    for name, value in ours.items():
        if (theirs := getattr(model.replay_buffer, name, value)) != value:
            raise ValueError(
                f"The replay buffer was made for {name}={theirs}, and this training has {name}={value}: load a replay "
                "buffer that was saved with the same number of environments and the same spaces"
            )


def check_shared_training(model: "SoftOffPolicyAlgorithm") -> None:
    """:raises ValueError: if several processes cannot train one agent with these settings."""
    assert isinstance(model.train_freq, TrainFreq)
    if model.train_freq.unit == TrainFrequencyUnit.EPISODE:
        raise ValueError(
            "Several processes that train one agent must all do the same number of gradient steps: give train_freq in "
            "steps, not in episodes"
        )
    if model.get_vec_normalize_env() is not None:
        raise ValueError(
            "When several processes train one agent, each would normalize observations with its own statistics: do not "
            "use VecNormalize (normalize in a file of RL Zoo), or scale observations with a wrapper that has fixed "
            "limits"
        )


def require_finite_rewards(model: "SoftOffPolicyAlgorithm", rewards: np.ndarray) -> None:
    """:raises ValueError: if a reward ``[n_envs]`` is not finite."""
    if not np.isfinite(rewards).all():
        raise ValueError(
            f"The environments returned the rewards {rewards.tolist()} at step {model.num_timesteps}. Training stopped "
            "before they were stored: look for a division by zero or an overflow in the environment"
        )


def check_observations(model: "SoftOffPolicyAlgorithm", obs: Any, when: str, env_index: int | None = None) -> None:
    """
    Require finite observations ``[n_envs, ...]``, or a finite one of the environment ``env_index``, unless the policy's
    features extractor corrects others.
    """
    normalization = model.get_vec_normalize_env()
    for each in [obs] if normalization is None or env_index is not None else [normalization.get_original_obs(), obs]:
        if isinstance(each, dict):  # the last one of an episode may have parts that are not in the space
            each = {key: each[key] for key in model.observation_space.spaces if key in each}  # type: ignore[attr-defined]
        if not (faults := _not_finite(each, env_index)):
            continue
        try:
            model.policy.obs_to_tensor(each)
        except ValueError:
            lost = ""
            if normalization is not None:
                lost = ". VecNormalize's statistics already contain it: load earlier ones"
            raise ValueError(
                f"The observation of {when} is not finite: {'; '.join(faults)}. Training stopped before it was stored. "
                "Look for a division by zero or an overflow in the environment (SB3's VecCheckNan finds it), or give the "
                f"policy a features extractor that accepts such values{lost}"
            ) from None


def _not_finite(obs: Any, env_index: int | None) -> list[str]:
    """:return: Where observations are not finite, in words: environment, key and first value."""
    faults = []
    for key, part in obs.items() if isinstance(obs, dict) else [("", obs)]:
        part = np.asarray(part)
        if part.dtype.kind != "f" or np.isfinite(part).all():
            continue
        for i, row in [(env_index, part)] if env_index is not None else enumerate(part):
            if not (finite := np.isfinite(row)).all():
                where = f"environment {i}, key {key!r}" if key else f"environment {i}"
                faults.append(f"{where}, value {row[~finite][0]}")
    return faults
