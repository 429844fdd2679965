"""
Checkpoints on disk. One checkpoint is one folder:

=======================  ==============================================================================
manifest.json            format, versions of the libraries, step, score, and SHA-256 of all other files
state.json               everything but tensors and the rows of the replay buffer
state.safetensors        tensors
rows-....safetensors     rows of the replay buffer; checkpoints share these files (hard links)
=======================  ==============================================================================

A folder gets its final name when all its contents are on disk, and its files are not changed afterwards.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

from sb3_softac.common.plain_files import open_plain, read_plain_json
from sb3_softac.resume.plain import ResumeError

FORMAT = 1
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "state.safetensors"


def digest(path: Path) -> str:
    """
    :param path: File.
    :return: SHA-256 of its content.
    :raises OSError: if it is not a regular file, or larger than the memory.
    """
    sha256 = hashlib.sha256()
    with open_plain(path) as file:
        for block in iter(lambda: file.read(2**20), b""):
            sha256.update(block)
    return sha256.hexdigest()


class Segment(NamedTuple):
    """Consecutive rows of a replay buffer."""

    file: Path
    first: int
    """Position of the first row in the replay buffer."""
    rows: int
    sha256: str

    def read(self) -> dict[str, np.ndarray]:
        """:return: Their contents by name."""
        return load_arrays(self.file)


class Checkpoint(NamedTuple):
    """A checkpoint whose files match the digests in its manifest."""

    path: Path
    manifest: dict[str, Any]
    tree: dict[str, Any]
    """State as JSON."""
    tensors: dict[str, th.Tensor]
    """Tensors of the state."""
    segments: list[Segment]
    """Rows of the replay buffer, the oldest first."""


def read_checkpoint(path: Path) -> Checkpoint:
    """
    :param path: Folder of a checkpoint.
    :return: The checkpoint.
    :raises ResumeError: if a file is missing, changed, or of an unknown format.
    """
    try:
        text = read_plain_json(path / MANIFEST)
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise ResumeError(f"{path} has format {manifest['format']}; this version of the package reads format {FORMAT}")
        if text != manifest_text(manifest):
            raise ResumeError(f"{path / MANIFEST} is damaged or was changed")
        segments = [
            Segment(path / s["file"], s["first"], s["rows"], manifest["files"][s["file"]]) for s in manifest["segments"]
        ]
        for name, expected in manifest["files"].items():
            if Path(name).name != name or digest(path / name) != expected:
                raise ResumeError(f"{path / name} is damaged or was changed")
        return Checkpoint(path, manifest, json.loads(read_plain_json(path / STATE)), load_file(path / TENSORS), segments)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise ResumeError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def manifest_text(manifest: dict[str, Any]) -> str:
    """
    :param manifest: Manifest.
    :return: Its text, including the SHA-256 of the rest of the text.
    """
    content = {name: part for name, part in manifest.items() if name != "sha256"}
    sha256 = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {"sha256": sha256}, indent=1)
