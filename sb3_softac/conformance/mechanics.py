"""What must hold for any reward: counts, seeds and files."""

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import StopTrainingOnMaxEpisodes

from sb3_softac.conformance.bandits import START
from sb3_softac.conformance.check import Measurement, check
from sb3_softac.conformance.problems import Bandit, bandit, levels
from sb3_softac.conformance.subject import Make, Subject

SHORT: dict[str, Any] = dict(learning_starts=20, train_freq=1, gradient_steps=1, batch_size=16)


def _env(kind: str) -> Bandit:
    return levels() if kind == "Discrete" else bandit("one optimum")


def _outputs(model: Subject, kind: str) -> np.ndarray:
    """Deterministic actions and Q-values, which tell two models apart."""
    actions = model.act(START[:1], deterministic=True).reshape(1, -1)
    q = model.q([0], None if kind == "Discrete" else actions)
    return np.append(actions, q)


@check("Box", "Discrete")
def target_updates(make: Make, seed: int, kind: str) -> Measurement:
    """Targets are not updated once in target_update_interval gradient steps when each call of train does one step."""
    model = make(_env(kind), seed, target_update_interval=5, **SHORT)
    model.learn(21)
    updates, before = 0, model.targets()
    for _ in range(40):
        model.learn(1)
        updates, before = updates + bool((model.targets() != before).any()), model.targets()
    return Measurement(8.0, updates, 0.0)


@check("Box", "Discrete")
def stop_and_continue(make: Make, seed: int, kind: str) -> Measurement:
    """The step at which a callback stops the training is taken in the environment and never stored."""
    env = _env(kind)
    model = make(env, seed, **SHORT)
    model.learn(10, StopTrainingOnMaxEpisodes(5))
    model.learn(5)
    return Measurement(float(env.steps), float(model.stored()), 0.0)


@check("Box", "Discrete")
def same_seed(make: Make, seed: int, kind: str) -> Measurement:
    """Two trainings with the same seed differ."""
    found = []
    for _ in range(2):
        model = make(_env(kind), seed, **SHORT)
        model.learn(60)
        found.append(_outputs(model, kind))
    return Measurement(0.0, float(np.abs(found[0] - found[1]).max()), 0.0)


@check("Box", "Discrete")
def deterministic_twice(make: Make, seed: int, kind: str) -> Measurement:
    """predict(deterministic=True) gives two actions for one observation."""
    actions = make(_env(kind), seed).act(START[:100], deterministic=True)
    return Measurement(0.0, float(np.ptp(actions, axis=0).max()), 0.0)


@check("Box", "Discrete")
def save_load_continue(make: Make, seed: int, kind: str) -> Measurement:
    """
    A model that is loaded with its replay buffer goes on differently from the one that was saved, with the same random
    numbers: something is missing in the file.
    """
    model = make(_env(kind), seed, ent_coef="auto", **SHORT)
    model.learn(60)
    found = []
    for each in (model, model.reloaded(_env(kind))):
        each.seed_everything(seed)
        each.learn(40)
        found.append(np.append(_outputs(each, kind), each.temperature()))
    return Measurement(0.0, float(np.abs(found[0] - found[1]).max()), 0.0)
