"""DiscreteSAC in C."""

import ctypes
import math
from typing import ClassVar

import torch as th
from torch import nn

from sb3_softac.common.batch import Batch
from sb3_softac.discretesac.branches import Branches
from sb3_softac.discretesac.discretesac import DiscreteSAC
from sb3_softac.discretesac.networks import CategoricalActor, StackedDiscreteCritic
from sb3_softac.discretesac.policies import DiscreteSACPolicy, MlpPolicy
from sb3_softac.fast.networks import check_sizes
from sb3_softac.fast.plan import METHODS, Plan
from sb3_softac.fast.unsuitable import require


class DiscretePlan(Plan):
    """A DiscreteSAC model in the form that the C library needs."""

    algorithm = DiscreteSAC
    policies = (DiscreteSACPolicy, MlpPolicy)
    networks: ClassVar = {"actor": CategoricalActor, "critic": StackedDiscreteCritic, "critic_target": StackedDiscreteCritic}
    methods = (*METHODS, "_max_entropies", "_aggregate", "_critic_loss", "_entropy_penalty")
    function = "discretesac"
    options = ("q_aggregation", "stable_kwargs")
    losses = ("actor_loss", "critic_loss")
    logs = ("actor_loss", "critic_loss", "entropy", "max_entropy", "q_mean")

    def _describe(self) -> None:
        model, policy, reader, job = self.model, self.model.policy, self._reader, self.job
        require(not model.stable_kwargs, "stable_kwargs are not supported in C")
        branches: Branches = model.branches
        require(type(policy.actor.logits) is nn.Sequential, "the actor does not have the package's layers")
        *hidden, head = policy.actor.logits
        actor = reader.sequential(hidden, [head], trained=True)
        critics = reader.stacked(policy.critic.q_networks, trained=True)
        targets = reader.stacked(policy.critic_target.q_networks, trained=False)
        reader.follow(policy.critic, policy.critic_target)
        self._sizes = (ctypes.c_int64 * len(branches.sizes))(*branches.sizes)
        job.actor, job.critics, job.critic_targets = (self._array(part) for part in ([actor], critics, targets))
        job.sizes, job.n_branches, job.n_options = self._sizes, len(branches.sizes), branches.n
        job.n_obs, job.n_critics = policy.actor.features_dim, len(critics)
        job.mean_q = model.q_aggregation == "mean"
        for network in (actor, *critics, *targets):
            check_sizes(network, job.n_obs, job.n_options)

    def _fill(self, batch: Batch) -> list[th.Tensor]:
        job, model = self.job, self.model
        obs, next_obs = self._observations(batch.obs, job.n_obs), self._observations(batch.next_obs, job.n_obs)
        actions = batch.actions.long().contiguous()
        require(actions.shape == (self.batch_size, job.n_branches), "a batch does not have the shape that the networks need")
        masks = [self._masks(batch, name) for name in ("action_masks", "next_action_masks")]
        job.obs, job.next_obs, job.actions = obs.data_ptr(), next_obs.data_ptr(), actions.data_ptr()
        job.masks, job.next_masks = (None if mask is None else mask.data_ptr() for mask in masks)
        job.critic_alpha = model.critic_ent_coef_scale * float(model.temperature.alpha)
        job.target_ratio = float(model._target.ratio)
        return [obs, next_obs, actions, *(mask for mask in masks if mask is not None), *self._numbers(batch)]

    def _masks(self, batch: Batch, name: str) -> th.Tensor | None:
        if (mask := batch.extras.get(name)) is None:
            return None
        require(mask.shape == (self.batch_size, self.job.n_options), "masks do not have the shape that the networks need")
        return mask.to(th.bool).contiguous()

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
