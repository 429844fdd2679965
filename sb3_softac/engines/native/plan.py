"""A model in the form that the C library needs: one job that is filled with one batch after another."""

import ctypes
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import stable_baselines3.common.policies
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac import equations
from sb3_softac.algorithm import finite, off_policy
from sb3_softac.algorithm.changes import Functions, Owner, are_hooked, has_own_methods, hooks_of
from sb3_softac.algorithm.engine import PyTorchEngine
from sb3_softac.engines.native.library import FUNCTIONS, Network, Slot, Step, load
from sb3_softac.engines.native.network_reader import ACTIVATIONS, NetworkReader, address, check_extractor
from sb3_softac.engines.native.unsupported import require
from sb3_softac.entropy import temperature
from sb3_softac.entropy.temperature import AutoTemperature, FixedTemperature, ScheduledTemperature
from sb3_softac.nets.stacked import StackedLinear, StackedMLP
from sb3_softac.replay.batch import Batch

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

# How all numbers are kept for C, whatever PyTorch's defaults are
IN_C: dict[str, Any] = {"dtype": th.float32, "device": "cpu"}
METHODS = (
    *("prepare_networks", "check_networks", "_update", "_minimize", "_trained_by", "update_targets"),
    *("_logs_stay_on_device", "trains", "targets"),
)
FORWARD = ("__call__", "forward")


def equations_in(module: ModuleType) -> list[str]:
    """:return: Names of the equations that a module defines or imports."""
    functions = {name: value for name, value in vars(module).items() if isinstance(value, FunctionType)}
    return [name for name, value in functions.items() if value.__module__.startswith(f"{equations.__name__}.")]


MODULES_OF_EQUATIONS = [import_module(each.name) for each in iter_modules(equations.__path__, f"{equations.__name__}.")]
# What gradient steps of all models consist of, beyond the methods of the algorithm and of its networks
FUNCTIONS_OF_ALL: dict[Owner, Sequence[str]] = {
    off_policy: ("largest_norms", "step_if", "named_tensors", "running_statistics"),
    finite: ("is_fused",),
    PyTorchEngine: ("prepare", "sample", "step"),
    temperature: ("temperature_loss",),
    **{module: equations_in(module) for module in MODULES_OF_EQUATIONS},
    stable_baselines3.common.policies: ("preprocess_obs",),
    nn.Module: ("__call__", "_call_impl", "zero_grad"),
    **dict.fromkeys(
        (FlattenExtractor, nn.Flatten, nn.Sequential, nn.Linear, *ACTIVATIONS, StackedMLP, StackedLinear), FORWARD
    ),
}


