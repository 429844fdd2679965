"""The package's algorithms with one line broken, each beside the check that is meant for it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm.engine import PyTorchEngine
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.conformance import CHECKS, Check
from sb3_softac.discrete import discrete_algorithm
from sb3_softac.discretesac import discretesac
from sb3_softac.entropy.temperature import AutoTemperature
from sb3_softac.nets import gaussian
from sb3_softac.replay.buffer import SoftReplayBuffer
from sb3_softac.softac_v1 import softac_v1
from sb3_softac.softac_v1.policies import SoftACPolicy


class Mutation(NamedTuple):
    """What is broken, for whom, and which check must find it."""

    fault: str
    algorithm: type[SoftOffPolicyAlgorithm]
    check: str
    owner: Any
    attribute: str
    broken: Callable[[Any], Any]
    """From the right function to the wrong one."""

    @property
    def meant(self) -> Check:
        kind = "Discrete" if self.algorithm is DiscreteSAC else "Box"
        (found,) = (each for each in CHECKS if (each.name, each.kind) == (self.check, kind))
        return found

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Break the line. Engines would not notice: gradient steps are PyTorch's."""
        right = getattr(self.owner, self.attribute)
        with patch.dict(os.environ, SB3_SOFTAC_FAST="0"), patch.object(self.owner, self.attribute, self.broken(right)):
            yield


def with_arguments(change: Callable[..., tuple[Any, ...]]) -> Callable[[Any], Any]:
    """:return: A mutation that calls the right function with other arguments."""
    return lambda right: lambda *args, **kwargs: right(*change(*args), **kwargs)


def instead(broken: Any) -> Callable[[Any], Any]:
    return lambda right: broken


def without(name: str) -> Callable[[Any], Any]:
    """:return: A mutation of ``_update`` that does not see these masks."""

    def change(self, batch):
        return self, batch._replace(extras={key: value for key, value in batch.extras.items() if key != name})

    return with_arguments(change)


def without_time_limits(self, obs, next_obs, action, reward, done, infos):
    return self, obs, next_obs, action, reward, done, [{**info, "TimeLimit.truncated": False} for info in infos]


def half_the_reward(self, obs, next_obs, action, reward, done, infos):
    return self, obs, next_obs, action, 0.5 * reward, done, infos


def ends_of_the_first(self, obs, next_obs, action, reward, done, infos):
    return self, obs, next_obs, action, reward, np.full_like(done, done[0]), infos


def always_handled(right):
    return lambda self, *args, **kwargs: right(self, *args, **{**kwargs, "handle_timeout_termination": True})


def clipped(log_mu, u):
    return log_mu - th.log(1.0 - th.tanh(u) ** 2 + 1e-6).sum(dim=-1)


def unscaled(self, action):
    return np.clip(action, self.action_space.low, self.action_space.high)


def one_step(self, changed):
    self.replay_buffer.n_steps = 1


def unsquashed(log_mu, u):
    return log_mu


def without_density(right):
    def broken(self, obs):
        actions, log_pi = right(self, obs)
        return actions, 0.0 * log_pi

    return broken


def random_seed(right):
    return lambda self, seed: th.seed()


def no_optimizer(right):
    return lambda self: (["policy", "ent_coef_optimizer"], ["log_ent_coef"])


def one_dimension(noise, std):
    return noise[..., :1], std[..., :1]


