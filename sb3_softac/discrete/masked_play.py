"""Masks for code that calls ``predict`` without them: SB3's evaluations and RL Zoo's scripts."""

from typing import Any
from weakref import WeakSet

import numpy as np
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.utils import EXPECTED_METHOD_NAME
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_softac.algorithm.callbacks import all_callbacks
from sb3_softac.discrete.masks import has_masks

_environments: "WeakSet[MasksForPredict]" = WeakSet()

ADVICE = (
    "predict() got no action_masks, though this model was trained with masks: where the environment has masks, it may choose "
    "invalid actions. Pass action_masks=env.action_masks(), evaluate with sb3_contrib's MaskableEvalCallback or "
    "sb3_contrib.common.maskable.evaluation.evaluate_policy, or wrap the vectorized environment (as its outermost wrapper) "
    "in sb3_softac.discrete.masked_play.MasksForPredict"
)


class MasksForPredict(VecEnvWrapper):
    """
    Makes ``model.predict(obs)`` of a model with discrete actions use the masks of the environment that returned ``obs``.

    It must be the outermost wrapper that changes observations: the environment is identified by the observation object that it
    returned last. RL Zoo's scripts and studies use it automatically.

    :param venv: Vectorized environment, with or without masks.
    """

    def __init__(self, venv: VecEnv):
        super().__init__(venv)
        self.last_observation: VecEnvObs | None = None
        if has_masks(venv):
            _environments.add(self)

    def reset(self) -> VecEnvObs:
        """Reset the environments, and remember what they return."""
        self.last_observation = self.venv.reset()
        return self.last_observation

    def step_wait(self) -> VecEnvStepReturn:
        """Step the environments, and remember their observations."""
        result = self.venv.step_wait()
        self.last_observation = result[0]
        return result

    def close(self) -> None:
        """Close the environments; their masks cannot be read afterwards."""
        self.last_observation = None
        self.venv.close()


def masks_behind(observation: Any) -> list[np.ndarray] | None:
    """:return: Masks of the environments whose last observation is this object; None if they are not known."""
    for env in list(_environments):
        if env.last_observation is observation and observation is not None:
            return env.env_method(EXPECTED_METHOD_NAME)
    return None


def mask_evaluations(callback: BaseCallback, model: BaseAlgorithm) -> None:
    """
    Let SB3's ``EvalCallback`` and its subclasses, such as RL Zoo's, use the masks of their environment.

    sb3-contrib's callback handles masks itself, and may have been set to ignore them.
    """
    for each in all_callbacks(callback):
        if isinstance(each, EvalCallback) and not isinstance(each, MaskableEvalCallback) and has_masks(each.eval_env):
            each.model = _model_for(each, model)


def _model_for(evaluation: EvalCallback, model: BaseAlgorithm) -> BaseAlgorithm:
    """:return: A view of the model that shares all its attributes, with a ``predict`` that uses the evaluation's masks."""

    def predict(
        self: BaseAlgorithm,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        if action_masks is None:
            action_masks = evaluation.eval_env.env_method(EXPECTED_METHOD_NAME)
        return model.predict(observation, state, episode_start, deterministic, action_masks)  # type: ignore[call-arg]

    cls = type(model)
    own = {"predict": predict, "viewed": cls, "__module__": cls.__module__}
    masked: BaseAlgorithm = object.__new__(type(cls.__name__, (cls,), own))
    masked.__dict__ = model.__dict__
    return masked
