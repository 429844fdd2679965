"""SoftAC_v1 in C."""

from typing import ClassVar

import stable_baselines3.sac.policies
import torch as th
from torch import nn

from sb3_softac.engines.native.network_reader import address, size_of
from sb3_softac.engines.native.plan import FORWARD, IN_C, Plan, equations_in
from sb3_softac.engines.native.unsupported import require
from sb3_softac.nets import base, gaussian
from sb3_softac.nets.base import PolicySample
from sb3_softac.nets.critics import StackedContinuousCritic, ValueNet
from sb3_softac.nets.gaussian import SquashedGaussianActor
from sb3_softac.replay.batch import Batch
from sb3_softac.softac_v1 import softac_v1
from sb3_softac.softac_v1.policies import SoftACPolicy
from sb3_softac.softac_v1.softac_v1 import SoftAC_v1


class SoftACPlan(Plan):
    """A SoftAC_v1 model in the form that the C library needs."""

    algorithm = SoftAC_v1
    policies = (SoftACPolicy,)
    networks: ClassVar = {
        "actor": SquashedGaussianActor,
        "critic": StackedContinuousCritic,
        "value_net": ValueNet,
        "value_net_target": ValueNet,
    }
    functions: ClassVar = {
        softac_v1: equations_in(softac_v1),
        gaussian: ("gaussian_log_prob", "squashed_log_prob", "PolicySample"),
        base: ("policy_loss",),
        PolicySample: ("mean", "policy_loss"),
        stable_baselines3.sac.policies: ("LOG_STD_MIN", "LOG_STD_MAX"),
        SquashedGaussianActor: ("sample", "action_log_prob", "_noise", "_std", "get_action_dist_params", "extract_features"),
        StackedContinuousCritic: ("features", "q_values", "extract_features"),
        ValueNet: (*FORWARD, "features", "extract_features"),
    }
    function = "softac_v1"
    losses = ("actor_loss", "critic_loss", "value_loss")
    logs = ("actor_loss", "critic_loss", "value_loss", "entropy", "q_mean", "v_mean")

    def _describe(self) -> None:
        model, policy, reader, job = self.model, self.model.policy, self._reader, self.job
        require(model.reparameterize, "the likelihood-ratio gradient is not supported in C")
        actor, critic, n_obs = policy.actor, policy.critic, int(policy.actor.features_dim)
        require(not (model.use_sde or actor.use_sde), "gSDE is not supported in C")
        require(type(actor.latent_pi) is nn.Sequential, "the actor does not have SB3's layers")
        n_actions = size_of(actor.mu.weight, 0)
        heads = [actor.mu, actor.log_std]
        pi = reader.sequential(list(actor.latent_pi), heads, n_obs, n_actions, trained=True)
        critics = reader.stacked(critic.q_networks, n_obs + n_actions, 1, trained=True)
        values = []
        for network, trained in ((policy.value_net, True), (policy.value_net_target, False)):
            require(type(network.v_network) is nn.Sequential, "the value network does not have the package's layers")
            *hidden, head = network.v_network
            values.append(reader.sequential(hidden, [head], n_obs, 1, trained=trained))
        reader.follow(policy.value_net, policy.value_net_target)
        job.actor, job.critics = self._array([pi]), self._array(critics)
        job.value, job.value_target = self._array(values[:1]), self._array(values[1:])
        job.n_obs, job.n_actions, job.n_critics = n_obs, n_actions, len(critics)
        job.min_q = model.actor_q == "min"
        self._noise = th.empty(self.batch_size, n_actions, **IN_C)
        job.noise = address(self._noise, self.batch_size, n_actions)

    def _fill(self, batch: Batch) -> list[th.Tensor]:
        job, size = self.job, self.batch_size
        obs, next_obs = self._observations(batch.obs, job.n_obs), self._observations(batch.next_obs, job.n_obs)
        actions = self._floats(batch.actions, size, job.n_actions)
        job.obs, job.next_obs = address(obs, size, job.n_obs), address(next_obs, size, job.n_obs)
        job.actions, numbers = address(actions, size, job.n_actions), self._numbers(batch)
        return [obs, next_obs, actions, *numbers]

    def _begin_step(self) -> None:
        self.job.target_entropy = self.model.entropy_target.nats
        # The draw of the actor's action_log_prob: last, because nobody draws again after an Unsupported batch
        self._noise.normal_()

    def _excess_entropy(self, logs: dict[str, float]) -> float:
        return logs["entropy"] - self.job.target_entropy

    def _named(self, logs: dict[str, float]) -> dict[str, float]:
        names = [*self.losses, *(["ent_coef_loss"] if self._learned else []), "ent_coef", "entropy", "q_mean", "v_mean"]
        return {name: logs[name] for name in names}
