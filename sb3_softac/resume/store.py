"""A folder of checkpoints. A crash at any moment leaves the existing checkpoints intact."""

import functools
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Container, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from sb3_softac.checks import integer, read
from sb3_softac.files import sync
from sb3_softac.files.plain_files import read_plain_json
from sb3_softac.resume.checkpoint import (
    FORMAT,
    MANIFEST,
    STATE,
    TENSORS,
    Checkpoint,
    Segment,
    digest,
    manifest_text,
    read_checkpoint,
)
from sb3_softac.resume.serialization import ResumeError

LIBRARIES = ("sb3_softac", "stable_baselines3", "torch", "numpy", "gymnasium", "mujoco")
NAME = re.compile(r"checkpoint-(\d{12})")


class Store:
    """A folder of checkpoints."""

    def __init__(self, path: str | Path, keep: int = 1):
        self.path, self.keep = Path(os.path.abspath(path)), read("keep", keep, integer(1, " checkpoint"))

    def checkpoints(self) -> list[Path]:
        """The folders of all checkpoints, the oldest first."""
        return sorted(path for path in self.path.glob("checkpoint-*") if NAME.fullmatch(path.name))

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
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
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
        written = []
        for segment in segments:
            _link(segment.file, folder / segment.file.name)
            written.append(segment._replace(file=folder / segment.file.name))
        (folder / STATE).write_text(json.dumps(tree))
        _save(save_file, tensors, folder / TENSORS)
        new = [folder / STATE, folder / TENSORS]
        for first, contents in rows:
            file = folder / f"rows-{manifest['step']:012d}-{first:09d}.safetensors"
            _save(save_arrays, contents, file)
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
    return {name: version(name) for name in LIBRARIES}


def _save(write: Callable[[Any, Path], None], contents: Any, path: Path) -> None:
    try:
        write(contents, path)
    except SafetensorError as error:  # also for a full disk
        raise OSError(f"{path} cannot be written: {error}") from error


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
