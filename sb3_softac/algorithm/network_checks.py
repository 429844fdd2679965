"""Checks before a round of gradient steps: whether it would train what it is meant to train."""

import math
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

import torch as th

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

# What Adam and AdamW keep for each element of a parameter
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
NEW_OPTIMIZER = "model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)"


def require_gradients() -> None:
    """:raises RuntimeError: if gradients are switched off; the type is PyTorch's own for a loss without a gradient."""
    if not th.is_grad_enabled() or th.is_inference_mode_enabled():
        raise RuntimeError(
            "Nothing can be learned, because gradients are switched off (by th.no_grad(), th.inference_mode() or "
            "th.set_grad_enabled(False)): call learn() and train() where they are switched on"
        )


def named_tensors(pairs: Iterable[tuple[str, th.Tensor]]) -> dict[str, th.Tensor]:
    """:return: Tensors by name; ``th.compile`` adds to the names of a network, and its target need not be compiled."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in pairs}


def running_statistics(network: th.nn.Module) -> dict[str, th.Tensor]:
    """:return: The buffers of batch normalisation by name."""
    return named_tensors((name, buffer) for name, buffer in network.named_buffers() if "running_" in name)


def check_networks(model: "SoftOffPolicyAlgorithm") -> None:
    """
    :raises ValueError: if a network was changed (for example pruned) and its target was not, so that the target cannot follow;
        if all parameters are frozen; or if an optimizer does not hold, or cannot step, what a loss is to train.
    """
    networks = {name: getattr(model.policy, name) for name in {*model.trains.values(), *chain(*model.targets.items())}}
    for name, target_name in model.targets.items():
        ours, theirs = (_followed_shapes(networks[part]) for part in (name, target_name))
        if ours != theirs:
            differing = sorted({key for key, _ in ours.items() ^ theirs.items()})
            raise ValueError(
                f"{target_name} follows {name}, but their parameters {differing} differ: if you replace, prune or "
                f"parametrize a part of policy.{name}, change policy.{target_name} in the same way"
            )
    if not any(each.requires_grad for name in model.trains.values() for each in networks[name].parameters()):
        raise ValueError(
            "Nothing can be learned, because all parameters of the policy are frozen: model.policy.requires_grad_(True)"
        )
    held = {id(each) for optimizer in model.optimizers for group in optimizer.param_groups for each in group["params"]}
    for name in dict.fromkeys(model.trains.values()):
        parameters = dict(networks[name].named_parameters())
        if missing := [key for key, each in parameters.items() if each.requires_grad and id(each) not in held]:
            raise ValueError(
                f"policy.{name} would not be trained, because policy.optimizer does not hold its parameters {missing}: after "
                f"replacing a network or a layer, set {NEW_OPTIMIZER}. Parameters that should stay as they are need "
                "requires_grad_(False)"
            )
        if inference := [key for key, each in parameters.items() if each.is_inference()]:
            raise ValueError(
                f"policy.{name} cannot be trained, because its parameters {inference} were created under "
                "th.inference_mode(): create, load or replace it outside"
            )
    if misfit := next(filter(None, map(_find_misfit, model.optimizers)), None):
        parameter, reason = misfit
        name = next((key for key, each in model.policy.named_parameters() if each is parameter), "log_ent_coef")
        remedy = NEW_OPTIMIZER if name != "log_ent_coef" else "model.ent_coef"
        raise ValueError(
            f"{name} cannot be trained, because {reason}: after changing the size or the layout of a parameter, set {remedy}"
        )
    if any(id(each) not in held for each in model.temperature.parameters()):
        raise ValueError(
            "The temperature would not be trained, because ent_coef_optimizer does not hold its parameter: instead of "
            "replacing one of them, set model.ent_coef, e.g. to 'auto_0.1'"
        )


def _followed_shapes(network: th.nn.Module) -> dict[str, th.Size]:
    """:return: The shapes of everything that a target takes over from its network, by name."""
    tensors = named_tensors(network.named_parameters()) | running_statistics(network)
    return {name: tensor.shape for name, tensor in tensors.items()}


def _find_misfit(optimizer: th.optim.Optimizer) -> tuple[th.Tensor, str] | None:
    """
    A parameter that an optimizer cannot step, and the reason. PyTorch's fused Adam does not check shapes and strides, and
    overwrites unrelated memory where they do not fit.
    """
    for parameter in (each for group in optimizer.param_groups for each in group["params"] if not each.is_contiguous()):
        if parameter.requires_grad and th.empty_like(parameter).stride() != parameter.stride():
            return parameter, "its elements do not lie side by side in memory"
    for parameter, state in optimizer.state.items():
        for name in MOMENTS if parameter.requires_grad else ():
            if (moment := state.get(name)) is None:
                continue
            if moment.size() != parameter.size():
                return parameter, f"the optimizer's {name} has the shape {tuple(moment.shape)}"
            if moment.stride() != parameter.stride() and not (parameter.is_contiguous() and moment.is_contiguous()):
                return parameter, f"the elements of the optimizer's {name} lie in another order"
        if isinstance(step := state.get("step"), th.Tensor) and step.numel() != 1:
            return parameter, f"the optimizer's step has the shape {tuple(step.shape)}"
    return None


def check_optimizers(optimizers: Iterable[th.optim.Optimizer]) -> None:
    """:raises ValueError: if a setting of an optimizer is not finite; it would destroy the parameters in one step."""
    for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
        numbers = [value for value in group.values() if type(value) is float]
        numbers += [part for value in group.values() if type(value) is tuple for part in value if type(part) is float]
        if math.isfinite(sum(numbers)):  # one test for all: this runs before each round of gradient steps
            continue
        for name, value in group.items():
            if not all(math.isfinite(n) for n in (value if type(value) is tuple else (value,)) if type(n) is float):
                raise ValueError(f"The optimizer's {name} is {value}: it must be finite. No parameter has been changed")
