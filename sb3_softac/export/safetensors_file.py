"""Policies as safetensors with a JSON header, which this package can load."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import torch as th
from safetensors.torch import save
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.common.model_files import replacing
from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.common.plain_json import NotPlain, from_plain, to_plain
from sb3_softac.export.policy import ExportedPolicy, Normalization, exported_policy

FORMAT = 1
ALGORITHMS: dict[str, type[SoftOffPolicyAlgorithm]] = {kind.__name__: kind for kind in (SoftAC_v1, DiscreteSAC, SQL)}
PACKAGES = ("sb3_softac", "stable_baselines3", "torch", "gymnasium")


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
    arguments.pop("lr_schedule", None)
    tensors = {name: tensor.contiguous().clone() for name, tensor in exported.state_dict().items()}
    try:
        if algorithm is None:
            raise NotPlain(f"{type(model).__name__} is not an algorithm of this package")
        description = {
            "format": FORMAT,
            "algorithm": algorithm,
            "policy": to_plain(type(exported.policy), names),
            "arguments": to_plain(arguments, names),
            "masked": exported.masked,
            "normalization": {name: getattr(exported.normalization, name) for name in ("keys", "epsilon", "clip")},
            "versions": {package: version(package) for package in PACKAGES},
        }
        _make_again(description, tensors)
    except (NotPlain, RuntimeError) as error:
        raise ValueError(
            f"This policy cannot be written as numbers and names: {error}. Use export_onnx() or export_program() instead"
        ) from error
    with replacing(path) as file:
        file.write(save(tensors, {"policy": json.dumps(description)}))


def load_policy(path: str | Path) -> ExportedPolicy:
    """
    Load a policy that :func:`export_safetensors` wrote. No code from the file is run, so it may come from an untrusted source.

    :param path: File.
    :return: The policy, on the CPU.
    :raises ValueError: if it is not such a file, or is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["policy"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if description["format"] != FORMAT:
            raise ValueError(f"its format is {description['format']}, this version reads format {FORMAT}")
        return _make_again(description, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} does not contain a policy written by export_safetensors(), or is damaged: {error}"
        ) from error


def _make_again(description: dict[str, Any], tensors: dict[str, th.Tensor]) -> ExportedPolicy:
    """
    :param description: The header.
    :param tensors: Tensors by name.
    :return: The policy.
    :raises RuntimeError: if the tensors belong to a different policy.
    """
    kind = ALGORITHMS[description["algorithm"]]
    names = kind._named_policies()
    arguments = from_plain(description["arguments"], names)
    with th.random.fork_rng(devices=[]):
        policy = from_plain(description["policy"], names)(lr_schedule=lambda _: 0.0, **arguments)
    given = description["normalization"]
    statistics = {key: RunningMeanStd(shape=tensors[f"normalization.mean_{key}"].shape) for key in given["keys"]}
    normalization = Normalization(statistics, given["epsilon"], given["clip"])
    exported = ExportedPolicy(policy, normalization, description["masked"])
    exported.load_state_dict(tensors)
    policy.set_training_mode(False)
    return exported.requires_grad_(False).eval()
