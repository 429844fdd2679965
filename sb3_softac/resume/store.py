"""
A folder of checkpoints. A crash at any moment leaves the existing checkpoints intact. One checkpoint is one folder:

=======================  ==============================================================================
manifest.json            format, versions of the libraries, step, score, and SHA-256 of all other files
state.json               everything but tensors and the rows of the replay buffer
state.safetensors        tensors
rows-....safetensors     rows of the replay buffer in blocks; checkpoints share these files (hard links)
=======================  ==============================================================================

A folder gets its final name when all its contents are on disk, and its files are not changed afterwards.
"""

import functools
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Container, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from sb3_softac.checks import integer, read
from sb3_softac.files import sync
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
    segments: list[Segment]
    damaged: list[Path]
    """Files with rows of the replay buffer that are missing or damaged."""


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


class Store:
    """A folder of checkpoints, of which the newest ``keep`` and the best one are kept."""

    def __init__(self, path: str | Path, keep: int = 1):
        self.path, self.keep = Path(os.path.abspath(path)), read("keep", keep, integer(1, " checkpoint"))

    def checkpoints(self) -> list[Path]:
        """The folders of all checkpoints, the oldest first."""
        return sorted(self.path.glob("checkpoint-" + "[0-9]" * 12))

    def newest(self, among: Container[str] | None = None) -> Checkpoint | None:
        """The newest checkpoint that can be read; None if there are no checkpoints. Warns about damaged ones."""
        problems: list[str] = []
        for path in reversed(self.checkpoints()):
            if among is not None and path.name not in among:
                continue
            try:
                checkpoint = read_checkpoint(path)
            except ResumeError as error:
                problems.append(str(error))
                continue
            if problems:
                warnings.warn(f"Damaged checkpoint: {'; '.join(problems)}. Using {path} instead", stacklevel=2)
            return checkpoint
        if problems:
            raise ResumeError(
                f"No checkpoint can be read: {'; '.join(problems)}. To start from the beginning, remove {self.path}"
            )
        return None

    def save(
        self,
        step: int,
        tree: dict[str, Any],
        tensors: dict[str, th.Tensor],
        segments: Iterable[Segment] = (),
        rows: Iterable[tuple[int, dict[str, np.ndarray]]] = (),
        replay: dict[str, Any] | None = None,
        score: float | None = None,
    ) -> list[Segment]:
        """Save a checkpoint, then remove those that are not to be kept."""
        final, writing = self.path / f"checkpoint-{step:012d}", self.path / f"writing-{step:012d}"
        self.path.mkdir(parents=True, exist_ok=True)
        for path in [*self.path.glob("writing-*"), *self.path.glob("removing-*")]:  # of a process that was killed
            _delete(path)
        writing.mkdir()
        try:
            manifest: dict[str, Any] = {"format": FORMAT, "step": step, "score": score, "replay": replay}
            written = self._write(writing, manifest, tree, tensors, segments, rows)
            for path in self.checkpoints():
                if path >= final:  # damaged, or the training would have gone on from there
                    self._put_aside(path)
            writing.rename(final)
        except BaseException as error:
            shutil.rmtree(writing, ignore_errors=True)
            if isinstance(error, OSError | SafetensorError):  # safetensors' own, also for a full disk
                raise OSError(
                    f"A checkpoint in {self.path} cannot be written: {error}. If the disk is full, free some space; then "
                    "start the program again: it resumes from the checkpoint before"
                ) from error
            raise
        sync(self.path)
        self._prune()
        return [segment._replace(file=final / segment.file.name) for segment in written]

    def _write(
        self,
        folder: Path,
        manifest: dict[str, Any],
        tree: dict[str, Any],
        tensors: dict[str, th.Tensor],
        segments: Iterable[Segment],
        rows: Iterable[tuple[int, dict[str, np.ndarray]]],
    ) -> list[Segment]:
        written = [*segments]
        for segment in written:
            _link(segment.file, folder / segment.file.name)
        (folder / STATE).write_text(json.dumps(tree))
        save_file(tensors, folder / TENSORS)
        new = [folder / STATE, folder / TENSORS]
        for first, contents in rows:
            file = folder / f"rows-{manifest['step']:012d}-{first:09d}.safetensors"
            save_arrays(contents, file)
            written.append(Segment(file, first, len(contents["rewards"]), digest(file)))
            new.append(file)
        manifest |= {
            "libraries": _libraries(),
            "segments": [{"file": segment.file.name, "first": segment.first, "rows": segment.rows} for segment in written],
            "files": {name: digest(folder / name) for name in (STATE, TENSORS)}
            | {segment.file.name: segment.sha256 for segment in written},
        }
        (folder / MANIFEST).write_text(manifest_text(manifest))
        for path in [*new, folder / MANIFEST]:
            sync(path)
        sync(folder)
        return written

    def _put_aside(self, path: Path) -> None:
        """Rename a checkpoint that is damaged, or that not all processes have, so that its owner can look at it."""
        target = path.with_name(f"damaged-{path.name}")
        if os.path.lexists(target):  # of an earlier damage at the same step
            self._remove(target)
        path.rename(target)

    def _prune(self) -> None:
        """Remove all checkpoints except the newest ones and the best one, and all damaged ones except the newest ones."""
        checkpoints = self.checkpoints()
        scores = {path: score for path in checkpoints if (score := _score(path)) is not None}
        best = max(scores, key=lambda path: scores[path], default=None)
        damaged = sorted(self.path.glob("damaged-checkpoint-*"), key=lambda path: (os.lstat(path).st_ctime_ns, path.name))
        for path in [*checkpoints[: -self.keep], *damaged[: -self.keep]]:
            if path != best:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint so that a partly removed one is never taken for a complete one."""
        removing = path.with_name(f"removing-{path.name}")
        path.rename(removing)
        _delete(removing)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@functools.cache
def _libraries() -> dict[str, str]:
    return {name: version(name) for name in ("sb3_softac", "stable_baselines3", "torch", "numpy", "gymnasium", "mujoco")}


def _score(path: Path) -> float | None:
    try:
        return json.loads(read_plain_json(path / MANIFEST))["score"]
    except (OSError, ValueError, KeyError):  # damaged
        return None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