class Plan(ABC):
    """
    Base class of the plans. A plan uses at most one thread per transition.

    :raises Unsupported: if C cannot do the model's gradient steps.
    """

    algorithm: ClassVar[type["SoftOffPolicyAlgorithm"]]
    policies: ClassVar[Sequence[type]]
    networks: ClassVar[dict[str, type[nn.Module]]]
    """Classes of the networks of the policy, by name."""
    methods: ClassVar[Sequence[str]] = METHODS
    """Methods of the algorithm that C replaces."""
    functions: ClassVar[dict[Owner, Sequence[str]]]
    """Functions that it replaces beyond these and :data:`FUNCTIONS_OF_ALL`, by the module or the class that has them."""
    function: ClassVar[str]
    losses: ClassVar[Sequence[str]]
    """Losses of networks, in the order of the flags of their gradients."""
    logs: ClassVar[Sequence[str]]
    """What C logs, in its order."""

    def __init__(self, model: Any, batch_size: int, n_threads: int):
        self.model, self.batch_size, self.n_threads = model, batch_size, n_threads
        self.replaced = self._check()
        """The functions that C replaces."""
        self._reader = NetworkReader()
        self._learned = isinstance(model.temperature, AutoTemperature)
        self.job = FUNCTIONS[self.function]()
        self._keep: list[object] = []
        self._rates: list[float] = []
        self._batch: Batch | None = None
        """The batch whose addresses are in the job."""
        self._describe()
        self._prepare_step()
        self._check_for_own_code()
        self._parameters = [*model.policy.parameters(), *model.temperature.parameters()]

    @abstractmethod
    def _describe(self) -> None:
        """Read the networks and everything else that stays the same from step to step into the job."""

    @abstractmethod
    def _fill(self, batch: Batch) -> list[th.Tensor]:
        """Put a batch into the job; returns the tensors that must live as long as the job has this batch."""

    @abstractmethod
    def _begin_step(self) -> None:
        """Put into the job what is new in each step besides the batch."""

    @abstractmethod
    def _excess_entropy(self, logs: dict[str, float]) -> float:
        """Mean entropy in nats minus its target, from what C logged."""

    @abstractmethod
    def _named(self, logs: dict[str, float]) -> dict[str, float]:
        """The values that ``_update`` returns, in its order, from what C logged."""

    @classmethod
    def replaces(cls, model: Any) -> dict[Owner, Sequence[str]]:
        """:return: All functions of a model's gradient step that C replaces."""
        return {
            type(model): (*cls.methods, *cls.networks),
            type(model.temperature): ("losses", "parameters"),
            **{type(optimizer): ("step", "zero_grad") for optimizer in model.optimizers},
            **FUNCTIONS_OF_ALL,
            **cls.functions,
        }

    def _check(self) -> Functions:
        """:return: The functions that C replaces."""
        model, kind = self.model, type(self.model)
        require(isinstance(model, self.algorithm), f"{kind.__name__} is not supported in C")
        methods = Functions({kind: (*self.methods, *self.networks)})
        own = methods.are_original() and not any(name in vars(model) for name in self.methods)
        require(own, f"{kind.__name__} overrides the gradient steps")
        functions = Functions(self.replaces(model))
        require(functions.are_original(), f"{functions.replaced()} was replaced")
        policy = model.policy
        require(not isinstance(model.observation_space, spaces.Dict), "Dict observations are not supported in C")
        require(type(policy) in self.policies, f"{type(policy).__name__} is not supported in C")
        for name, network_class in self.networks.items():
            network = getattr(policy, name)
            require(type(network) is network_class, f"{name} is a {type(network).__name__}, which is not supported in C")
            check_extractor(network)
            read_alike = network.observation_space == policy.actor.observation_space
            read_alike &= network.normalize_images == policy.actor.normalize_images
            require(read_alike, "the networks do not read observations alike")
        known = (AutoTemperature, FixedTemperature, ScheduledTemperature)
        require(type(model.temperature) in known, f"{type(model.temperature).__name__} is not supported in C")
        return functions

    def _check_for_own_code(self) -> None:
        model, trained = self.model, list(self._reader.gradients)
        modules, optimizers = list(model.policy.modules()), model.optimizers
        require(not any(hooks_of(modules, optimizers)) and not are_hooked(trained), "hooks are not called in C")
        parts = [*modules, *optimizers, model.temperature]
        parts += [vars(each)["branches"] for each in (model, *modules) if "branches" in vars(each)]
        require(not any(map(has_own_methods, parts)), "replaced methods are not called in C")
        require(all(parameter.requires_grad for parameter in trained), "parameters are frozen")

    def _array(self, networks: Sequence[Network]) -> Any:
        array = (Network * len(networks))(*networks)
        self._keep.append(array)
        return array

    def _prepare_step(self) -> None:
        step: Step = self.job.step
        reader, n_threads = self._reader, self.n_threads
        self.job.temperature_gradient = reader.train(self.model.temperature.log_ent_coef) if self._learned else -1
        if self._learned:
            reader.address(self.model.temperature.log_ent_coef, 1)
        slots = reader.slots(self.model)
        self._slots = (Slot * len(slots))(*slots)
        self._gradients = th.zeros(n_threads, reader.n_gradients, **IN_C)
        step.batch, step.n_threads, step.n_logs, step.n_losses = self.batch_size, n_threads, len(self.logs), len(self.losses)
        self._logs = (ctypes.c_double * (n_threads * len(self.logs)))()
        self._finite = (ctypes.c_int64 * (n_threads * len(self.losses)))()
        step.logs, step.finite = self._logs, self._finite
        step.optimizer.slots, step.optimizer.n_slots = self._slots, len(slots)
        step.optimizer.gradients = address(self._gradients, n_threads, reader.n_gradients)
        step.optimizer.n_gradients = reader.n_gradients
        library = load()[0]
        self._step = getattr(library, f"{self.function}_step")
        step.workspace_size = getattr(library, f"{self.function}_workspace")(self.job)
        self._workspace = th.empty(n_threads, step.workspace_size, **IN_C)
        step.workspace = address(self._workspace, n_threads, step.workspace_size)

    def forget_gradients(self) -> None:
        """``parameter.grad`` is not filled in C, so it must not keep the gradients of a step in PyTorch either."""
        for parameter in self._parameters:
            parameter.grad = None

    def begin(self) -> None:
        """Read the values that may change between two rounds of gradient steps: the learning rates."""
        groups = [group for optimizer in self.model.optimizers for group in optimizer.param_groups]
        rates = [float(group["lr"]) for group in groups]
        if rates == self._rates:
            return
        self._rates = rates
        rate_of = {parameter: rate for group, rate in zip(groups, rates, strict=True) for parameter in group["params"]}
        for slot, parameter in zip(self._slots, self._reader.gradients, strict=True):
            slot.lr = rate_of[parameter]

    def step(self, batch: Batch, tau: float) -> tuple[dict[str, float], dict[str, float], bool]:
        """
        Do one gradient step, or nothing if something is not finite.

        :param batch: Sampled transitions.
        :param tau: Weight of the networks in their targets; 0 to leave the targets as they are.
        :return: What ``_update`` returns; 0 or NaN for the gradient of each loss; and whether all of it was finite.
        :raises Unsupported: if the batch is not as expected; nothing was done then.
        """
        job, temperature = self.job, self.model.temperature
        log_alpha = temperature.log_ent_coef.item() if self._learned else 0.0
        require(math.isfinite(log_alpha), "the temperature is not finite")  # C sees alpha alone
        job.alpha = float(temperature.alpha)
        if batch is not self._batch:
            self._batch = None
            self._inputs = self._fill(batch)
            self._batch = batch
        self._begin_step()
        job.step.optimizer.tau = float(tau)
        result = self._step(job)
        require(result >= 0, "a batch has actions outside of the action space")
        logs = dict(zip(self.logs, self._logs, strict=False))
        logs["ent_coef"] = job.alpha
        if self._learned:
            logs["ent_coef_loss"] = log_alpha * self._excess_entropy(logs)
        flags = dict(zip(self.losses, self._finite, strict=False))
        if self._learned:
            flags["ent_coef_loss"] = 1  # its gradient is a number that is among the logs
        gradients = {name: 0.0 if flag else math.nan for name, flag in flags.items()}
        named = self._named(logs)
        temperature.bound()
        return named, gradients, result == 1

    def _observations(self, obs: PyTorchObs, n_obs: int) -> th.Tensor:
        actor = self.model.policy.actor
        obs = preprocess_obs(obs, actor.observation_space, normalize_images=actor.normalize_images)
        assert isinstance(obs, th.Tensor)  # a flattening extractor reads nothing else
        return self._floats(obs.flatten(1), self.batch_size, n_obs)

    def _floats(self, tensor: th.Tensor, *shape: int) -> th.Tensor:
        """:return: The same numbers, one after another. Other dtypes are left to PyTorch."""
        require(tensor.dtype == th.float32 and tensor.shape == shape, "a batch does not have the shape that the networks need")
        return tensor.contiguous()

    def _numbers(self, batch: Batch) -> list[th.Tensor]:
        size, job = self.batch_size, self.job
        numbers = [self._floats(part, size) for part in (batch.rewards, batch.dones, batch.discounts)]
        job.rewards, job.dones, job.discounts = (address(part, size) for part in numbers)
        return numbers
