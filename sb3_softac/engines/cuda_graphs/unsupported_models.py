"""Reasons why graphs cannot train a model."""

from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN

from sb3_softac.algorithm.changes import are_hooked, hooks_of
from sb3_softac.algorithm.distributed import is_distributed
from sb3_softac.algorithm.finite import is_fused
from sb3_softac.replay.buffer import SoftReplayBuffer

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

EXTRACTORS = (FlattenExtractor, NatureCNN, CombinedExtractor)


def unsupported_reason(model: "SoftOffPolicyAlgorithm", device_type: str) -> str:
    """The reason why graphs cannot do the gradient steps of a model, as far as known beforehand; empty if there is none."""
    modules, optimizers = list(model.policy.modules()), model.optimizers
    if model.device.type != device_type:
        return f"the networks are on the device {str(model.device)!r}, but graphs run on {device_type!r}"
    if not type(model).__module__.startswith("sb3_softac.") or type(model.policy) not in model.policy_aliases.values():
        return "the algorithm or the policy is not from this package, so it is not known what a step reads"
    if reason := _work_on_the_host(model):
        return reason
    if any(isinstance(module, BaseFeaturesExtractor) and type(module) not in EXTRACTORS for module in modules):
        return "the features extractor is not one of SB3's"
    if any("running_" in name for name, _ in model.policy.named_buffers()):
        return "batch normalisation has running statistics"
    if not all(_is_fused(optimizer) for optimizer in optimizers):
        return "the optimizer is not a fused one of PyTorch's"
    if _has_hooks(modules, optimizers):
        return "hooks run on the host"
    return ""


def _work_on_the_host(model: "SoftOffPolicyAlgorithm") -> str:
    """:return: An operation between the steps that cannot be part of a graph; empty if there is none."""
    if is_distributed():
        return "several processes average their gradients"
    if model.use_sde:
        return "gSDE replaces its noise matrix in every step"
    if type(model.replay_buffer) is not SoftReplayBuffer:
        return f"the replay buffer is a {type(model.replay_buffer).__name__}, not the default one"
    return "" if model._vec_normalize_env is None else "VecNormalize works on the host"


def _is_fused(optimizer: th.optim.Optimizer) -> bool:
    return type(optimizer).__module__.startswith("torch.optim.") and is_fused(optimizer)


def _has_hooks(modules: list[th.nn.Module], optimizers: list[th.optim.Optimizer]) -> bool:
    tensors = [parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]]
    has_own_step = any("step" in vars(optimizer) for optimizer in optimizers)
    return any(hooks_of(modules, optimizers)) or are_hooked(tensors) or has_own_step
