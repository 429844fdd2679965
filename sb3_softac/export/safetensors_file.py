"""Policies as safetensors with a JSON header, which this package can load."""

import hashlib
import json
import math
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from safetensors.torch import load, save
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.common.model_files import replacing
from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.common.plain_json import NotPlain, from_plain, to_plain
from sb3_softac.export.policy import ExportedPolicy, Normalization, exported_policy

FORMAT = 1
ALGORITHMS: dict[str, type[SoftOffPolicyAlgorithm]] = {kind.__name__: kind for kind in (SoftAC_v1, DiscreteSAC, SQL)}
PACKAGES = ("sb3_softac", "stable_baselines3", "torch", "gymnasium")
NO_DIGEST = b"0" * 64
"""Stands for the digest of a file where the digest is computed."""
NOT_NEEDED = ("lr_schedule", "optimizer_class", "optimizer_kwargs")
"""Arguments of a policy that acting does not depend on."""


def export_safetensors(model: SoftOffPolicyAlgorithm, path: str | Path, vec_normalize: VecNormalize | None = None) -> None:
    """
    Write the policy with all its networks as safetensors with a JSON header. :func:`load_policy` reads it; any safetensors
    reader can read the weights.

    :param model: Trained model.
    :param path: File, for example ``walker.safetensors``.
    :param vec_normalize: Normalization of its environment; by default that of the model's environment.
    :raises ValueError: if the policy cannot be reconstructed from names and numbers (for example because it has a custom
        features extractor or replaced layers).
    """
    exported = exported_policy(model, vec_normalize)
    names = model._named_policies()
    algorithm = next((name for name, kind in ALGORITHMS.items() if type(model) is kind), None)
    arguments = exported.policy._get_constructor_parameters()
    arguments = {name: value for name, value in arguments.items() if name not in NOT_NEEDED}
    normalization = exported.normalization
    tensors = {name: tensor.contiguous().clone() for name, tensor in exported.state_dict().items()}
    for number, moments in enumerate(normalization.statistics.values()):
        tensors |= {f"normalization.{number}.{name}": th.tensor(x) for name, x in zip(("mean", "var"), moments, strict=True)}
    try:
        if algorithm is None:
            raise NotPlain(f"{type(model).__name__} is not an algorithm of this package")
        description = {
            "format": FORMAT,
            "algorithm": algorithm,
            "policy": to_plain(type(exported.policy), names),
            "arguments": to_plain(arguments, names),
            "masked": exported.masked,
            "normalization": {name: getattr(normalization, name) for name in ("keys", "epsilon", "clip")},
            "versions": {package: version(package) for package in PACKAGES},
        }
        _make_again(description, tensors)
    except (NotPlain, RuntimeError) as error:
        raise ValueError(
            f"This policy cannot be written as numbers and names: {error}. Use export_onnx() or export_program() instead"
        ) from error
    content = save(tensors, {"policy": json.dumps(description), "sha256": NO_DIGEST.decode()})
    with replacing(path) as file:
        file.write(content.replace(NO_DIGEST, hashlib.sha256(content).hexdigest().encode(), 1))


