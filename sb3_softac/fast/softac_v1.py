"""SoftAC_v1 in C."""

from typing import ClassVar

import torch as th
from torch import nn

from sb3_softac.common.batch import Batch
from sb3_softac.fast.networks import check_sizes
from sb3_softac.fast.plan import IN_C, Plan
from sb3_softac.fast.unsuitable import require
from sb3_softac.nets.critics import StackedContinuousCritic, ValueNet
from sb3_softac.nets.gaussian import SquashedGaussianActor
from sb3_softac.softac_v1.policies import MlpPolicy, SoftACPolicy
from sb3_softac.softac_v1.softac_v1 import SoftAC_v1


class SoftACPlan(Plan):
    """A SoftAC_v1 model in the form that the C library needs."""

    algorithm = SoftAC_v1
    policies = (SoftACPolicy, MlpPolicy)
    networks: ClassVar = {
        "actor": SquashedGaussianActor,
        "critic": StackedContinuousCritic,
        "value_net": ValueNet,
        "value_net_target": ValueNet,
    }
    function = "softac_v1"
    options = ("use_sde", "actor_q", "reparameterize")
    losses = ("actor_loss", "critic_loss", "value_loss")
    logs = ("actor_loss", "critic_loss", "value_loss", "entropy", "q_mean", "v_mean")

    def _describe(self) -> None:
        model, policy, reader, job = self.model, self.model.policy, self._reader, self.job
        require(not model.use_sde, "gSDE is not supported in C")
        require(model.reparameterize, "the likelihood-ratio gradient is not supported in C")
        actor = policy.actor
        require(type(actor.latent_pi) is nn.Sequential, "the actor does not have SB3's layers")
        pi = reader.sequential(list(actor.latent_pi), [actor.mu, actor.log_std], trained=True)
        critics = reader.stacked(policy.critic.q_networks, trained=True)
        values = []
        for network, trained in ((policy.value_net, True), (policy.value_net_target, False)):
            require(type(network.v_network) is nn.Sequential, "the value network does not have the package's layers")
            *hidden, head = network.v_network
            values.append(reader.sequential(hidden, [head], trained=trained))
        reader.follow(policy.value_net, policy.value_net_target)
        job.actor, job.critics = self._array([pi]), self._array(critics)
        job.value, job.value_target = self._array(values[:1]), self._array(values[1:])
        job.n_actions, job.n_critics = actor.mu.out_features, len(critics)
        job.n_obs = actor.features_dim
        job.min_q = model.actor_q == "min"
        for network, n_in, n_out in (
            (pi, job.n_obs, 2 * job.n_actions),
            *((critic, job.n_obs + job.n_actions, 1) for critic in critics),
            *((value, job.n_obs, 1) for value in values),
        ):
            check_sizes(network, n_in, n_out)

    def _fill(self, batch: Batch) -> list[th.Tensor]:
        job = self.job
        obs, next_obs = self._observations(batch.obs, job.n_obs), self._observations(batch.next_obs, job.n_obs)
        actions = self._floats(batch.actions, self.batch_size, job.n_actions)
        numbers = self._numbers(batch)
        noise = th.randn(self.batch_size, job.n_actions, **IN_C)  # the draw of the actor's action_log_prob
        job.obs, job.next_obs, job.actions, job.noise = (part.data_ptr() for part in (obs, next_obs, actions, noise))
        job.target_entropy = self.model._target_nats
        return [obs, next_obs, actions, noise, *numbers]

    def _excess_entropy(self, logs: dict[str, float]) -> float:
        return logs["entropy"] - self.job.target_entropy

    def _named(self, logs: dict[str, float]) -> dict[str, float]:
        names = [*self.losses, *(["ent_coef_loss"] if self._learned else []), "ent_coef", "entropy", "q_mean", "v_mean"]
        return {name: logs[name] for name in names}
