"""The engine that does gradient steps in CUDA graphs."""

import warnings
from operator import attrgetter
from typing import Any

import torch as th

from sb3_softac.algorithm.distributed import is_distributed
from sb3_softac.algorithm.engine import Engine, StepResult
from sb3_softac.engines.cuda_graphs.capture import Capturer, CudaCapturer
from sb3_softac.engines.cuda_graphs.device_copy import DeviceCopy, DrawnBatches
from sb3_softac.engines.cuda_graphs.launcher import CaptureError, Launcher
from sb3_softac.engines.cuda_graphs.unsupported_models import unsupported_reason
from sb3_softac.replay.batch import make_batch
from sb3_softac.replay.samples import BatchIndices

# Gradient steps in one graph; a power of two.
MAX_STEPS = 16
# Part of the device's free memory that the copy of the replay buffer may take; the rest is for networks, activations and
# other programs.
SHARE = 0.5
# Graphs in a row that are captured for less than two launches before graphs are given up
MAX_WASTED = 5


class Steps:
    """Several gradient steps as a function of tensors, by the model's own ``_update``."""

    def __init__(self, model: Any, copy: DeviceCopy, number: int):
        self.model, self.copy, self.number = model, copy, number
        self.names: list[str] = []
        self.losses: list[str] = []
        self.done: list[th.Tensor] = []
        """What the completed steps logged, and their norms of gradients ``[n_names + n_losses]``."""

    def __call__(self, transitions: th.Tensor, numbers: th.Tensor, target_weights: th.Tensor) -> th.Tensor:
        """Do the steps, with the two parts of :class:`DrawnBatches` and weights of the targets' updates ``[number]``."""
        model, self.done = self.model, []
        for step in range(self.number):
            samples = self.copy.gather(DrawnBatches(transitions, numbers), step)
            logs = model._update(make_batch(samples, model.gamma))
            self.names, self.losses = list(logs), list(model.gradient_norms)
            values = [*logs.values(), *model.gradient_norms.values()]
            self.done.append(th.stack([value.detach() for value in values]))
            model.update_targets(target_weights[step])
        return th.stack(self.done)

    def result(self, values: th.Tensor) -> StepResult:
        """:return: The result of steps that returned these values."""
        return StepResult(self.names, self.losses, values)


class GraphEngine(Engine):
    """
    Gradient steps as graphs, with the same random numbers and results as separate steps.

    :param model: Model.
    :param capturer: Captures graphs; None for those of CUDA.
    """

    def __init__(self, model: Any, capturer: Capturer | None = None):
        super().__init__(model)
        self.capturer = CudaCapturer(model.device) if capturer is None else capturer
        self._copy: DeviceCopy | None = None
        self._launchers: dict[tuple[int, int], Launcher[Steps]] = {}
        self._launchers_are_for: tuple[Any, ...] = ()
        self._n_wasted = 0
        self.given_up = ""
        """Why graphs are not used any more; empty as long as they are."""

    @classmethod
    def is_wanted(cls, model: Any) -> bool:
        return model.cuda_graphs

    def __str__(self) -> str:
        return "Gradient steps run in CUDA graphs"

    def prepare(self, batch_size: int) -> str:
        """Check that graphs can do the steps, and update the copy of the replay buffer; a warning gives the reason once."""
        model, is_new = self.model, False
        if not self.given_up:
            model.prepare_networks()
            modes = tuple(map(attrgetter("training"), model.watch.modules))
            is_new = self._launchers_are_for != (model.watch.version, modes)
            self._prepare_copy(is_new)
        if self.given_up:
            self._copy = None
            return self.given_up
        if is_new:
            if self._launchers:
                wasted = any(launcher.n_replays < 2 for launcher in self._launchers.values())
                self._n_wasted = self._n_wasted + 1 if wasted else 0
            self._launchers.clear()
            if self._n_wasted == MAX_WASTED:
                changes = ", ".join(model.watch.changes)
                self._give_up(f"graphs had to be captured again too often, because {changes} kept changing")
                return self.given_up
            self._launchers_are_for = (model.watch.version, modes)
        return ""

    def _prepare_copy(self, model_is_new: bool) -> None:
        buffer: Any = self.model.replay_buffer
        follows = self._copy is not None and self._copy.follows(buffer)
        if model_is_new or not follows or is_distributed():
            if reason := unsupported_reason(self.model, self.capturer.device_type):
                self._give_up(reason)
                return
        if not follows:
            self._copy = None
            self._launchers.clear()
            if DeviceCopy.size(buffer) >= SHARE * self.capturer.free_memory():
                self._give_up("the replay buffer is too large for the memory of the device: use a smaller buffer_size")
                return
            self._copy = DeviceCopy(buffer, self.model.device)
        assert self._copy is not None
        self._copy.update()

    def _give_up(self, reason: str) -> None:
        self.given_up = f"cuda_graphs=True has no effect, gradient steps run without graphs: {reason}"
        warnings.warn(self.given_up, stacklevel=5)
        self._launchers.clear()

    def steps_at_once(self, wanted: int) -> int:
        # Powers of two, so that few graphs serve any number of steps
        return 1 << min(wanted, MAX_STEPS).bit_length() - 1

    def sample(self, batch_size: int) -> BatchIndices:
        assert self._copy is not None
        return self._copy.buffer.draw(batch_size)

    def step(self, batches: list[BatchIndices], target_weights: list[float]) -> StepResult:
        model, copy = self.model, self._copy
        assert copy is not None
        inputs = (*copy.on_host(batches), th.tensor(target_weights, dtype=th.float32))
        launcher = self._launcher(len(batches), len(batches[0].rewards), inputs)
        steps = Steps(model, copy, len(batches)) if launcher is None else launcher.function
        steps.done = []
        try:
            if launcher is None:
                return steps.result(steps(*(each.to(model.device) for each in inputs)))
            return steps.result(launcher.launch(inputs))
        except BaseException:
            # The steps before the one that failed were done
            self._launchers.clear()
            if steps.done:
                model.count_steps(steps.result(th.stack(steps.done)))
            raise

    def _launcher(self, number: int, batch_size: int, inputs: tuple[th.Tensor, ...]) -> Launcher[Steps] | None:
        """:return: An up-to-date launcher for the steps; None if graphs are no longer used."""
        if self.given_up:
            return None
        key, model, copy = (number, batch_size), self.model, self._copy
        assert copy is not None
        if key not in self._launchers:
            self._launchers[key] = Launcher(
                self.capturer, Steps(model, copy, number), lambda: model.optimizers, inputs, model.device
            )
        try:
            self._launchers[key].capture_if_warm()
        except CaptureError as error:
            self._give_up(str(error))
            return None
        return self._launchers[key]
