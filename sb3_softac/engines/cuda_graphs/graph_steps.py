"""The gradient steps of an algorithm, sampling included, as CUDA graphs."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from sb3_softac.engines.cuda_graphs.device_copy import DeviceCopy, DrawnBatches
from sb3_softac.engines.cuda_graphs.engine import CudaEngine, Engine
from sb3_softac.engines.cuda_graphs.launcher import CaptureError, Launcher
from sb3_softac.engines.cuda_graphs.obstacles import obstacle
from sb3_softac.engines.dependencies import dependencies
from sb3_softac.replay.batch import make_batch
from sb3_softac.replay.buffer import SoftReplayBuffer

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

# Gradient steps in one graph; a power of two.
MAX_STEPS = 16
# Part of the device's free memory that the copy of the replay buffer may take; the rest is for networks, activations and
# other programs.
SHARE = 0.5
# Graphs in a row that are captured for less than two launches before graphs are given up
MAX_WASTED = 5


class Steps:
    """
    Several gradient steps as a function of tensors, by the model's own ``_update``.

    :param model: Model.
    :param copy: Copy of its replay buffer on the device.
    :param number: Number of gradient steps.
    """

    def __init__(self, model: "SoftOffPolicyAlgorithm", copy: DeviceCopy, number: int):
        self.model, self.copy, self.number = model, copy, number
        self.names: list[str] = []
        """Names of the values that a step logs."""
        self.logs: list[th.Tensor] = []
        """Values logged by the completed steps ``[n_names]``."""

    def __call__(self, transitions: th.Tensor, numbers: th.Tensor, target_weights: th.Tensor) -> th.Tensor:
        """
        :param transitions: First part of the batches, see :class:`~sb3_softac.engines.cuda_graphs.device_copy.DrawnBatches`.
        :param numbers: Second part.
        :param target_weights: 1 where a step updates the targets, else 0 ``[number]``.
        :return: The logged values of the steps ``[number, n_names]``.
        """
        model, self.logs = self.model, []
        for step in range(self.number):
            samples = self.copy.gather(DrawnBatches(transitions, numbers), step)
            logs = model._update(make_batch(samples, model.gamma))
            self.names = list(logs)
            self.logs.append(th.stack(list(logs.values())))
            model._update_targets(target_weights[step])
        return th.stack(self.logs)


class GraphSteps:
    """
    Runs the gradient steps of a model as graphs, with the same random numbers and results as separate steps.

    :param model: Model.
    :param engine: Engine that captures; None for CUDA graphs.
    """

    def __init__(self, model: "SoftOffPolicyAlgorithm", engine: Engine | None = None):
        self.model = model
        self.engine = CudaEngine(model.device) if engine is None else engine
        self._copy: DeviceCopy | None = None
        self._launchers: dict[tuple[int, int], Launcher[Steps]] = {}
        self._n_wasted = 0
        self._given_up = False

    def run(self, gradient_steps: int, batch_size: int) -> bool:
        """
        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :return: Whether they were done; False if this model needs the plain path. A warning has then named the reason.
        """
        if not self._given_up:
            self._prepare()
        if self._given_up:
            self._copy = None
            return False
        self.model._prepare_networks()
        while gradient_steps > 0:
            # Powers of two, so that few graphs serve any number of steps
            number = 1 << min(gradient_steps, MAX_STEPS).bit_length() - 1
            self._launch(number, batch_size)
            gradient_steps -= number
        return True

    def _prepare(self) -> None:
        """Check for obstacles, and update the copy of the replay buffer."""
        buffer = self.model.replay_buffer
        if reason := obstacle(self.model, self.engine.device_type):
            self._give_up(reason)
            return
        assert isinstance(buffer, SoftReplayBuffer)
        if self._copy is None or not self._copy.follows(buffer):
            self._copy = None
            self._launchers.clear()
            if DeviceCopy.size(buffer) >= SHARE * self.engine.free_memory():
                self._give_up("the replay buffer is too large for the memory of the device: use a smaller buffer_size")
                return
            self._copy = DeviceCopy(buffer, self.model.device)
        self._copy.update()

    def _give_up(self, reason: str) -> None:
        warnings.warn(f"cuda_graphs=True has no effect, gradient steps run without graphs: {reason}", stacklevel=4)
        self._given_up = True
        self._launchers.clear()

    def _launch(self, number: int, batch_size: int) -> None:
        """Do ``number`` gradient steps in one launch, count and log them."""
        model, copy = self.model, self._copy
        assert copy is not None
        updates = model._n_updates + 1 + np.arange(number)
        target_weights = (updates % model.target_update_interval == 0).astype(np.float32)
        batches = copy.send([copy.buffer.draw(batch_size) for _ in range(number)])
        inputs = (*batches, th.from_numpy(target_weights).to(model.device))
        launcher = self._launcher(number, batch_size, inputs)
        steps = Steps(model, copy, number) if launcher is None else launcher.function
        steps.logs = []
        try:
            values = steps(*inputs) if launcher is None else launcher.launch(inputs)
        except BaseException:
            # The steps before the one that failed were done
            self._launchers.clear()
            self._count(steps.names, steps.logs)
            raise
        self._count(steps.names, values)

    def _launcher(self, number: int, batch_size: int, inputs: tuple[th.Tensor, ...]) -> Launcher[Steps] | None:
        """:return: An up-to-date launcher for the steps; None if graphs are no longer used."""
        if self._given_up:
            return None
        key, model, copy = (number, batch_size), self.model, self._copy
        assert copy is not None
        if key in self._launchers and (changes := self._launchers[key].changes()):
            self._n_wasted = self._n_wasted + 1 if self._launchers[key].n_replays < 2 else 0
            self._launchers.clear()
            if self._n_wasted == MAX_WASTED:
                self._give_up(f"graphs had to be captured again too often, because {', '.join(changes)} kept changing")
                return None
        if key not in self._launchers:
            steps = Steps(model, copy, number)
            self._launchers[key] = Launcher(self.engine, steps, lambda: dependencies(model), lambda: model._optimizers, inputs)
        try:
            self._launchers[key].capture_if_warm()
        except CaptureError as error:
            self._give_up(str(error))
            return None
        return self._launchers[key]

    def _count(self, names: list[str], values: th.Tensor | list[th.Tensor]) -> None:
        """Count gradient steps that were done, and store their logged values ``[n_steps, n_names]``."""
        if len(values):
            self.model._step_log.add_steps(names, values if isinstance(values, th.Tensor) else th.stack(values))
            self.model._n_updates += len(values)
