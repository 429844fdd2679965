"""The gradient steps that all algorithms share: finite check, target updates and logs around one ``_update``."""

from abc import abstractmethod
from collections.abc import Iterable
from itertools import chain
from typing import ClassVar, Protocol

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_softac.algorithm import distributed
from sb3_softac.algorithm.finite import find_faults, largest_norms, step_if
from sb3_softac.algorithm.step_log import StepLog
from sb3_softac.checks import integer, read
from sb3_softac.entropy.saturation import SaturationWatch
from sb3_softac.entropy.temperature import Temperature
from sb3_softac.replay.batch import Batch, make_batch

# Gradient steps whose logs may wait on the device
MAX_DEFERRED = 1_000
# Begins the name of what is looked at for finite values, but not logged
GRADIENT_OF = "gradient of "
STEPS, BATCH = integer(0, " gradient steps"), integer(1, " transition")
# What Adam and AdamW keep of each element of a parameter
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def require_gradients() -> None:
    """:raises RuntimeError: if gradients are switched off; the type is PyTorch's own for a loss without a gradient."""
    if not th.is_grad_enabled() or th.is_inference_mode_enabled():
        raise RuntimeError(
            "Nothing can be learned, because gradients are switched off (by th.no_grad(), th.inference_mode() or "
            "th.set_grad_enabled(False)): call learn() and train() where they are switched on"
        )


