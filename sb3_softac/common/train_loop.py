"""The gradient steps that all algorithms share: finite check, targets and logs around one ``_update``."""

from abc import abstractmethod
from typing import ClassVar, Protocol

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac.common.batch import Batch, make_batch
from sb3_softac.common.saturation import SaturationWatch
from sb3_softac.common.step_log import StepLog
from sb3_softac.common.temperature import Temperature

# Gradient steps whose logs may wait on the device
MAX_DEFERRED = 1_000


class StepRunner(Protocol):
    """A second way to the same gradient steps."""

    def run(self, gradient_steps: int, batch_size: int) -> bool:
        """
        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :return: Whether they were done; False if this model needs the plain way.
        """


def step_if(optimizer: th.optim.Optimizer, finite: th.Tensor) -> None:
    """
    Step the optimizer if, and only if, a flag on the device is 1.

    A fused optimizer reads the flag in its kernel (the mechanism of gradient scaling), so the host does not wait. Any other
    optimizer has to ask the device.

    :param optimizer: The optimizer, with gradients in place.
    :param finite: 1.0 to step, 0.0 to leave parameters and optimizer state as they are; no dimensions, on their device.
    """
    if optimizer.defaults.get("fused"):
        optimizer.grad_scale, optimizer.found_inf = None, 1.0 - finite  # type: ignore[attr-defined]
        optimizer.step()
    elif finite:
        optimizer.step()


