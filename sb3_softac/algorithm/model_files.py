"""Saved models: written atomically, and read without running code from the file."""

import io
import json
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import open_path

from sb3_softac import files
from sb3_softac.algorithm.plain_json import LEFT_OUT, NotPlain, declared_size, from_plain, spaces_in, to_plain
from sb3_softac.files.plain_files import read_plain
from sb3_softac.files.tensor_files import NotTensors, stored_members, tensor_sizes

PLAIN = "plain.json"
OTHERS = {"data", PLAIN, "_stable_baselines3_version", "system_info.txt"}
# Attributes from which SB3 would build an environment, or which it would use as its own objects.
NEVER = {"env", "policy", "replay_buffer", "_vec_normalize_env", "_logger", "_custom_logger", "device"}
# A file of n numbers may declare spaces of up to ROOM * n + SLACK elements, and networks with as many parameters.
ROOM, SLACK, SLACK_TENSORS = 16, 2**20, 1_000


def add_plain_part(content: io.BytesIO, attributes: dict[str, Any], policies: dict[str, type[BasePolicy]]) -> bytes:
    """:return: A model's file as SB3 writes it, with a JSON copy of what SB3 pickles."""
    with zipfile.ZipFile(content, "a") as archive:
        plain = {}
        for name in _pickled(json.loads(archive.read("data"))):
            with suppress(NotPlain):  # load(safe=True) says which
                plain[name] = None if name in LEFT_OUT else to_plain(attributes[name], policies)
        archive.writestr(PLAIN, json.dumps(plain))
    return content.getvalue()


def without_pickles(
    cls: Any, path: str | Path | BufferedIOBase, given: dict[str, Any]
) -> tuple[io.BytesIO, dict[str, Any], list[int]]:
    """
    The content of a file, objects to use instead of all pickles in it, and the sizes of its tensors. An error if something is
    not what :meth:`save` writes, or if no object is given for a pickle.
    """
    content = _read(path)  # once: what is checked is what is loaded
    try:
        data, plain, sizes = _look_into(content)
        most = ROOM * sum(sizes) + SLACK
        pickled = _pickled(data)
        methods = {name for name in data if callable(getattr(cls, name, None))}
        foreign = sorted(methods | (NEVER & data.keys()) | (plain.keys() - pickled))
        if foreign:
            raise NotPlain(f"{foreign} is not something that save() writes")
        if sum(map(declared_size, spaces_in(list(plain.values())))) > most:
            raise NotPlain("its spaces are larger than its networks can be")
        objects = {name: from_plain(part, cls.named_policies()) for name, part in plain.items()}
    except (NotTensors, NotPlain, KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        reason = str(error) if isinstance(error, NotTensors | NotPlain) else f"{type(error).__name__}: {error}"
        raise ValueError(f"Refused: {path} is not a file that save() has written: {reason}") from error
    missing = sorted(pickled - plain.keys() - given.keys())
    if missing:
        remedy = "Pass them in custom_objects"
        if not plain:  # a model of SB3, or of other code that saves no plain part
            remedy += f", or, if you trust the author of the file, convert it once with {cls.__name__}.load(path).save(path)"
        raise ValueError(f"Refused: {missing} in {path} would have to be unpickled, which can run arbitrary code. {remedy}")
    return io.BytesIO(content), {**objects, "tensorboard_log": None, **given}, sizes


def _read(path: str | Path | BufferedIOBase) -> bytes:
    """:return: The content of a file; SB3 adds the suffix ``.zip`` where it is left out."""
    if not isinstance(path, str | Path):
        stream = open_path(path, "r")
        if stream.seekable():  # what reads zip files, as load() does otherwise, begins at their start
            stream.seek(0)
        return stream.read()
    try:
        return read_plain(path, follow_links=True)
    except FileNotFoundError:
        return read_plain(f"{path}.zip", follow_links=True)


def _look_into(content: bytes) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """What SB3 saved, what of it is there as JSON, and the sizes of all tensors."""
    with stored_members(content) as archive:
        sizes = []
        for name in archive.namelist():
            if name.endswith(".pth") and "/" not in name and not name.startswith("."):
                try:
                    sizes += tensor_sizes(archive.read(name))
                except NotTensors as error:
                    raise NotTensors(f"{name}: {error}") from error
            elif name not in OTHERS:
                raise NotTensors(f"{name!r} is not something that save() writes")
        data = json.loads(archive.read("data"))
        plain = json.loads(archive.read(PLAIN)) if PLAIN in archive.namelist() else {}
    if not isinstance(data, dict) or not isinstance(plain, dict):
        raise NotTensors("it has no attributes")
    return data, plain, sizes


@contextmanager
def networks_that_fit(sizes: list[int], path: Any) -> Iterator[None]:
    """Stop building networks before they take memory if they have more parameters than a file can fill."""
    seen, most = [0, 0], [ROOM * sum(sizes) + SLACK, ROOM * len(sizes) + SLACK_TENSORS]
    thread = threading.get_ident()

    def count(module: th.nn.Module, name: str, tensor: Any) -> None:
        if isinstance(tensor, th.Tensor) and threading.get_ident() == thread:
            seen[0], seen[1] = seen[0] + tensor.numel(), seen[1] + 1
            if seen[0] > most[0] or seen[1] > most[1]:
                raise ValueError(f"Refused: {path} describes networks with more parameters than it has numbers")

    hooks = [
        register(count)
        for register in (
            th.nn.modules.module.register_module_parameter_registration_hook,
            th.nn.modules.module.register_module_buffer_registration_hook,
        )
    ]
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if "allocate" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise ValueError(f"Refused: {path} describes something that does not fit into memory") from error
    finally:
        for hook in hooks:
            hook.remove()


def _pickled(data: dict[str, Any]) -> set[str]:
    """:return: Names of the attributes that SB3 pickled."""
    return {name for name, part in data.items() if isinstance(part, dict) and ":serialized:" in part}


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces the one at the path when it is complete and on disk."""
    path = Path(path)
    if path.is_dir():
        warnings.warn(f"Path '{path}' is a folder. Will save instead to {path}_2", stacklevel=4)
        path = Path(f"{path}_2")
    with files.replacing(path) as file:
        yield file
