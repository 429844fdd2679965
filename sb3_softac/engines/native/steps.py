"""Gradient steps in C, as long as C supports the model."""

import os
from typing import TYPE_CHECKING

import torch as th

from sb3_softac.algorithm.distributed import is_distributed
from sb3_softac.engines.native.library import load
from sb3_softac.engines.native.networks import NOT_YET
from sb3_softac.engines.native.plan import Plan
from sb3_softac.engines.unsuitable import Unsuitable, require
from sb3_softac.replay.batch import make_batch

if TYPE_CHECKING:
    from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm

SWITCH = "SB3_SOFTAC_FAST"
# Transitions of a batch times parameters of the policy. With less, one thread is faster than two (benchmarks/fast_sizes.py):
# a batch of 256 pays for two threads with two hidden layers of 256, a batch of 64 does not.
WORK_PER_THREAD = 20_000_000


def plans() -> list[type[Plan]]:
    """:return: The kinds of models that C supports."""
    from sb3_softac.engines.native.discretesac import DiscretePlan
    from sb3_softac.engines.native.softac_v1 import SoftACPlan

    return [SoftACPlan, DiscretePlan]


class FastSteps:
    """
    Runs the gradient steps of a model in C.

    :param model: Model.
    """

    def __init__(self, model: "SoftOffPolicyAlgorithm"):
        self.model = model
        self._plan: Plan | None = None
        self._asked = (0, 0)
        self._said = ""

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_plan": None}  # a copy of the model has other addresses

    def run(self, gradient_steps: int, batch_size: int) -> bool:
        """
        :param gradient_steps: Number of gradient steps.
        :param batch_size: Number of transitions per step.
        :return: Whether they were done; False if this model needs the plain path.
        """
        try:
            plan = self._current_plan(batch_size)
        except Unsuitable as reason:
            self._plan = None
            self._say(f"Gradient steps run in PyTorch: {reason}")
            return False
        self._say(f"Gradient steps run in C, threads: {plan.n_threads}")
        model, buffer = self.model, self.model.replay_buffer
        assert buffer is not None
        plan.begin()
        plan.forget_gradients()
        stale = False
        for _ in range(gradient_steps):
            batch = make_batch(buffer.sample(batch_size, env=model._vec_normalize_env), model.gamma)
            update_targets = (model._n_updates + 1) % model.target_update_interval == 0
            try:
                logs, finite = plan.step(batch, model.tau if update_targets else 0.0)
            except Unsuitable:  # a batch that C does not know
                model._prepare_networks()
                model._gradient_step(batch)
                finite, stale = bool(model._finite), True
            else:
                if stale:
                    plan.forget_gradients()
                    stale = False
                model._step_log.add_steps(list(logs), th.tensor([list(logs.values())], dtype=th.float64))
                model._n_updates += 1
            if not finite:  # the log says so, and train() raises
                model._failed_batch = batch
                break
        return True

    def _current_plan(self, batch_size: int) -> Plan:
        """:raises Unsuitable: if the model needs the plain path."""
        require(os.environ.get(SWITCH) != "0", f"{SWITCH}=0")
        plan, asked = self._plan, (batch_size, th.get_num_threads())
        if plan is not None and asked == self._asked and plan.watch.holds():
            return plan
        require(self.model.device.type == "cpu", "the networks are not on the CPU")
        require(not is_distributed(), "several processes average their gradients")
        library, reason = load()
        require(library, reason)
        kind = next((kind for kind in plans() if isinstance(self.model, kind.algorithm)), None)
        require(kind, f"{type(self.model).__name__} is not supported in C")
        assert kind is not None
        self._asked = asked
        self._plan = None
        try:
            plan = kind(self.model, batch_size, self._fitting_threads(*asked))
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            # Parts of the model are not what they were when it was made; PyTorch knows what to say of it
            raise Unsuitable(f"the model cannot be read ({error})") from error
        self.model._check_networks()  # also the parts that C does not read
        self._plan = plan
        return plan

    def _fitting_threads(self, batch_size: int, n_threads: int) -> int:
        """:return: Number of threads, at most PyTorch's number, such that each has enough work."""
        work = batch_size * sum(parameter.numel() for parameter in self.model.policy.parameters())
        return max(1, min(n_threads, batch_size, work // WORK_PER_THREAD))

    def _say(self, message: str) -> None:
        """Tell the user whether C or PyTorch is used, once until it changes."""
        if message != self._said and NOT_YET not in message:
            self._said = message
            if self.model.verbose >= 1:
                print(message)