class TrainLoop(OffPolicyAlgorithm):
    """
    What happens between two rounds of collecting transitions.

    A subclass gives the losses of one gradient step in :meth:`_update`, the network that each of them trains in ``trains``,
    and the networks that have targets in ``targets``. Networks are looked up in the policy at each step, so that they, their
    parameters and the optimizer may be replaced at any time.
    """

    trains: ClassVar[dict[str, str]]
    """By the name of a loss: the network of the policy that it trains, and it alone."""
    targets: ClassVar[dict[str, str]]
    """By the name of a network of the policy: its target."""
    target_update_interval: int
    temperature: Temperature

    @abstractmethod
    def _update(self, batch: Batch) -> dict[str, th.Tensor]:
        """
        Compute the losses of one gradient step and hand them to :meth:`_minimize`.

        :param batch: Sampled transitions.
        :return: Scalars to log, by name, on the device; the same names in every step. The losses are among them.
        """

    def _setup_training(self) -> None:
        """Make what the loop keeps between two gradient steps; none of it is saved."""
        self._finite = th.ones((), device=self.device)
        self._step_log = StepLog()
        self._saturation_watch = SaturationWatch()
        self._step_runner: StepRunner | None = None

    @property
    def _optimizers(self) -> list[th.optim.Optimizer]:
        own = self.temperature.optimizer
        return [self.policy.optimizer] if own is None else [self.policy.optimizer, own]

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Do gradient steps on batches from the replay buffer, update the targets and log the means of all losses.

        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :raises ValueError: if a loss is not finite (the parameters are then those of before that gradient step), or if a
            network was changed without its target.
        """
        assert self.replay_buffer is not None
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers)
        self._follow_schedules(self._current_progress_remaining)
        self._require_equal_targets()
        if self._step_runner is None or not self._step_runner.run(gradient_steps, batch_size):
            for _ in range(gradient_steps):
                samples = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
                self._step_log.add(self._update(make_batch(samples, self.gamma)))
                self._n_updates += 1
                # Counted over the whole training: SB3's SAC restarts the count at every call, which at one gradient step
                # per call turns every interval into 1.
                if self._n_updates % self.target_update_interval == 0:
                    self._update_targets()
        if not self._defer_logs() or len(self._step_log) >= MAX_DEFERRED:
            self._flush_logs()

    def _require_equal_targets(self) -> None:
        """:raises ValueError: if a network was changed (pruned, say) and its target was not, so that it cannot follow."""
        for name, target_name in self.targets.items():
            ours, theirs = (
                {key: parameter.shape for key, parameter in getattr(self.policy, part).named_parameters()}
                for part in (name, target_name)
            )
            if ours != theirs:
                differing = sorted({key for key, _ in ours.items() ^ theirs.items()})
                raise ValueError(
                    f"{target_name} follows {name}, but their parameters {differing} differ: whatever was replaced, pruned or "
                    f"parametrized in policy.{name} has to be changed in policy.{target_name} as well"
                )

    def _follow_schedules(self, progress_remaining: float) -> None:
        """
        :param progress_remaining: 1 at the start of training, 0 at its end.
        """
        self.temperature.update(progress_remaining)

    def _minimize(self, losses: dict[str, th.Tensor]) -> None:
        """
        One step of all optimizers, or none if a loss is not finite.

        Each loss is differentiated with respect to the network that it trains, see ``trains``, and nothing else. The decision
        whether to step stays on the device, so that the host need not wait; :meth:`train` raises afterwards.

        :param losses: Scalar losses by name.
        """
        self.policy.zero_grad()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        for name, loss in losses.items():
            trained = [parameter for parameter in self._trained_by(name) if parameter.requires_grad]
            if trained and loss.requires_grad:
                loss.backward(inputs=trained, retain_graph=True)
        self._finite.mul_(th.stack([loss.detach() for loss in losses.values()]).isfinite().all())
        for optimizer in self._optimizers:
            step_if(optimizer, self._finite)
        self.temperature.bound()

    def _trained_by(self, loss: str) -> list[th.Tensor]:
        """:return: The parameters that a loss trains."""
        if loss in self.trains:
            return list(getattr(self.policy, self.trains[loss]).parameters())
        return self.temperature.parameters()

    @th.no_grad()
    def _update_targets(self, weight: th.Tensor | float = 1.0) -> None:
        """
        :param weight: 0 to leave the targets as they are.
        """
        # A step that was withheld must not move the targets either.
        weight = weight * self.tau * self._finite
        for name, target_name in self.targets.items():
            network, target = getattr(self.policy, name), getattr(self.policy, target_name)
            followers = dict(target.named_parameters())
            for key, source in network.named_parameters():
                followers[key].lerp_(source, weight)
            # Running statistics of batch normalisation are copied, not averaged twice (SB3 issue 996)
            statistics = dict(target.named_buffers())
            for key, source in network.named_buffers():
                if "running_" in key:
                    statistics[key].copy_(source)

    def _defer_logs(self) -> bool:
        """:return: Whether logs stay on the device until they are dumped, so that nobody waits for it."""
        return self.device.type != "cpu"

    def _flush_logs(self) -> None:
        """
        Log the means over all gradient steps since the last time.

        :raises ValueError: if one of the values is not finite.
        """
        if not len(self._step_log):
            return
        logs = self._step_log.read()  # the only time that the host waits for the device
        self._require_finite(logs)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in logs.items():
            self.logger.record(f"train/{name}", float(values.mean()))
        if self.temperature.optimizer is not None:
            self._saturation_watch.observe(self._entropy_is_lost(logs), logs["ent_coef"])
        self._follow_logs(logs)

    def _require_finite(self, logs: dict[str, np.ndarray]) -> None:
        """:raises ValueError: if a value is not finite; names the first one and counts the steps from it on as not done."""
        faulty = ~np.isfinite(list(logs.values()))
        if not faulty.any():
            return
        step = int(faulty.any(axis=0).argmax())
        name = list(logs)[int(faulty[:, step].argmax())]
        self._finite.fill_(1.0)
        self._n_updates += step - faulty.shape[1]  # that step and those after it were withheld
        raise ValueError(
            f"{name} is {logs[name][step]} at gradient step {self._n_updates + 1}. "
            "Training stopped; the parameters are those of before this step. Look for NaN or infinite observations and "
            "rewards (SB3's VecCheckNan finds them), then for a learning rate or reward scale that is too large"
        )

    @abstractmethod
    def _entropy_is_lost(self, logs: dict[str, np.ndarray]) -> np.ndarray:
        """
        :param logs: Finite values by name ``[n_steps]``.
        :return: Whether the entropy was next to none, and far below its target ``[n_steps]``.
        """

    def _follow_logs(self, logs: dict[str, np.ndarray]) -> None:
        """
        :param logs: Finite values by name ``[n_steps]``.
        """

    def dump_logs(self) -> None:
        """Write the log; SB3's ``dump_logs``."""
        self._flush_logs()
        super().dump_logs()
