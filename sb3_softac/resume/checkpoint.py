"""
Checkpoints on disk. One checkpoint is one folder:

=======================  ==============================================================================
manifest.json            format, versions of the libraries, step, score, and SHA-256 of all other files
state.json               everything but tensors and the rows of the replay buffer
state.safetensors        tensors
rows-....safetensors     rows of the replay buffer in blocks; checkpoints share these files (hard links)
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

from sb3_softac.files.plain_files import open_plain, read_plain_json
from sb3_softac.resume.serialization import ResumeError

FORMAT = 1
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "state.safetensors"


def digest(path: Path) -> str:
    """SHA-256 of the content of a file."""
    sha256 = hashlib.sha256()
    with open_plain(path) as file:
        for block in iter(lambda: file.read(2**20), b""):
            sha256.update(block)
    return sha256.hexdigest()


class Segment(NamedTuple):
    """Neighbouring rows of a replay buffer in a file."""

    file: Path
    first: int
    """Number of the first row in the replay buffer."""
    rows: int
    sha256: str

    def read(self) -> dict[str, np.ndarray]:
        """Their contents by name."""
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
    """Rows of the replay buffer."""
    damaged: list[Path]
    """Files with other rows of the replay buffer, which are missing or damaged."""


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint. If only rows of the replay buffer are damaged, it is read without them."""
    try:
        text = read_plain_json(path / MANIFEST)
        manifest = json.loads(text)
        if manifest["format"] != FORMAT:
            raise ResumeError(f"{path} has format {manifest['format']}; this version of the package reads format {FORMAT}")
        if text != manifest_text(manifest):
            raise ResumeError(f"{path / MANIFEST} is damaged or was changed")
        for name in manifest["files"]:
            if Path(name).name != name:
                raise ResumeError(f"{path / name} is not a file of this checkpoint")
        for name in (STATE, TENSORS):
            if not _is_intact(path / name, manifest["files"][name]):
                raise ResumeError(f"{path / name} is damaged or was changed")
        segments, damaged = [], []
        for part in manifest["segments"]:
            name, sha256 = part["file"], manifest["files"][part["file"]]
            # Without hard links, other checkpoints have copies of their own
            copies = [path / name, *(other / name for other in sorted(path.parent.glob("checkpoint-*")) if other != path)]
            file = next((copy for copy in copies if _is_intact(copy, sha256)), None)
            if file is None:
                damaged.append(path / name)
            else:
                segments.append(Segment(file, int(part["first"]), int(part["rows"]), sha256))
        tree, tensors = json.loads(read_plain_json(path / STATE)), load_file(path / TENSORS)
        return Checkpoint(path, manifest, tree, tensors, segments, damaged)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise ResumeError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _is_intact(path: Path, sha256: str) -> bool:
    try:
        return digest(path) == sha256
    except OSError:
        return False


def manifest_text(manifest: dict[str, Any]) -> str:
    """The text of a manifest, including the SHA-256 of the rest of the text."""
    content = {name: part for name, part in manifest.items() if name != "sha256"}
    sha256 = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {"sha256": sha256}, indent=1)
