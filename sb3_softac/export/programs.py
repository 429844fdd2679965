"""Policies as programs, which run without this package."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_softac.algorithm.model_files import replacing
from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.export.policy import ExportedPolicy, exported_policy

OBSERVATIONS, MASKS, ACTIONS = "observations", "action_masks", "actions"


def export_program(model: SoftOffPolicyAlgorithm, path: str | Path, vec_normalize: VecEnv | None = None) -> None:
    """
    Write the deterministic policy with ``torch.export``; ``torch.export.load(path).module()`` reads it without this package.

    Its arguments are those of :class:`ExportedPolicy`; the second one, ``action_masks``, exists if and only if the model was
    trained with masks.

    :param model: Trained model.
    :param path: File, for example ``walker.pt2``.
    :param vec_normalize: Normalization of its environment; by default that of the model's environment.
    """
    exported = exported_policy(model, vec_normalize)
    observations, masks = _example(exported)
    batch = {0: th.export.Dim("batch")}
    shapes: Any = dict.fromkeys(observations, batch) if isinstance(observations, dict) else batch
    program = th.export.export(exported, (observations, *masks), dynamic_shapes=(shapes, *[batch] * len(masks)))
    with replacing(path) as file:
        th.export.save(program, file)


def export_onnx(
    model: SoftOffPolicyAlgorithm,
    path: str | Path,
    vec_normalize: VecEnv | None = None,
    opset: int | None = None,
) -> None:
    """
    Write the deterministic policy as ONNX, for onnxruntime and other runtimes.

    Its inputs are ``observations``, or the keys of dictionary observations, and, if the model was trained with masks,
    ``action_masks``; its output is ``actions``. The keys ``"actions"``, ``"action_masks"`` and ``""`` are written as
    ``observations.actions``, ``observations.action_masks`` and ``observations.``.

    :param model: Trained model.
    :param path: File, for example ``walker.onnx``.
    :param vec_normalize: Normalization of its environment; by default that of the model's environment.
    :param opset: Version of ONNX's operators that the runtime knows: 18 to 23, for some policies also 16 and 17. None for the
        one that PyTorch prefers.
    :raises ImportError: if onnx or onnxscript is missing.
    :raises ValueError: if the policy cannot be written with these operators, or two keys would have one name.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
        from onnx_ir.passes.common import NameFixPass
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install 'sb3_softac[export]'") from error
    exported = exported_policy(model, vec_normalize)
    observations, masks = _example(exported)
    keys = list(observations) if isinstance(observations, dict) else None
    names = _input_names([OBSERVATIONS] if keys is None else keys, exported.masked)
    inputs = (*(observations.values() if isinstance(observations, dict) else [observations]), *masks)
    if isinstance(opset, bool) or not isinstance(opset, int | np.integer | None):
        raise ValueError(f"opset must be the number of an operator set, such as 18, or None, got {opset!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's exporter calls functions that PyTorch has deprecated
        warnings.filterwarnings("ignore", message="# The axis name")  # all inputs have the same number of rows
        program = th.onnx.export(
            _InputsInARow(exported, keys).eval(),
            inputs,
            dynamic_shapes=(({0: th.export.Dim("batch")},) * len(inputs),),
            dynamo=True,
            opset_version=None if opset is None else int(opset),
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for value, name in zip((*graph.inputs, *graph.outputs), (*names, ACTIONS), strict=True):
        value.name = name
    NameFixPass()(program.model)  # the exporter has named its own values without regard to these names
    written = program.model_proto
    try:
        onnx.checker.check_model(written)
        versions = [each.version for each in written.opset_import if each.domain == ""]
        if opset is not None and versions != [opset]:
            raise ValueError(f"the result has version {versions[0]}")
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ValueError(
            f"PyTorch's exporter cannot write this policy with version {opset} of ONNX's operators: {error}. Use 18 to 23, or "
            "leave out opset"
        ) from error
    with replacing(path) as file:
        file.write(written.SerializeToString())


class _InputsInARow(nn.Module):
    """A policy whose inputs have no names: an exporter would have to make names of its own from the keys of a dictionary."""

    def __init__(self, exported: ExportedPolicy, keys: list[str] | None):
        super().__init__()
        self.exported, self.keys = exported, keys

    def forward(self, *inputs: th.Tensor) -> th.Tensor:
        n = 1 if self.keys is None else len(self.keys)
        return self.exported(inputs[0] if self.keys is None else dict(zip(self.keys, inputs[:n], strict=True)), *inputs[n:])


def _example(exported: ExportedPolicy) -> tuple[th.Tensor | dict[str, th.Tensor], list[th.Tensor]]:
    """:return: Observations of two rows (one would be taken for a constant), and the masks if the policy has any."""
    space = exported.policy.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {OBSERVATIONS: space}
    tensors = {name: th.as_tensor(np.zeros((2, *(part.shape or ())), part.dtype)) for name, part in parts.items()}
    policy: Any = exported.policy
    masks = [th.ones(2, policy.branches.n, dtype=th.bool)] if exported.masked else []
    return (tensors if isinstance(space, spaces.Dict) else tensors[OBSERVATIONS]), masks


def _input_names(keys: list[str], masked: bool) -> list[str]:
    """:return: Names of the inputs, all different."""
    names = [f"{OBSERVATIONS}.{key}" if key in ("", MASKS, ACTIONS) else key for key in keys] + [MASKS] * masked
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"Two keys of the observations would both be the input {sorted(twice)}: rename one of them")
    return names
