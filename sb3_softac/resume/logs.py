"""The log of a training: its files, and the number of iterations that SB3 keeps in a local variable."""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import CSVOutputFormat, JSONOutputFormat, TensorBoardOutputFormat

from sb3_softac.resume.frames import frames_of_learn


def _files(model: BaseAlgorithm) -> Iterator[tuple[str, Any]]:
    """The files that the log is written to, by a name that is the same in a program that is started again."""
    counts: dict[str, int] = {}
    for output in model.logger.output_formats:
        name = type(output).__name__
        if isinstance(output, CSVOutputFormat | JSONOutputFormat) or getattr(output, "own_file", False):
            counts[name] = counts.get(name, -1) + 1
            yield f"log.{name}.{counts[name]}", output


def write_logs(model: BaseAlgorithm) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    """The contents of its log's files, as JSON and tensors."""
    tensors, keys = {}, {}
    for name, output in _files(model):
        output.file.flush()
        try:
            content = Path(output.file.name).read_bytes()
        except OSError:  # it was removed, which must not end the training
            continue
        tensors[name] = th.from_numpy(np.frombuffer(content, np.uint8).copy())
        keys[name] = list(getattr(output, "keys", []))
    run = _tensorboard_run(model)
    return {"keys": keys, "tensorboard": run and int(run[2])}, tensors


def read_logs(model: BaseAlgorithm, tree: Any, tensors: dict[str, th.Tensor]) -> None:
    """Let the log continue from where the checkpoint was saved."""
    written = tree.get("logs") if isinstance(tree, dict) else None
    if not isinstance(written, dict):  # damaged, which is reported later
        return
    for name, output in _files(model):
        if name in tensors:
            output.file.seek(0)
            output.file.truncate()
            output.file.write(tensors[name].numpy().tobytes().decode())
            output.file.flush()
            if isinstance(output, CSVOutputFormat):
                output.keys = list(written["keys"][name])
    for output in model.logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            _continue_tensorboard(model, output, written["tensorboard"], tree["attributes"]["num_timesteps"])


def _tensorboard_run(model: BaseAlgorithm) -> re.Match[str] | None:
    """Name and number of the folder that SB3 has made for this ``learn``; None if the user has set a logger."""
    if model._custom_logger or model.tensorboard_log is None or model.logger.dir is None:
        return None
    return re.fullmatch(r"(.*)_(\d+)", os.path.basename(model.logger.dir))


def _continue_tensorboard(model: BaseAlgorithm, output: TensorBoardOutputFormat, number: Any, steps: int) -> None:
    """Write into the folder of the interrupted run; TensorBoard drops what was written after the checkpoint."""
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = before = output.writer.log_dir
    run = _tensorboard_run(model)
    if run is not None:
        before = os.path.join(str(model.tensorboard_log), f"{run[1]}_{number}")
        if type(number) is not int or not os.path.isdir(before) or os.path.samefile(before, folder):
            return
        model.logger.dir = before
    output.writer.close()
    if run is not None:
        _remove_new(folder)
    output.writer = SummaryWriter(log_dir=before, purge_step=steps + 1)


def _remove_new(folder: str) -> None:
    """Remove the folder of a run that has nothing in it but the file that has just been opened."""
    files = os.listdir(folder)
    if len(files) == 1 and files[0].startswith("events.out.tfevents."):
        with contextlib.suppress(OSError):
            os.remove(os.path.join(folder, files[0]))
            os.rmdir(folder)


def _frame_of_learn(model: BaseAlgorithm) -> FrameType | None:
    frames = frames_of_learn(sys._getframe())
    return next((f for f in frames if f.f_locals.get("self") is model and type(f.f_locals.get("iteration")) is int), None)


def iteration_of(model: BaseAlgorithm) -> int | None:
    """The number of rollouts until now, which PPO and A2C count in a variable of ``learn``; None for others."""
    frame = _frame_of_learn(model)
    return None if frame is None else frame.f_locals["iteration"]


def set_iteration(model: BaseAlgorithm, iteration: int | None) -> None:
    frame = _frame_of_learn(model)
    if frame is None or iteration is None:
        return
    frame.f_locals["iteration"] = iteration
    if sys.version_info < (3, 13):  # where these are a copy of the variables
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
