"""The callback that makes training resumable."""

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EventCallback, ProgressBarCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.her import HerReplayBuffer

from sb3_softac.algorithm import distributed
from sb3_softac.algorithm.callbacks import all_callbacks
from sb3_softac.checks import integer, read
from sb3_softac.resume.lock import FolderLock
from sb3_softac.resume.logs import iteration_of, read_logs, set_iteration, write_logs
from sb3_softac.resume.replay import (
    Block,
    blocks,
    forget_episodes,
    is_segmented,
    missing_rows,
    position,
    read_rows,
    restore_rows,
)
from sb3_softac.resume.settings import Start
from sb3_softac.resume.signals import SignalWatch, WorkerSignals
from sb3_softac.resume.snapshot import PARTS, capture, check_start, note_start, read_snapshot
from sb3_softac.resume.store import Checkpoint, Segment, Store


class ExactCheckpoint(BaseCallback):
    """
    Save the complete state of training, and resume from it when the same program is started again.

    ``model.learn(1_000_000, callback=ExactCheckpoint("run/checkpoints"))`` resumes from the newest checkpoint, if there is
    one, and ends with the same numbers as a run that was never interrupted. On SIGTERM or SIGINT it saves a checkpoint after
    the current rollout and its gradient steps, and exits with the code that shells report for a program that the signal has
    ended, 143 or 130.

    Checkpoints are saved between two rollouts, that is, after the gradient steps. Create everything as before: algorithm,
    environment, callbacks. Each call of ``learn`` needs its own folder, which is locked while it runs: a second program waits
    a minute for the first one to end, and then raises an error that names it.

    :param path: Folder of the checkpoints.
    :param every: Environment steps between two checkpoints.
    :param keep: Number of newest checkpoints to keep. The best one is kept too, by the mean reward of the last evaluation or,
        without evaluations, of the last episodes.
    :param verbose: 0 for no output, 1 to report when checkpoints are saved and resumed.
    :raises ValueError: if a number is not an integer of at least 1; by ``learn``, if the algorithm has no rollouts, as
        sb3-contrib's ARS, or if ``learn`` has several of these callbacks.
    :raises OSError: by ``learn``, if the folder cannot be written.
    :raises ResumeError: by ``learn``, if the folder is in use, all checkpoints are damaged, or they belong to something else.
    """

    not_resumed = (
        *("_store", "_lock", "_is_training", "_signals", "_workers", "_start"),
        *("_steps", "_on_disk", "_missing", "_restored", "_resumed", "_warned"),
    )

    def __init__(self, path: str | Path, every: int = 10_000, keep: int = 3, verbose: int = 0):
        super().__init__(verbose)
        self.every = read("every", every, integer(1, " environment step"))
        self._store = Store(path, keep)
        self._lock = FolderLock(self._store.path)
        self._is_training = False
        self._steps = 0
        self._on_disk: dict[Block, tuple[Segment, tuple[int, int]]] = {}
        """The blocks in the newest checkpoint, with the size and time of their files when it was written."""
        self._missing = np.zeros(0, int)
        self._restored: list[Block] = []
        self._resumed: Checkpoint | None = None
        self._warned: set[str] = set()
        self._start: Start | None = None
        self._signals = SignalWatch()
        self._workers = WorkerSignals()

    def _on_training_start(self) -> None:
        if sum(isinstance(each, ExactCheckpoint) for each in all_callbacks(self._callbacks)) > 1:
            raise ValueError(
                "learn() has more than one ExactCheckpoint, each of which would restore the training: give it one (RL Zoo's "
                "trainings have one if SB3_SOFTAC_CHECKPOINT_EVERY is set)"
            )
        if isinstance(self.parent, EventCallback):
            raise ValueError(
                f"ExactCheckpoint saves between two rollouts, of which {type(self.parent).__name__} does not tell it: give it "
                "to learn() itself, in a list with other callbacks, and set its `every`"
            )
        if not isinstance(self.model, OnPolicyAlgorithm | OffPolicyAlgorithm):
            raise ValueError(
                f"ExactCheckpoint cannot resume {type(self.model).__name__}: it saves between two rollouts, and this "
                "algorithm is derived neither from SB3's OnPolicyAlgorithm nor from its OffPolicyAlgorithm. Use SB3's "
                "CheckpointCallback (with RL Zoo: unset SB3_SOFTAC_CHECKPOINT_EVERY)"
            )
        self._lock.acquire(self)
        try:
            self._resume()
        except BaseException:
            self._lock.release()
            raise
        self._is_training = True
        self._workers.protect([self.model.env, *(getattr(each, "eval_env", None) for each in all_callbacks(self._callbacks))])
        self._signals.start(self.model)

    def _resume(self) -> None:
        """Continue from the newest checkpoint, if there is one."""
        self._steps, self._on_disk, self._missing = 0, {}, np.zeros(0, int)
        # Processes that train one agent resume together, from the newest checkpoint that all of them have
        names = [path.name for path in self._store.checkpoints()]
        self._resumed = self._store.newest(distributed.common(names) if distributed.is_distributed() else None)
        self._start = note_start(self.model, self._callbacks)
        self._warned = set()
        if self._resumed is not None:
            checkpoint, buffer = self._resumed, self._buffer
            # The log first, so that it is restored even if this program cannot continue
            read_logs(self.model, checkpoint.tree, checkpoint.tensors)
            differences = check_start(self._callbacks, checkpoint.tree, self._start)
            if differences:
                warnings.warn(
                    f"This program differs from the one that saved {checkpoint.path}: {'; '.join(differences)}. Numbers of "
                    "the algorithm and of the environments are those of the checkpoint; functions, texts and the arguments of "
                    "callbacks are those of this program. To train with other settings, use a new folder",
                    stacklevel=2,
                )
            restore = self._read(checkpoint)
            if is_segmented(buffer):
                self._restore_rows(buffer, checkpoint)
            self._restore(checkpoint, restore)
            # This program's own values are not used
            for name in ("arguments", "environment"):
                setattr(self._start, name, checkpoint.tree["settings"][name])
            self._steps = self.model.num_timesteps
            if self.verbose:
                print(f"Resuming from {checkpoint.path}")

    def _restore_rows(self, buffer: ReplayBuffer, checkpoint: Checkpoint) -> None:
        there, segments = checkpoint.manifest["replay"], checkpoint.segments
        self._missing = missing_rows(there, buffer.buffer_size, segments)
        restore_rows(buffer, there, segments)
        self._restored = blocks(buffer)
        if len(self._missing) == 0:
            self._on_disk = _on_disk(segments, self._restored)
            return
        in_use = buffer.buffer_size if there["full"] else there["pos"]
        warnings.warn(
            f"{len(self._missing) * buffer.n_envs} of {in_use * buffer.n_envs} transitions in the replay buffer are lost, "
            f"because these files are damaged: {', '.join(map(str, checkpoint.damaged))}. Training resumes at step "
            f"{checkpoint.manifest['step']} without them, so its results are no longer those of an uninterrupted training",
            stacklevel=2,
        )

    def _on_rollout_start(self) -> None:
        if self._resumed is not None:
            # Only now is the program where it was when the checkpoint was made
            if self._resumed.tree["in_learn"]:
                buffer, restore = self._buffer, self._read(self._resumed)
                if is_segmented(buffer) and blocks(buffer) != self._restored:
                    # Other callbacks have repeated changes to the rows that the checkpoint already contains
                    restore_rows(buffer, self._resumed.manifest["replay"], self._resumed.segments)
                self._restore(self._resumed, restore)
            else:
                self._restore_callbacks()
            self._resumed, self._restored = None, []
        if self._signals.caught is not None or self.model.num_timesteps - self._steps >= self.every:
            self._save(in_learn=True)
        self._exit_on_signal()

    def _exit_on_signal(self) -> None:
        if self._signals.caught is not None:
            self._end()
            sys.exit(128 + self._signals.caught)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if not self._is_training:  # RL Zoo calls this also if learn() has failed before it began
            return
        self._signals.stop()
        self._restore_callbacks()  # if no rollout has begun
        try:
            # A training that a callback has stopped is stopped again when it is resumed from the checkpoint before
            if self.model.num_timesteps >= self.model._total_timesteps:
                self._save(in_learn=False)
        finally:
            self._end()
        self._exit_on_signal()  # which came in the last rollout

    def _end(self) -> None:
        self._is_training = False
        self._signals.stop()
        self._workers.release()
        self._lock.release()

    @property
    def _callbacks(self) -> BaseCallback:
        """All callbacks of the training, except the progress bar that ``learn(progress_bar=True)`` adds."""
        given = self.locals["callback"]
        with_bar = isinstance(given, CallbackList) and isinstance(given.callbacks[-1], ProgressBarCallback)
        return given.callbacks[0] if with_bar and len(given.callbacks) == 2 else given

    @property
    def _buffer(self) -> ReplayBuffer | None:
        return getattr(self.model, "replay_buffer", None)

    def _read(self, checkpoint: Checkpoint, parts: Iterable[str] = PARTS) -> Callable[[], list[str]]:
        return read_snapshot(self.model, self._callbacks, checkpoint.tree, checkpoint.tensors, self._start, parts)

    def _restore(self, checkpoint: Checkpoint, restore: Callable[[], list[str]]) -> None:
        restarted = restore()
        if isinstance(self._buffer, HerReplayBuffer) and len(self._missing):
            forget_episodes(self._buffer, self._missing)
        set_iteration(self.model, checkpoint.tree["iteration"])
        self.model._num_timesteps_at_start = self.model.num_timesteps  # for the steps per second in the log
        self._warn("The state of these environments cannot be restored, so their episodes start over", restarted)

    def _restore_callbacks(self) -> None:
        """Those that come after this one have begun anew since it has restored them, and end after it, too."""
        if self._resumed is not None:
            self._read(self._resumed, ["callbacks"])()
            self._resumed = None

    def _warn(self, message: str, reasons: list[str]) -> None:
        """Warn once, and name the reasons."""
        if reasons and message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"{message}: {'; '.join(reasons)}", stacklevel=2)

    def _save(self, in_learn: bool) -> None:
        steps, buffer = self.model.num_timesteps, self._buffer
        if steps == self._steps:
            return
        snapshot = capture(self.model, self._callbacks, self._start)
        self._warn(
            "The state of these environments cannot be saved, so their episodes start over when training is resumed",
            snapshot.restarted,
        )
        self._warn(
            "These attributes cannot be saved, and are as the program creates them when training is resumed (a callback lists "
            'those that need not be saved in its class attribute "not_resumed")',
            snapshot.lost,
        )
        assert self._start is not None
        self._warn(
            "Checkpoints from now on cannot be resumed, because parts of the model have come or gone since the training "
            "started. To fix a learned temperature while the model trains, set ent_coef_bounds=(value, value) instead of "
            "ent_coef",
            sorted(self._start.parameters ^ set(self.model.get_parameters())),
        )
        logs, contents = write_logs(self.model)
        tree = snapshot.tree | {"in_learn": in_learn, "logs": logs, "iteration": iteration_of(self.model)}
        tensors = snapshot.tensors | contents
        if is_segmented(buffer):
            # Most blocks are on disk already; the others are new, or their rows or files have changed
            present = blocks(buffer)
            written = {block: self._on_disk[block] for block in present if block in self._on_disk}
            kept = {block: segment for block, (segment, stamp) in written.items() if stamp == _stamp(segment)}
            rows = (
                (block.first, read_rows(buffer, block.first + np.arange(block.rows))) for block in present if block not in kept
            )
            segments = self._store.save(steps, tree, tensors, kept.values(), rows, position(buffer), self._score())
            self._on_disk = _on_disk(segments, present)
        else:
            self._store.save(steps, tree, tensors, score=self._score())
        self._steps = steps
        if self.verbose:
            print(f"Saved the checkpoint of step {steps} in {self._store.path}")

    def _score(self) -> float | None:
        """Mean reward of the last evaluation, or else of the last episodes; None before the first one."""
        for callback in all_callbacks(self._callbacks):
            if isinstance(callback, EvalCallback) and np.isfinite(callback.last_mean_reward):
                return float(callback.last_mean_reward)
        score = float(np.mean([episode["r"] for episode in self.model.ep_info_buffer or [{"r": np.nan}]]))
        return score if np.isfinite(score) else None


def _on_disk(segments: list[Segment], present: list[Block]) -> dict[Block, tuple[Segment, tuple[int, int]]]:
    files = {(segment.first, segment.rows): (segment, _stamp(segment)) for segment in segments}
    return {block: files[block.first, block.rows] for block in present if (block.first, block.rows) in files}


def _stamp(segment: Segment) -> tuple[int, int]:
    """Size and time of change of its file; zeros if there is none."""
    try:
        status = os.lstat(segment.file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