def load_policy(path: str | Path) -> ExportedPolicy:
    """
    Load a policy that :func:`export_safetensors` wrote.

    No code from the file is run, and no network is built that is larger than the tensors in the file, so it may come from an
    untrusted source. A digest in the file detects damage.

    :param path: File.
    :return: The policy, on the CPU.
    :raises ValueError: if it is not such a file, or is damaged.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device or a pipe may have no end
        raise ValueError(f"{path} is not a file")
    content = path.read_bytes()
    try:
        description = _verified_description(content)
        return _make_again(description, load(content))
    except Exception as error:  # a file from anywhere may fail in any way
        reason = str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} does not contain a policy written by export_safetensors(), or is damaged: {reason}"
        ) from error


def _verified_description(content: bytes) -> dict[str, Any]:
    """
    :param content: Content of a file.
    :return: The JSON in its header.
    :raises ValueError: if the content is not what was written.
    """
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    if "sha256" not in metadata:
        raise ValueError("it has no digest")
    digest = metadata["sha256"].encode()
    before, rest = content.index(digest), memoryview(content)
    found = hashlib.sha256(rest[:before])
    found.update(NO_DIGEST)
    found.update(rest[before + len(digest) :])
    if found.hexdigest().encode() != digest:
        raise ValueError("its content does not agree with its digest")
    description = json.loads(metadata["policy"])
    if description["format"] != FORMAT:
        raise ValueError(f"its format is {description['format']}, this version reads format {FORMAT}")
    return description


def _make_again(description: dict[str, Any], tensors: dict[str, th.Tensor]) -> ExportedPolicy:
    """
    :param description: The header.
    :param tensors: Tensors by name.
    :return: The policy.
    :raises RuntimeError: if the tensors belong to a different policy.
    :raises ValueError: if the description is not that of a policy of the size of the tensors.
    """
    tensors = dict(tensors)
    _check_sizes(description, tensors)
    names = ALGORITHMS[description["algorithm"]]._named_policies()
    arguments, policy_class = from_plain(description["arguments"], names), from_plain(description["policy"], names)
    if not (isinstance(policy_class, type) and issubclass(policy_class, BasePolicy)):
        raise ValueError(f"{policy_class} is no policy")
    with th.random.fork_rng(devices=[]), _no_more_parameters_than(tensors):
        policy = policy_class(lr_schedule=lambda _: 0.0, **arguments)
    given = description["normalization"]
    space = policy.observation_space
    statistics = {}
    for number, key in enumerate(given["keys"]):
        moments = [tensors.pop(f"normalization.{number}.{name}").numpy() for name in ("mean", "var")]
        shape = space[key].shape if isinstance(space, spaces.Dict) else space.shape
        if any(moment.shape != shape or moment.dtype != np.float64 for moment in moments):
            raise ValueError(f"the statistics of {key or 'the observations'} do not have the shape {shape}")
        statistics[key] = (moments[0], moments[1])
    exported = ExportedPolicy(
        policy, Normalization(statistics, float(given["epsilon"]), float(given["clip"])), description["masked"]
    )
    exported.load_state_dict(tensors)
    policy.set_training_mode(False)
    return exported.requires_grad_(False).eval()


def _check_sizes(description: dict[str, Any], tensors: dict[str, th.Tensor]) -> None:
    """
    Compare with the file what would be built before any parameter is: a few bytes could declare arrays of any size.

    :param description: The header.
    :param tensors: Tensors of the file.
    :raises ValueError: if there is more than the tensors can belong to.
    """
    numbers = sum(tensor.numel() for tensor in tensors.values())
    arguments = description["arguments"]["dict"]
    actions = _elements(arguments["action_space"]["space"])
    declared = {"the spaces": 0, "n_candidates": 0}
    for name, value in _named_values({"arguments": description["arguments"], "policy": description["policy"]}):
        if name == "n_candidates":
            declared["n_candidates"] += value * actions
        if isinstance(value, dict) and "space" in value:
            # A large image may have some more numbers than the weights of the networks that read it
            declared["the spaces"] += _elements(value["space"]) // 16
    for name, size in declared.items():
        if size > numbers:
            raise ValueError(f"{name} would be larger than its tensors, which have {numbers} numbers")


def _named_values(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """:return: All values, also those in other values, with their names; those of a list have the list's."""
    for name, value in values.items():
        yield name, value
        match value:
            case {"list": list(items)} | {"tuple": list(items)}:
                for item in items:
                    yield from _named_values({name: item})
            case {"dict": dict(parts)}:
                yield from _named_values(parts)


def _elements(space: Any) -> int:
    """
    :param space: A space, as JSON.
    :return: Number of elements of the arrays that belong to it.
    :raises ValueError: if it is no space of numbers.
    """
    match space:
        case ["Dict", dict(parts)]:
            return sum(map(_elements, parts.values()))
        case ["Box", _, _, list(shape), str(dtype)] if np.dtype(dtype).kind in "fiub":
            return math.prod(map(operator.index, shape))
        case ["MultiBinary", list(shape)]:
            return math.prod(map(operator.index, shape))
        case ["Discrete", *_] | ["MultiDiscrete", *_]:
            return 1
    raise ValueError(f"{str(space)[:100]} is not a space")


@contextmanager
def _no_more_parameters_than(tensors: dict[str, th.Tensor]) -> Iterator[None]:
    """
    Stop the construction of networks, before their memory is used, as soon as they are larger than the file: eight times as
    large, since a composed policy builds networks that it does not keep.

    :param tensors: Tensors of the file.
    :raises ValueError: if this thread creates more parameters, or larger ones.
    """
    thread, left = threading.get_ident(), [8 * len(tensors), 8 * sum(tensor.numel() for tensor in tensors.values())]

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if threading.get_ident() == thread:
            left[0] -= 1
            left[1] -= parameter.numel()
            if min(left) < 0:
                raise ValueError("the networks that it describes would be larger than its tensors")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
