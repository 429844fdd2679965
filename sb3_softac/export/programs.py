"""Policies as programs, which run without this package."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac.common.model_files import replacing
from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.export.policy import ExportedPolicy, exported_policy


def export_program(model: SoftOffPolicyAlgorithm, path: str | Path, vec_normalize: VecNormalize | None = None) -> None:
    """
    Write the deterministic policy with ``torch.export``; ``torch.export.load(path).module()`` reads it without this package.

    Its arguments are those of :class:`ExportedPolicy`; the second one, ``action_masks``, exists if and only if the model was
    trained with masks.

    :param model: Trained model.
    :param path: File, for example ``walker.pt2``.
    :param vec_normalize: Normalization of its environment; by default that of the model's environment.
    """
    exported = exported_policy(model, vec_normalize)
    example, dynamic, _ = _example(exported)
    program = th.export.export(exported, example, dynamic_shapes=dynamic)
    with replacing(path) as file:
        th.export.save(program, file)


def export_onnx(model: SoftOffPolicyAlgorithm, path: str | Path, vec_normalize: VecNormalize | None = None) -> None:
    """
    Write the deterministic policy as ONNX, for onnxruntime and other runtimes.

    Its inputs are ``observations`` (or the keys of a dictionary) and, if the model was trained with masks, ``action_masks``;
    its output is ``actions``.

    :param model: Trained model.
    :param path: File, for example ``walker.onnx``.
    :param vec_normalize: Normalization of its environment; by default that of the model's environment.
    :raises ImportError: if onnx or onnxscript is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install 'sb3_softac[export]'") from error
    exported = exported_policy(model, vec_normalize)
    example, dynamic, names = _example(exported)
    arguments = ("observations", "action_masks")  # a dictionary in place of these would be taken for keywords
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's exporter meets its own deprecations
        warnings.filterwarnings("ignore", message="# The axis name")  # all inputs have the same number of rows
        program = th.onnx.export(
            exported,
            kwargs=dict(zip(arguments, example, strict=False)),
            input_names=names,
            output_names=["actions"],
            dynamic_shapes=dict(zip(arguments, dynamic, strict=False)),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    with replacing(path) as file:
        file.write(program.model_proto.SerializeToString())


def _example(exported: ExportedPolicy) -> tuple[tuple[Any, ...], tuple[Any, ...], list[str]]:
    """:return: Inputs of two rows (one would be taken for a constant), which of their dimensions vary, and their names."""
    batch = {0: th.export.Dim("batch")}
    space = exported.policy.observation_space
    parts = space.spaces if isinstance(space, spaces.Dict) else {"observations": space}
    tensors = {name: th.as_tensor(np.zeros((2, *(part.shape or ())), part.dtype)) for name, part in parts.items()}
    names, shapes = list(tensors), {name: batch for name in tensors}
    inputs: tuple[Any, ...] = (tensors if isinstance(space, spaces.Dict) else tensors["observations"],)
    dynamic: tuple[Any, ...] = (shapes if isinstance(space, spaces.Dict) else batch,)
    if exported.masked:
        actor: Any = exported.policy.actor
        inputs += (th.ones(2, actor.branches.n, dtype=th.bool),)
        dynamic += (batch,)
        names.append("action_masks")
    return inputs, dynamic, names
