"""DiscreteSAC in C."""

import ctypes
import math
from typing import ClassVar

import torch as th
from torch import nn

from sb3_softac.discrete import branches
from sb3_softac.discrete.branches import Branches
from sb3_softac.discrete.networks import CategoricalActor, StackedDiscreteCritic
from sb3_softac.discretesac import discretesac
from sb3_softac.discretesac.discretesac import DiscreteSAC
from sb3_softac.discretesac.policies import DiscreteSACPolicy
from sb3_softac.engines.native.network_reader import address
from sb3_softac.engines.native.plan import FORWARD, METHODS, Plan, equations_in
from sb3_softac.engines.native.unsupported import require
from sb3_softac.replay.batch import Batch


class DiscretePlan(Plan):
    """A DiscreteSAC model in the form that the C library needs."""

    algorithm = DiscreteSAC
    policies = (DiscreteSACPolicy,)
    networks: ClassVar = {"actor": CategoricalActor, "critic": StackedDiscreteCritic, "critic_target": StackedDiscreteCritic}
    functions: ClassVar = {
        discretesac: (*equations_in(discretesac), "smallest_by_state"),
        branches: ("MASKED_LOGIT",),
        Branches: ("log_softmax", "select", "max_entropies"),
        CategoricalActor: ("log_probs", "features", "extract_features"),
        StackedDiscreteCritic: (*FORWARD, "features", "q_values", "extract_features"),
    }
    methods = (*METHODS, "_max_entropies", "_entropy_logs", "_aggregate", "_critic_loss", "_q_taken", "_entropy_penalty")
    function = "discretesac"
    losses = ("actor_loss", "critic_loss")
    logs = ("actor_loss", "critic_loss", "entropy", "max_entropy", "q_mean")

    def _describe(self) -> None:
        model, policy, reader, job = self.model, self.model.policy, self._reader, self.job
        require(not model.stable_kwargs, "stable_kwargs are not supported in C")
        actor, critic, target = policy.actor, policy.critic, policy.critic_target
        own, theirs, n_obs = model.branches, actor.branches, int(actor.features_dim)
        alike = type(own) is type(theirs) is Branches and own.sizes == theirs.sizes
        alike &= {critic.n_branches, target.n_branches} == {len(own.sizes)}
        require(alike, "the networks have different branches")
        require(type(actor.logits) is nn.Sequential, "the actor does not have the package's layers")
        *hidden, head = actor.logits
        pi = reader.sequential(hidden, [head], n_obs, own.n, trained=True)
        critics = reader.stacked(critic.q_networks, n_obs, own.n, trained=True)
        targets = reader.stacked(target.q_networks, n_obs, own.n, trained=False)
        reader.follow(critic, target)
        self._sizes = (ctypes.c_int64 * len(own.sizes))(*own.sizes)
        job.actor, job.critics, job.critic_targets = (self._array(part) for part in ([pi], critics, targets))
        job.sizes, job.n_branches, job.n_options = self._sizes, len(own.sizes), own.n
        job.n_obs, job.n_critics = n_obs, len(critics)
        job.mean_q = model.q_aggregation == "mean"

    def _fill(self, batch: Batch) -> list[th.Tensor]:
        job, size = self.job, self.batch_size
        obs, next_obs = self._observations(batch.obs, job.n_obs), self._observations(batch.next_obs, job.n_obs)
        actions = batch.actions.long().contiguous()
        masks = [batch.extras.get(name) for name in ("action_masks", "next_action_masks")]
        masks = [None if mask is None else mask.contiguous() for mask in masks]
        job.obs, job.next_obs = address(obs, size, job.n_obs), address(next_obs, size, job.n_obs)
        job.actions = address(actions, size, job.n_branches, dtype=th.int64)
        job.masks, job.next_masks = (
            None if mask is None else address(mask, size, job.n_options, dtype=th.bool) for mask in masks
        )
        return [obs, next_obs, actions, *(mask for mask in masks if mask is not None), *self._numbers(batch)]

    def _begin_step(self) -> None:
        self.job.critic_alpha = self.model.critic_ent_coef_scale * self.job.alpha
        self.job.target_ratio = float(self.model.entropy_target.ratio)

    def _excess_entropy(self, logs: dict[str, float]) -> float:
        return logs["entropy"] - self.job.target_ratio * logs["max_entropy"]

    def _named(self, logs: dict[str, float]) -> dict[str, float]:
        # The logarithm of 0 where masks forbid everything: without a learned temperature that is none of C's concern
        require(math.isfinite(logs["max_entropy"]), "masks forbid all options of a branch")
        names = [*self.losses, *(["ent_coef_loss"] if self._learned else []), "ent_coef", "entropy"]
        named = {name: logs[name] for name in names}
        named["entropy_ratio"] = logs["entropy"] / max(logs["max_entropy"], 1e-8)
        named["target_entropy_ratio"] = self.job.target_ratio
        return {**named, "q_mean": logs["q_mean"]}