def named_tensors(pairs: Iterable[tuple[str, th.Tensor]]) -> dict[str, th.Tensor]:
    """:return: Tensors by name; ``th.compile`` adds to the names of a network, and its target need not be compiled."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in pairs}


def running_statistics(network: th.nn.Module) -> dict[str, th.Tensor]:
    """:return: The buffers of batch normalisation by name."""
    return named_tensors((name, buffer) for name, buffer in network.named_buffers() if "running_" in name)


def followed_shapes(network: th.nn.Module, parameters: dict[str, th.nn.Parameter]) -> dict[str, th.Size]:
    """:return: The shapes of everything that a target takes over from its network, by name; the parameters are given."""
    tensors = named_tensors(parameters.items()) | running_statistics(network)
    return {name: tensor.shape for name, tensor in tensors.items()}


def names_of(parameters: list[th.Tensor], network: th.nn.Module) -> list[str]:
    """:return: The names of parameters of a network."""
    wanted = set(map(id, parameters))
    return [name for name, parameter in network.named_parameters() if id(parameter) in wanted]


def find_misfit(optimizer: th.optim.Optimizer) -> tuple[th.Tensor, str] | None:
    """
    PyTorch's fused Adam does not look at shapes and strides, and writes over foreign memory where they do not fit.

    :return: A parameter that an optimizer cannot step, and the reason; None if there is none.
    """
    for parameter in (each for group in optimizer.param_groups for each in group["params"] if not each.is_contiguous()):
        if parameter.requires_grad and th.empty_like(parameter).stride() != parameter.stride():
            return parameter, "its elements do not lie side by side in memory"
    for parameter, state in optimizer.state.items():
        size, in_order = parameter.size(), parameter.is_contiguous()
        for name in MOMENTS if parameter.requires_grad else ():
            if (moment := state.get(name)) is None:
                continue
            if moment.size() != size:
                return parameter, f"the optimizer's {name} has the shape {tuple(moment.shape)}"
            if not (in_order and moment.is_contiguous()) and moment.stride() != parameter.stride():
                return parameter, f"the elements of the optimizer's {name} lie in another order"
        if isinstance(step := state.get("step"), th.Tensor) and step.numel() != 1:
            return parameter, f"the optimizer's step has the shape {tuple(step.shape)}"
    return None


class StepRunner(Protocol):
    """A second implementation of the same gradient steps."""

    def run(self, gradient_steps: int, batch_size: int) -> bool:
        """
        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :return: Whether they were done; False if this model needs the plain path.
        """


class TrainLoop(OffPolicyAlgorithm):
    """
    The part of an algorithm between two rollouts.

    A subclass defines the losses of one gradient step in :meth:`_update`, the network that each of them trains in ``trains``,
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
        :return: Scalars to log, by name, on the device; the same names in every step. They include the losses and the result
            of :meth:`_minimize`.
        """

    @abstractmethod
    def _follow_arguments(self) -> None:
        """Check the arguments that have been set since the last time, and let them take effect."""

    @abstractmethod
    def _check_optimizers(self) -> None:
        """:raises ValueError: if a setting of an optimizer is not finite."""

    def _setup_training(self) -> None:
        """Create the state that the loop keeps between two gradient steps; none of it is saved."""
        self._finite = th.ones((), device=self.device)
        self._failed_batch: Batch | None = None
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
        :raises ValueError: if a loss is not finite (the parameters are then those before that gradient step), or if a network
            was changed without its target or without the optimizer.
        :raises RuntimeError: if gradients are switched off, or a loss does not depend on the network that it trains.
        """
        require_gradients()
        self._follow_arguments()
        gradient_steps, batch_size = read("gradient_steps", gradient_steps, STEPS), read("batch_size", batch_size, BATCH)
        self._update_learning_rate(self._optimizers)
        self._check_optimizers()
        self._follow_schedules(self._current_progress_remaining)
        if self._step_runner is None or not self._step_runner.run(gradient_steps, batch_size):
            self._run_steps(gradient_steps, batch_size)
        if not self._defer_logs() or len(self._step_log) >= MAX_DEFERRED:
            self._flush_logs()

    def _run_steps(self, gradient_steps: int, batch_size: int) -> None:
        """Do gradient steps by :meth:`_update`."""
        assert self.replay_buffer is not None
        self._prepare_networks()
        for _ in range(gradient_steps):
            self._gradient_step(make_batch(self.replay_buffer.sample(batch_size, env=self._vec_normalize_env), self.gamma))
            if self._failed_batch is not None:  # train() raises
                break

    def _gradient_step(self, batch: Batch) -> None:
        """:param batch: Sampled transitions."""
        self._step_log.add(self._update(batch))
        self._n_updates += 1
        # Counted over the whole training: SB3's SAC restarts the count at every call, which at one gradient step per call
        # turns every interval into 1.
        due = self._n_updates % self.target_update_interval == 0
        if not self._defer_logs() and not self._finite:
            self._failed_batch = batch
        elif due:
            self._update_targets()

    def _prepare_networks(self) -> None:
        """
        Set the networks to training mode.

        :raises ValueError: see :meth:`_check_networks`.
        """
        self.policy.set_training_mode(True)
        self._check_networks()

    def _check_networks(self) -> None:
        """
        :raises ValueError: if a network was changed (for example pruned) and its target was not, so that the target cannot
            follow; or if an optimizer does not hold what a loss is to train.
        """
        networks = {name: getattr(self.policy, name) for name in {*self.trains.values(), *chain(*self.targets.items())}}
        # Once each: this runs before each round of gradient steps
        parameters_of = {name: dict(network.named_parameters()) for name, network in networks.items()}
        for name, target_name in self.targets.items():
            ours, theirs = (followed_shapes(networks[part], parameters_of[part]) for part in (name, target_name))
            if ours != theirs:
                differing = sorted({key for key, _ in ours.items() ^ theirs.items()})
                raise ValueError(
                    f"{target_name} follows {name}, but their parameters {differing} differ: if you replace, prune or "
                    f"parametrize a part of policy.{name}, change policy.{target_name} in the same way"
                )
        held = {id(each) for optimizer in self._optimizers for group in optimizer.param_groups for each in group["params"]}
        for name in dict.fromkeys(self.trains.values()):
            network, parameters = networks[name], parameters_of[name].values()
            if missing := [each for each in parameters if each.requires_grad and id(each) not in held]:
                raise ValueError(
                    f"policy.{name} would not be trained, because policy.optimizer does not hold its parameters "
                    f"{names_of(missing, network)}: after replacing a network or a layer, set model.policy.optimizer = "
                    "model.policy.make_optimizer(model.lr_schedule). Parameters that should stay as they are need "
                    "requires_grad_(False)"
                )
            if inference := list(filter(th.Tensor.is_inference, parameters)):
                raise ValueError(
                    f"policy.{name} cannot be trained, because its parameters {names_of(inference, network)} were created "
                    "under th.inference_mode(): create, load or replace it outside"
                )
        if misfit := next(filter(None, map(find_misfit, self._optimizers)), None):
            parameter, reason = misfit
            name = "".join(names_of([parameter], self.policy)) or "log_ent_coef"
            remedy = "model.policy.optimizer = model.policy.make_optimizer(model.lr_schedule)"
            raise ValueError(
                f"{name} cannot be trained, because {reason}: after changing the size or the layout of a parameter, set "
                f"{remedy if name != 'log_ent_coef' else 'model.ent_coef'}"
            )
        if any(id(each) not in held for each in self.temperature.parameters()):
            raise ValueError(
                "The temperature would not be trained, because ent_coef_optimizer does not hold its parameter: instead of "
                "replacing one of them, set model.ent_coef, e.g. to 'auto_0.1'"
            )

    def _follow_schedules(self, progress_remaining: float) -> None:
        """
        :param progress_remaining: 1 at the start of training, 0 at its end.
        """
        self.temperature.update(progress_remaining)

    def _minimize(self, losses: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """
        One step of all optimizers, or none if a loss or a gradient is not finite.

        Each loss is differentiated with respect to the network that it trains, see ``trains``, and nothing else. The decision
        whether to step stays on the device, so that the host need not wait; :meth:`train` raises an error afterwards. Several
        processes that train one agent average losses and gradients first, so that all take the same step.

        :param losses: Scalar losses by name.
        :return: The largest norm of a gradient of each loss, under a name that begins with :data:`GRADIENT_OF`.
        """
        self.policy.zero_grad()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        gradients: dict[str, list[th.Tensor]] = {}
        for name, loss in losses.items():
            parameters = self._trained_by(name)
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            if trained and not loss.requires_grad and len(trained) == len(parameters):
                raise RuntimeError(
                    f"{name} does not depend on the parameters that it is to train"
                    f"{f' (policy.{self.trains[name]})' if name in self.trains else ''}: a forward method of yours may run "
                    "under th.no_grad() or detach its result"
                )
            if trained and loss.requires_grad:
                loss.backward(inputs=trained, retain_graph=True)
                gradients[GRADIENT_OF + name] = [each.grad for each in trained if each.grad is not None]
        values = [loss.detach() for loss in losses.values()]
        if distributed.is_distributed():
            average_once = {id(gradient): gradient for each in gradients.values() for gradient in each}
            distributed.average([*values, *average_once.values()])
        sizes = largest_norms(gradients)
        looked_at = th.stack([*values, *sizes.values()])
        self._finite.mul_(looked_at.isfinite().all())
        for optimizer in self._optimizers:
            step_if(optimizer, self._finite)
        self.temperature.bound()
        return sizes

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
            followers = named_tensors(target.named_parameters())
            for key, source in named_tensors(network.named_parameters()).items():
                followers[key].lerp_(source, weight)
            # Running statistics of batch normalisation are copied, not averaged twice (SB3 issue 996)
            statistics = running_statistics(target)
            for key, source in running_statistics(network).items():
                statistics[key].copy_(source)

    def _defer_logs(self) -> bool:
        """:return: Whether logs stay on the device until they are dumped, so that the host does not wait for it."""
        return self.device.type != "cpu"

    def _flush_logs(self) -> None:
        """
        Log the means over all gradient steps since the last call.

        :raises ValueError: if one of the values is not finite.
        """
        if not len(self._step_log):
            return
        logs = self._step_log.read()  # the only time that the host waits for the device
        self._require_finite(logs)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, mean in zip(logs, np.mean(list(logs.values()), axis=1).tolist(), strict=True):
            if not name.startswith(GRADIENT_OF):
                self.logger.record(f"train/{name}", mean)
        if self.temperature.optimizer is not None:
            self._saturation_watch.observe(self._entropy_is_lost(logs), logs["ent_coef"])
        self._follow_logs(logs)

    def _require_finite(self, logs: dict[str, np.ndarray]) -> None:
        """:raises ValueError: if a value is not finite; the message names it and its causes. Later steps are not counted."""
        faulty = ~np.isfinite(list(logs.values()))
        if not faulty.any():
            return
        step = int(faulty.any(axis=0).argmax())
        name = list(logs)[int(faulty[:, step].argmax())]
        self._finite.fill_(1.0)
        self._n_updates += step - faulty.shape[1]  # that step and those after it were withheld
        faults, self._failed_batch = find_faults(self.policy, self._failed_batch), None
        because = f", because of what is not finite: {', '.join(faults)}" if faults else ""
        raise ValueError(
            f"{name} is {logs[name][step]} at gradient step {self._n_updates + 1}{because}. Training stopped; the parameters "
            "are those before this step. Look for NaN or infinite observations and rewards (SB3's VecCheckNan finds them), "
            "then for a learning rate or reward scale that is too large"
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