MUTATIONS = [
    Mutation("reward halved", SoftAC_v1, "bandit q", SoftReplayBuffer, "add", with_arguments(half_the_reward)),
    Mutation("reward halved", DiscreteSAC, "bandit q of indices", SoftReplayBuffer, "add", with_arguments(half_the_reward)),
    Mutation(
        "temperature doubled in the policy loss", DiscreteSAC, "bandit policy of indices",
        discretesac, "policy_loss", with_arguments(lambda log_pi, q, alpha: (log_pi, q, 2.0 * alpha)),
    ),
    Mutation(
        "actions not scaled to their bounds", SoftAC_v1, "bandit policy",
        SoftACPolicy, "unscale_action", instead(unscaled),
    ),
    Mutation(
        "no entropy in the policy loss", SoftAC_v1, "bandit policy with two optima",
        gaussian.SquashedGaussianActor, "action_log_prob", without_density,
    ),
    Mutation(
        "density of the first dimension alone", SoftAC_v1, "bandit policy in two dimensions",
        gaussian, "gaussian_log_prob", with_arguments(one_dimension),
    ),
    Mutation("no squash correction", SoftAC_v1, "density", gaussian, "squashed_log_prob", instead(unsquashed)),
    Mutation("squash correction clipped", SoftAC_v1, "density at the edge", gaussian, "squashed_log_prob", instead(clipped)),
    Mutation(
        "largest Q-value instead of smallest", DiscreteSAC, "frozen targets",
        DiscreteSAC, "_aggregate", lambda right: lambda self, q, log_pi: q.amax(dim=0),
    ),
    Mutation(
        "no entropy in the value", SoftAC_v1, "chain q",
        softac_v1, "soft_value_target", with_arguments(lambda q, log_pi, alpha: (q, log_pi, 0.0 * alpha)),
    ),
    Mutation(
        "a quarter of the log-density", SoftAC_v1, "chain policy",
        gaussian, "squashed_log_prob", lambda right: lambda log_mu, u: 0.25 * right(log_mu, u),
    ),
    Mutation(
        "no entropy in the value", DiscreteSAC, "mdp q",
        discretesac, "soft_state_value", with_arguments(lambda q, log_pi, alpha: (q, log_pi, 0.0 * alpha)),
    ),
    Mutation(
        "temperature doubled in the policy loss", DiscreteSAC, "mdp policy",
        discretesac, "policy_loss", with_arguments(lambda log_pi, q, alpha: (log_pi, q, 2.0 * alpha)),
    ),
    Mutation(
        "discount squared", DiscreteSAC, "mdp value",
        discretesac, "soft_bellman_target", with_arguments(lambda r, dones, v, gamma: (r, dones, v, gamma**2)),
    ),
    Mutation(
        "no mask in acting", DiscreteSAC, "mask violations",
        discrete_algorithm, "ask_masks", lambda right: lambda *args: np.ones_like(right(*args)),
    ),
    Mutation(
        "temperature doubled in the policy loss", DiscreteSAC, "mask policy",
        discretesac, "policy_loss", with_arguments(lambda log_pi, q, alpha: (log_pi, q, 2.0 * alpha)),
    ),
    Mutation("mask in acting alone", DiscreteSAC, "mask q", DiscreteSAC, "_update", without("next_action_masks")),
    Mutation("no mask in the policy loss", DiscreteSAC, "mask temperature", DiscreteSAC, "_update", without("action_masks")),
    Mutation(
        "terminal states have a value", SoftAC_v1, "terminal state",
        softac_v1, "soft_bellman_target", with_arguments(lambda r, dones, v, gamma: (r, 0.0 * dones, v, gamma)),
    ),
    Mutation("time limits are ends", SoftAC_v1, "time limit", SoftReplayBuffer, "add", with_arguments(without_time_limits)),
    Mutation("time limits always handled", DiscreteSAC, "time limit as end", SoftReplayBuffer, "__init__", always_handled),
    Mutation(
        "discount of one step for three", DiscreteSAC, "n steps",
        discretesac, "soft_bellman_target", with_arguments(lambda r, dones, v, gamma: (r, dones, v, 0.8)),
    ),
    Mutation("n_steps ignored", DiscreteSAC, "n steps are taken", DiscreteSAC, "_follow_targets", instead(one_step)),
    Mutation(
        "ends of the first environment for all", DiscreteSAC, "several environments",
        SoftReplayBuffer, "add", with_arguments(ends_of_the_first),
    ),
    Mutation(
        "gradient of the temperature has the wrong sign", DiscreteSAC, "temperature",
        AutoTemperature, "losses", lambda right: lambda *args: {name: -loss for name, loss in right(*args).items()},
    ),
    Mutation(
        "targets updated at every step", DiscreteSAC, "target updates",
        PyTorchEngine, "step", with_arguments(lambda self, batches, weights: (self, batches, [1.0])),
    ),
    Mutation(
        "last transition dropped", DiscreteSAC, "stop and continue",
        SoftOffPolicyAlgorithm, "collect_rollouts", instead(OffPolicyAlgorithm.collect_rollouts),
    ),
    Mutation("seed ignored", DiscreteSAC, "same seed", DiscreteSAC, "set_random_seed", random_seed),
    Mutation(
        "deterministic ignored", SoftAC_v1, "deterministic twice",
        gaussian.SquashedGaussianActor, "forward", lambda right: lambda self, obs, deterministic: right(self, obs),
    ),
    Mutation(
        "optimizer left out of the file", SoftAC_v1, "save load continue",
        SoftOffPolicyAlgorithm, "_get_torch_save_params", no_optimizer,
    ),
]  # fmt: skip
