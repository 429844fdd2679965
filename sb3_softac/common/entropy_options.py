"""The arguments ``ent_coef`` and ``target_entropy``: what was said, and what the gradient steps make of it."""

from abc import abstractmethod
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule

from sb3_softac.common.temperature import AutoTemperature, Temperature, make_temperature


class EntropyOptions(OffPolicyAlgorithm):
    """
    Keeps what was said apart from what it means.

    ``model.target_entropy`` is a number, as in SB3, but what is saved is what was said, in ``model.__dict__`` under the same
    name: ``load`` puts the file's or the user's words there and has them resolved again.
    """

    temperature: Temperature
    ent_coef_bounds: tuple[float, float] | None
    _resolved: dict[str, Any]
    """What was said when it was resolved; a part of saved models."""

    def _setup_entropy_options(self) -> None:
        said = {name: self.__dict__[name] for name in ("ent_coef", "target_entropy")}
        before = self.__dict__.get("_resolved", said)  # that of the file, while loading
        self._said_anew = {name for name in said if said[name] != before[name]}
        self._resolved = said
        self._setup_target_entropy()
        self.temperature = self._make_temperature()

    def _make_temperature(self) -> Temperature:
        return make_temperature(self.ent_coef, self.device, self.lr_schedule(1), self.ent_coef_bounds)

    @abstractmethod
    def _setup_target_entropy(self) -> None:
        """Make of what the user said, ``self.__dict__["target_entropy"]``, what the gradient steps read."""

    @abstractmethod
    def _target_entropy_in_nats(self) -> float:
        """:return: The target that :meth:`_setup_target_entropy` has made, now."""

    @property
    def target_entropy(self) -> float:
        """Entropy in nats that a learned temperature holds the policy at. Set it to whatever the constructor accepts."""
        return self._target_entropy_in_nats()

    @target_entropy.setter
    def target_entropy(self, said: Any) -> None:
        self.__dict__["target_entropy"] = self._resolved["target_entropy"] = said
        self._said_anew = {"target_entropy"}
        self._setup_target_entropy()

    @property
    def ent_coef(self) -> str | float | Schedule:
        """The temperature as the constructor accepts it. Setting it starts the temperature anew."""
        return self.__dict__["ent_coef"]

    @ent_coef.setter
    def ent_coef(self, said: str | float | Schedule) -> None:
        self.__dict__["ent_coef"] = self._resolved["ent_coef"] = said
        self.temperature = self._make_temperature()

    @property
    def log_ent_coef(self) -> th.Tensor:
        """Logarithm of the temperature, one element: the parameter if it is learned, a copy if not."""
        return self.temperature.log_ent_coef if isinstance(self.temperature, AutoTemperature) else self.temperature.alpha.log()

    @property
    def ent_coef_optimizer(self) -> th.optim.Optimizer | None:
        """Optimizer of a learned temperature; None if the temperature is not learned."""
        return self.temperature.optimizer

    @ent_coef_optimizer.setter
    def ent_coef_optimizer(self, optimizer: th.optim.Optimizer) -> None:
        self.temperature.optimizer = optimizer
