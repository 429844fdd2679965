"""Policies as safetensors with a JSON header, which this package can load."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from safetensors.torch import load, save
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

import sb3_softac
from sb3_softac.algorithm.model_files import ROOM, networks_that_fit, replacing
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.algorithm.plain_json import NotPlain, declared_size, from_plain, spaces_in, to_plain
from sb3_softac.export.policy import ExportedPolicy, Normalization, exported_policy
from sb3_softac.files.plain_files import read_plain

FORMAT = 1
ALGORITHMS: dict[str, type[SoftOffPolicyAlgorithm]] = {
    name: getattr(sb3_softac, name) for name in sb3_softac.__all__ if not name.startswith("_")
}
PACKAGES = ("sb3_softac", "stable_baselines3", "torch", "gymnasium")
NO_DIGEST = b"0" * 64
"""Stands for the digest of a file where the digest is computed."""
NOT_NEEDED = ("lr_schedule", "optimizer_class", "optimizer_kwargs")
"""Arguments of a policy that acting does not depend on."""


def export_safetensors(model: SoftOffPolicyAlgorithm, path: str | Path, vec_normalize: VecEnv | None = None) -> None:
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
    names = model.named_policies()
    own = getattr(type(model), "viewed", type(model))  # in an evaluation with masks it is a view of the model
    algorithm = next((name for name, kind in ALGORITHMS.items() if own is kind), None)
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
    :raises OSError: if it cannot be read, or is not a regular file.
    """
    content = read_plain(path, follow_links=True)
    try:
        description = _verified_description(content)
        return _make_again(description, load(content))
    except Exception as error:  # a file from anywhere may fail in any way
        reason = str(error) if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        if content.startswith(b"PK"):
            reason = "it is a saved model (read it with load() of its class) or a program (torch.export.load)"
        raise ValueError(
            f"{path} does not contain a policy written by export_safetensors(), or is damaged: {reason}"
        ) from error


def _verified_description(content: bytes) -> dict[str, Any]:
    """:return: The JSON in the header of a file whose digest is right."""
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
    """:return: The policy of a header and tensors; they may come from anywhere, and fail in any way."""
    tensors, sizes = dict(tensors), [tensor.numel() for tensor in tensors.values()]
    if sum(map(declared_size, spaces_in(list(description.values())))) > ROOM * sum(sizes):
        raise ValueError("its spaces are larger than its networks can be")
    names = ALGORITHMS[description["algorithm"]].named_policies()
    arguments, policy_class = from_plain(description["arguments"], names), from_plain(description["policy"], names)
    if not (isinstance(policy_class, type) and issubclass(policy_class, BasePolicy)):
        raise ValueError(f"{policy_class} is no policy")
    with th.random.fork_rng(devices=[]), networks_that_fit(sizes, "the header"):
        policy = policy_class(lr_schedule=lambda _: 0.0, **arguments)
    given = description["normalization"]
    statistics = {}
    for number, key in enumerate(given["keys"]):
        moments = [tensors.pop(f"normalization.{number}.{name}").numpy() for name in ("mean", "var")]
        if any(moment.dtype != np.float64 for moment in moments):
            raise ValueError(f"the statistics of {key or 'the observations'} are not of double precision")
        statistics[key] = (moments[0], moments[1])
    exported = ExportedPolicy(
        policy, Normalization(statistics, float(given["epsilon"]), float(given["clip"])), description["masked"]
    )
    exported.load_state_dict(tensors)
    policy.set_training_mode(False)
    return exported.requires_grad_(False).eval()
