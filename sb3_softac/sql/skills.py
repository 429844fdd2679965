"""Checks of the models to compose, the replay buffers to distil from, and their observations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac.sql.composition import ComposedPolicy


def check_skills(models: Sequence[BaseAlgorithm], kind: type[BaseAlgorithm]) -> None:
    """
    :param models: Models to compose.
    :param kind: Class that they must have.
    :raises ValueError: if there are none, or they do not match.
    """
    if not models:
        raise ValueError("compose() needs at least one model")
    first = models[0]
    for number, model in enumerate(models):
        if not isinstance(model, kind):
            raise ValueError(f"compose() needs models of class {kind.__name__}, model {number} is a {type(model).__name__}")
        if isinstance(model.policy, ComposedPolicy):
            raise ValueError(
                f"Model {number} is itself composed: compose() the models that it was made from, with their weights"
            )
        spaces_ = (model.observation_space, model.action_space)
        if spaces_ != (first.observation_space, first.action_space):
            raise ValueError(
                f"compose() needs models with equal spaces, model {number} has {spaces_}, model 0 has different ones"
            )
        if not same_observations(first._vec_normalize_env, model._vec_normalize_env):
            raise ValueError(
                f"The observations of model {number} are normalized differently from those of model 0, so their Q-functions "
                "cannot be added: train the skills with one VecNormalize that has training=False"
            )


def same_observations(first: VecNormalize | None, other: VecNormalize | None) -> bool:
    """
    :param first: Normalization of an environment, None for none.
    :param other: That of another environment.
    :return: Whether both normalize observations in the same way.
    """
    ours, theirs = normalization(first), normalization(other)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(x, y) for key in ours for x, y in zip(ours[key], theirs[key], strict=True)
    )


def normalization(env: VecNormalize | None) -> dict[str, tuple[Any, ...]]:
    """
    :param env: Normalization of an environment, None for none.
    :return: By the key of an observation (one without keys has the key ""): everything that normalizes it.
    """
    if env is None or not env.norm_obs:
        return {}
    parts = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
    return {key: (rms.mean, rms.var, env.clip_obs, env.epsilon) for key, rms in parts.items()}


def read_weights(n_models: int, weights: str | Sequence[float]) -> list[float]:
    """
    Read the ``weights`` argument of ``SQL.compose``.

    :param n_models: Number of models to compose.
    :param weights: ``"mean"``, ``"sum"``, or one number per model.
    :return: One weight per model.
    :raises ValueError: if they are none of these.
    """
    if isinstance(weights, str):
        if weights not in ("mean", "sum"):
            raise ValueError(f"weights must be 'mean', 'sum' or one number per model, got {weights!r}")
        return [1.0 / n_models if weights == "mean" else 1.0] * n_models
    if len(weights) != n_models or not np.isfinite(weights).all():
        raise ValueError(f"weights must be one finite number per model ({n_models}), got {weights!r}")
    return [float(weight) for weight in weights]


def transitions_of(replay_buffers: Sequence[ReplayBuffer], observation_space: spaces.Space) -> np.ndarray:
    """
    :param replay_buffers: Replay buffers.
    :param observation_space: Observation space of the model that is to learn from them.
    :return: How many transitions each of them holds ``[n_buffers]``.
    :raises ValueError: if there are none at all, or their observation spaces differ from the model's.
    """
    for number, buffer in enumerate(replay_buffers):
        if buffer.observation_space != observation_space:
            raise ValueError(
                f"Replay buffer {number} contains observations of {buffer.observation_space}, but the model needs "
                f"{observation_space}: pass the replay buffers of the skills that it is composed of"
            )
    sizes = np.array([buffer.size() * buffer.n_envs for buffer in replay_buffers])  # SB3 counts rows, of n_envs each
    if not sizes.sum():
        raise ValueError(
            "The replay buffers contain no transitions to distil from. A model is saved without its replay buffer: use "
            "save_replay_buffer() and load_replay_buffer()"
        )
    return sizes


def concatenate(observations: Sequence[PyTorchObs], device: th.device) -> PyTorchObs:
    """
    :param observations: Batches of observations, tensors or dictionaries of tensors.
    :param device: Device of the networks.
    :return: All of them as one batch on the device.
    """
    first = observations[0]
    if isinstance(first, dict):
        return {key: th.cat([obs[key].to(device) for obs in observations]) for key in first}  # type: ignore[index]
    return th.cat([obs.to(device) for obs in observations])  # type: ignore[union-attr]
