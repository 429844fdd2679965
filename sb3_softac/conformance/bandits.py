"""One step: the policy against exp(Q / alpha), the critics against the reward, and the density of the actions."""

from functools import cache, lru_cache

import numpy as np
from scipy.special import entr, logsumexp, softmax

from sb3_softac.conformance.check import KINDS, Measurement, check
from sb3_softac.conformance.problems import CURVES, LEVELS, Bandit, bandit, levels
from sb3_softac.conformance.references import (
    best_squashed_gaussian,
    divergence_from_counts,
    divergence_from_samples,
    mean_with_interval,
    squashed_gaussian_entropy,
)
from sb3_softac.conformance.subject import ALPHA, GAMMA, Make, NotApplicable, Subject
from sb3_softac.tabular import BoltzmannOracle

SAMPLES = 20_000
START = np.zeros(SAMPLES, dtype=np.int64)


@cache
def oracle(name: str) -> BoltzmannOracle:
    dim, reward = CURVES[name]
    return BoltzmannOracle(reward, ALPHA, dim)


@lru_cache(maxsize=4)
def trained(make: Make, name: str, seed: int) -> Subject:
    """:return: A model of a bandit, which several checks look at."""
    model = make(levels() if name == "levels" else bandit(name), seed)
    model.learn(1_600)
    return model


def _policy(name: str, make: Make, seed: int) -> Measurement:
    actions = trained(make, name, seed).act(START)
    value, interval = divergence_from_samples(oracle(name), actions)
    return Measurement(best_squashed_gaussian(oracle(name)), value, 0.05, interval, at_most=True)


@check("Box")
def bandit_policy(make: Make, seed: int) -> Measurement:
    """The policy does not become exp(Q / alpha), up to what a squashed Gaussian can represent, in one dimension."""
    return _policy("one optimum", make, seed)


@check("Box")
def bandit_policy_with_two_optima(make: Make, seed: int) -> Measurement:
    """The policy is further from exp(Q / alpha) with two optima than the best squashed Gaussian."""
    return _policy("two optima", make, seed)


@check("Box")
def bandit_policy_in_two_dimensions(make: Make, seed: int) -> Measurement:
    """The policy is further from exp(Q / alpha) in two dimensions than the best squashed Gaussian."""
    return _policy("two dimensions", make, seed)


@check("Discrete")
def bandit_policy_of_indices(make: Make, seed: int) -> Measurement:
    """The actions are not drawn from softmax(Q / alpha)."""
    counts = np.bincount(trained(make, "levels", seed).act(START), minlength=len(LEVELS))
    value, interval = divergence_from_counts(counts, softmax(LEVELS / ALPHA))
    return Measurement(0.0, value, 0.02, interval)


def worst(exact: np.ndarray, measured: np.ndarray, tolerance: float, scale: float | None = None) -> Measurement:
    """The entry with the largest error; the tolerance is a fraction of the scale, by default the range of ``exact``."""
    i = np.unravel_index(np.abs(measured - exact).argmax(), exact.shape)
    return Measurement(float(exact[i]), float(measured[i]), tolerance * (float(np.ptp(exact)) if scale is None else scale))


@check("Box")
def bandit_q(make: Make, seed: int) -> Measurement:
    """The critics regress on something other than the reward, or see other actions than the environment."""
    x = np.linspace(-0.9, 0.9, 37)[:, None]
    q = trained(make, "one optimum", seed).q(START[:37], x)
    return worst(CURVES["one optimum"][1](x), q.mean(axis=0), 0.1)


@check("Discrete")
def bandit_q_of_indices(make: Make, seed: int) -> Measurement:
    """The critics regress on something other than the reward."""
    return worst(LEVELS, trained(make, "levels", seed).q([0]).mean(axis=0)[0], 0.1)


@check("Box")
def density(make: Make, seed: int) -> Measurement:
    """The log-density is not that of the actions: its integral over their range is not 1 (a squash correction is missing)."""
    actions, log_prob = trained(make, "one optimum", seed).density(START)
    order = actions[:, 0].argsort()
    heights, widths = np.exp(log_prob[order]), np.diff(actions[order, 0])
    return Measurement(1.0, float((heights[1:] + heights[:-1]) @ widths / 2.0), 0.01)


@check("Box")
def density_at_the_edge(make: Make, seed: int) -> Measurement:
    """Where actions saturate, the reported entropy is wrong: the squash correction is clipped."""
    model = make(bandit("one optimum"), seed)
    model.saturate(7.0)
    exact = squashed_gaussian_entropy(*model.squashed_gaussian(0))
    value, interval = mean_with_interval(-model.density(START)[1])
    return Measurement(exact, value, 0.05, interval)


@check("Box", "Discrete")
def frozen_targets(make: Make, seed: int, kind: str) -> Measurement:
    """
    With targets that never move, the critics do not learn reward + gamma V, where V is the policy's soft value (without an
    actor, the largest one) of the smallest of the target Q-values, or of their mean.
    """
    reward = CURVES["one optimum"][1]
    box = Bandit(reward, KINDS["Box"], ends=False)
    model = make(box if kind == "Box" else levels(ends=False), seed, tau=0.0)
    model.scale_targets(3.0)  # so that their smallest value and their mean are far apart
    model.learn(2_000)
    if kind == "Box":
        x = np.linspace(-0.8, 0.8, 17)[:, None]
        learned = (model.q(START[:17], x).mean(axis=0) - reward(x)).mean() / GAMMA
        candidates = _soft_values(model)
    else:
        learned = (model.q([0]).mean(axis=0)[0] - LEVELS).mean() / GAMMA
        pi = np.bincount(model.act(START), minlength=len(LEVELS)) / SAMPLES
        both = [aggregate(model.q([0], network="critic_target")[:, 0], axis=0) for aggregate in (np.min, np.mean)]
        candidates = [
            float(pi @ q + ALPHA * entr(pi).sum() if model.has_actor() else ALPHA * logsumexp(q / ALPHA)) for q in both
        ]
    return Measurement(min(candidates, key=lambda value: abs(value - learned)), float(learned), 0.2)


def _soft_values(model: Subject) -> list[float]:
    """:return: The values of state 0 that the targets of continuous actions may mean."""
    try:
        actions, log_prob = model.density(START)
    except NotApplicable:
        nodes = np.linspace(-1.0, 1.0, 2_001)
        q = model.q(START[:2_001], nodes[:, None], "critic_target")
        return [float(ALPHA * logsumexp(each / ALPHA, b=2.0 / 2_001)) for each in (q.min(axis=0), q.mean(axis=0))]
    q = model.q(START, actions, "critic_target")
    return [float((each - ALPHA * log_prob).mean()) for each in (q.min(axis=0), q.mean(axis=0))]
