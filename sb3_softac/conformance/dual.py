"""The learned temperature."""

from math import log
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.special import entr, softmax

from sb3_softac.conformance.check import Measurement, check
from sb3_softac.conformance.problems import CURVES, LEVELS, Bandit, Masked, bandit, levels
from sb3_softac.conformance.references import temperature_of_entropy
from sb3_softac.conformance.subject import Make, NotApplicable
from sb3_softac.tabular import BoltzmannOracle

ENTROPY = {"Box": -0.3, "Discrete": 1.0}
"""Target entropies in nats, of scaled actions."""


def _learned(env: gym.Env[Any, Any], make: Make, seed: int, entropy: float) -> float:
    model = make(env, seed, ent_coef="auto_0.3", target_entropy=entropy)
    model.learn(1_600)
    return model.temperature()


def _of_levels(entropy: float) -> float:
    return temperature_of_entropy(lambda alpha: entr(softmax(LEVELS / alpha)).sum(), entropy)


@check("Box", "Discrete")
def temperature(make: Make, seed: int, kind: str) -> Measurement:
    """
    The temperature does not settle where exp(Q / alpha) has the target entropy, in a bandit whose only step ends the episode:
    its gradient has the wrong sign, or follows a wrong entropy, or that of terminal states.
    """
    entropy = ENTROPY[kind]
    if kind == "Discrete":
        exact, env = _of_levels(entropy), levels()
    else:
        exact = temperature_of_entropy(lambda alpha: BoltzmannOracle(CURVES["symmetric"][1], alpha).entropy, entropy)
        env = bandit("symmetric")
    return Measurement(exact, _learned(env, make, seed, entropy), 0.15 * exact)


@check("Discrete")
def mask_temperature(make: Make, seed: int) -> Measurement:
    """
    Forbidden actions count in the entropy that the temperature is learned from. (A target in nats may be meant for the allowed
    actions, or as a part of the largest entropy of all actions.)
    """
    rewards, entropy = np.append(LEVELS, np.full(8, 3.0)), 1.0
    env = Masked(Bandit(rewards.__getitem__, gym.spaces.Discrete(12)), np.tile(rewards < 2.0, (2, 1)))
    if not make(env, seed).accepts_masks():
        raise NotApplicable("takes no action_masks")
    learned = _learned(env, make, seed, entropy)
    exact = min(map(_of_levels, (entropy, entropy * log(4) / log(12))), key=lambda alpha: abs(alpha - learned))
    return Measurement(exact, learned, 0.1 * exact)
