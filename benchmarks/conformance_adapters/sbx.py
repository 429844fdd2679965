"""SBX: networks of JAX, and one-hot observations, because it takes the index of a state for a number."""

from typing import Any

import gymnasium as gym
import jax
import numpy as np
import sbx
from gymnasium.wrappers import FlattenObservation

from sb3_softac.conformance import Subject


class SAC(Subject):
    algorithm = sbx.SAC

    def __init__(self, env: Any, seed: int = 0, **settings: Any):
        one_hot = [lambda make=make: FlattenObservation(make()) for make in env] if isinstance(env, list) else None
        super().__init__(one_hot or FlattenObservation(env), seed, **settings)

    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        return super().act(self._obs(states), deterministic)

    def density(self, states: Any) -> tuple[np.ndarray, np.ndarray]:
        state = self.model.policy.actor_state
        distribution = state.apply_fn(state.params, self._obs(states))
        actions = distribution.sample(seed=jax.random.PRNGKey(0))
        return np.asarray(actions), np.asarray(distribution.log_prob(actions), dtype=np.float64)

    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        state = self.model.policy.qf_state
        parameters = state.params if network == "critic" else state.target_params
        values = state.apply_fn(parameters, self._obs(states), np.asarray(actions, dtype=np.float32))
        return np.asarray(values, dtype=np.float64)[..., 0]

    def temperature(self) -> float:
        state = self.model.ent_coef_state
        return float(state.apply_fn({"params": state.params}))

    def targets(self) -> np.ndarray:
        leaves = jax.tree.leaves(self.model.policy.qf_state.target_params)
        return np.concatenate([np.asarray(leaf).ravel() for leaf in leaves])

    def scale_targets(self, factor: float) -> None:
        policy = self.model.policy
        scaled = jax.tree.map(lambda leaf: factor * leaf, policy.qf_state.target_params)
        policy.qf_state = policy.qf_state.replace(target_params=scaled)

    def seed_everything(self, seed: int) -> None:
        super().seed_everything(seed)
        self.model.key = self.model.policy.key = jax.random.PRNGKey(seed)
        self.model.policy.reset_noise()

    def reloaded(self, env: gym.Env[Any, Any]) -> Subject:
        return super().reloaded(FlattenObservation(env))

    def _obs(self, states: Any) -> np.ndarray:
        return np.eye(self.model.observation_space.shape[0], dtype=np.float32)[np.asarray(states)]
