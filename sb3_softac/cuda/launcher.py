"""
One function on the device, run as it is until it is warm, and as a graph from then on.

A graph repeats what was captured, kernel by kernel, on the same memory and with the same numbers. Whatever changes from one
launch to the next has to be in a tensor that stays the same, and whatever else the function reads must not have changed.
"""

import pickle
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import torch as th

from sb3_softac.cuda.engine import Engine, Replay
from sb3_softac.cuda.reads import Place, Reads, Seen

# Launches before the capture that run as they are: they make what a capture cannot, optimizer states and workspaces, and show
# what the function reads.
WARM_UP = 3
FunctionOfTensors = TypeVar("FunctionOfTensors", bound=Callable[..., th.Tensor])


class CaptureError(Exception):
    """The function cannot be captured; nothing of it has been done on the device."""


class Launcher(Generic[FunctionOfTensors]):
    """
    A function of some tensors.

    :param engine: What captures.
    :param function: Function of ``inputs``. It reads nothing but them, the roots, and what it reaches from there.
    :param roots: Objects that the function reads, or reads others from.
    :param optimizers: Gives the optimizers that the function steps. Their learning rates are read anew for each launch.
    :param inputs: First values of the tensors.
    """

    def __init__(
        self,
        engine: Engine,
        function: FunctionOfTensors,
        roots: tuple[Any, ...],
        optimizers: Callable[[], list[th.optim.Optimizer]],
        inputs: tuple[th.Tensor, ...],
    ):
        self.engine, self.function = engine, function
        self.obstacle = ""
        """Why the function must not be captured, known once it is warm."""
        self._optimizers = optimizers
        self._inputs = tuple(value.clone() for value in inputs)
        self._device = inputs[0].device
        self._reads = Reads(roots, self._device)
        self._seen: dict[Place, Seen] | None = None
        self._rates = [th.tensor(float(group["lr"]), device=self._device) for group in self._groups()]
        self._n_launches = 0
        self._graph: tuple[th.Tensor, Replay] | None = None

    @property
    def n_replays(self) -> int:
        """Launches of the graph."""
        return max(self._n_launches - WARM_UP, 0)

    def changes(self) -> list[str]:
        """:return: Names of what the function reads that is not what it was when it was last run as it is, or captured."""
        return [] if self._seen is None else self._reads.changed(self._seen)

    def capture_if_warm(self) -> None:
        """
        Capture the function, once it was run as it is for often enough; not to be called if there are :meth:`changes`.

        :raises CaptureError: if the function cannot be captured; it has not been run then.
        """
        if self._graph is None and self._n_launches >= WARM_UP:
            self._graph = self._capture()

    def launch(self, inputs: tuple[th.Tensor, ...]) -> th.Tensor:
        """
        Run the function; not to be called if there are :meth:`changes`.

        :param inputs: Values of the tensors.
        :return: What the function returns, a copy.
        """
        for tensor, value in zip(self._inputs, inputs, strict=True):
            tensor.copy_(value)
        self._n_launches += 1
        if self._graph is None:
            return self._warm_up()
        for rate, group in zip(self._rates, self._groups(), strict=True):
            rate.fill_(float(group["lr"]))
        result, replay = self._graph
        replay()
        return result.clone()

    def _call(self) -> th.Tensor:
        return self.function(*self._inputs)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers() for group in optimizer.param_groups]

    def _warm_up(self) -> th.Tensor:
        last = self._n_launches == WARM_UP
        before, random_state = self._reads.snapshots(), host_random_state(self._device)
        with self._reads.watch():
            result = self.engine.warm_up(self._call)
        if last:
            self._seen = self._reads.snapshots()
            if changed := self._reads.changed(before):
                self.obstacle = f"each step changes {', '.join(changed)}, or it cannot be told"
            elif host_random_state(self._device) != random_state:
                self.obstacle = "each step draws random numbers on the host"
        return result

    def _capture(self) -> tuple[th.Tensor, Replay]:
        """Capture with learning rates in tensors. The optimizers get their numbers back, which can be saved and changed."""
        groups, random_state = self._groups(), host_random_state()
        before: list[dict[str, Any]] = [
            {name: group[name] for name in ("lr", "capturable") if name in group} for group in groups
        ]
        for rate, group in zip(self._rates, groups, strict=True):
            group.update(lr=rate, **({"capturable": True} if "capturable" in group else {}))
        try:
            with self._reads.watch():
                graph = self.engine.capture(self._call)
        except Exception as error:
            set_host_random_state(random_state)
            raise CaptureError(f"this update cannot be captured ({error})") from error
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)
        assert self._seen is not None
        if changed := self._reads.changed(self._seen):
            raise CaptureError(f"a capture changes {', '.join(changed)}")
        self._seen = self._reads.snapshots()
        return graph


def host_random_state(device: th.device | None = None) -> bytes:
    """
    :param device: Device whose random numbers are left out.
    :return: State of the random number generators of Python, numpy and PyTorch's CPU.
    """
    of_torch = None if device is not None and device.type == "cpu" else th.get_rng_state().numpy()
    return pickle.dumps((random.getstate(), np.random.get_state(), of_torch))


def set_host_random_state(state: bytes) -> None:
    """
    :param state: What :func:`host_random_state` returned, without a device.
    """
    of_python, of_numpy, of_torch = pickle.loads(state)
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    th.set_rng_state(th.from_numpy(of_torch))
