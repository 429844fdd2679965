"""The gradient steps of an algorithm, sampling included, as CUDA graphs."""

from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN

from sb3_softac.common.buffers import SoftReplayBuffer
from sb3_softac.cuda.device_copy import DeviceCopy, DeviceDraws
from sb3_softac.cuda.graphs import Engine, Graphs, places_of

if TYPE_CHECKING:
    from sb3_softac.common.off_policy import SoftOffPolicyAlgorithm

# Gradient steps in one graph; a power of two.
MAX_STEPS = 16
EXTRACTORS = (FlattenExtractor, NatureCNN, CombinedExtractor)


class GraphSteps:
    """
    Runs the gradient steps of a model as graphs, with the random numbers and the results of one step after the other.

    :param model: Model.
    :param engine: What captures.
    """

    def __init__(self, model: "SoftOffPolicyAlgorithm", engine: Engine):
        self.model, self.graphs = model, Graphs(engine)
        self._copy: DeviceCopy | None = None
        self._given_up = False

    def can_run(self) -> bool:
        """:return: Whether the model can be trained by graphs. Once it cannot, the reason is printed if it is verbose."""
        buffer = self.model.replay_buffer
        if self._copy is None or self._copy.buffer is not buffer:
            self._copy = None
        if not self._given_up and (reason := self._reason_against()):
            self._give_up(reason)
        if not self._given_up and self._copy is None:
            assert isinstance(buffer, SoftReplayBuffer)
            self._copy = DeviceCopy(buffer, self.model.device)
        return not self._given_up

    def _give_up(self, reason: str) -> None:
        self._given_up, self._copy = True, None
        if self.model.verbose >= 1:
            print(f"Gradient steps do not run as CUDA graphs: {reason}")

    def _reason_against(self) -> str:
        """:return: Why graphs cannot do it; empty if they can."""
        model, policy, buffer = self.model, self.model.policy, self.model.replay_buffer
        if not type(model).__module__.startswith("sb3_softac.") or type(policy) not in model.policy_aliases.values():
            return "the algorithm or the policy is not one of the package"
        if any(isinstance(module, BaseFeaturesExtractor) and type(module) not in EXTRACTORS for module in policy.modules()):
            return "the features extractor is not one of SB3's"
        if model.use_sde:
            return "gSDE replaces its noise matrix in every step"
        if type(buffer) is not SoftReplayBuffer:
            return "the replay buffer is not the default one"
        if model._vec_normalize_env is not None:
            return "VecNormalize works on the host"
        if not all(optimizer.defaults.get("fused") for optimizer in model._optimizers):
            return "the optimizer is not a fused one"
        if model._target_stats:
            return "batch normalisation has running statistics"
        return "" if self._copy is not None or DeviceCopy.fits(buffer, model.device) else "the replay buffer is too large"

    def run(self, gradient_steps: int, batch_size: int) -> list[th.Tensor]:
        """
        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :return: What they log ``[n, n_names]``, one tensor per launch.
        """
        history = []
        while gradient_steps > 0:
            # Powers of two, so that few graphs serve any number of steps
            number = 1 << min(gradient_steps, MAX_STEPS).bit_length() - 1
            history.append(self._launch(number, batch_size))
            gradient_steps -= number
        return history

    def _launch(self, number: int, batch_size: int) -> th.Tensor:
        """:return: What ``number`` gradient steps, launched at once, log ``[number, n_names]``."""
        model, copy = self.model, self._copy
        assert copy is not None

        def steps(places: th.Tensor, numbers: th.Tensor, target_weights: th.Tensor) -> th.Tensor:
            history = []
            for step in range(number):
                logs = model._update(copy.gather(DeviceDraws(places, numbers), step))
                model._update_targets(target_weights[step])
                history.append(th.stack(list(logs.values())))
            model._log_names = list(logs)
            return th.stack(history)

        copy.follow()
        updates = model._n_updates + 1 + np.arange(number)
        target_weights = (updates % model.target_update_interval == 0).astype(np.float32)
        draws = copy.send([copy.buffer.draw(batch_size) for _ in range(number)])
        inputs = (*draws, th.from_numpy(target_weights).to(model.device))
        tensors = [*model._sources, *model._targets, *model.policy.parameters(), *copy.tensors()]
        constants = (batch_size, model.gamma, model.tau, *model._graph_constants())
        try:
            history = self.graphs.launch(
                (constants, places_of(tensors, model._optimizers)), number, steps, inputs, model._optimizers
            )
        except RuntimeError as error:
            self._give_up(f"this update cannot be captured ({error})")
            history = steps(*inputs)
        model._n_updates += number
        return history
