"""
The arguments ``ent_coef`` and ``target_entropy``: the values that the user passed, and the values that gradient steps use.
"""

from abc import abstractmethod
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule

from sb3_softac.entropy.temperature import AutoTemperature, Bounds, Temperature, make_temperature


class EntropyOptions(OffPolicyAlgorithm):
    """
    Keeps the arguments that the user passed separate from their resolved values.

    ``model.target_entropy`` is a number, as in SB3. The argument itself is saved in ``model.__dict__`` under the same name;
    ``load`` puts the argument from the file or from the user there, and it is resolved again.
    """

    temperature: Temperature
    ent_coef_bounds: Bounds | None
    _resolved: dict[str, Any]
    """The argument when it was last resolved; saved with the model."""

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
        """Resolve the user's argument, ``self.__dict__["target_entropy"]``, to the value that gradient steps use."""

    @abstractmethod
    def _target_entropy_in_nats(self) -> float:
        """:return: The current value of the target from :meth:`_setup_target_entropy`."""

    @property
    def target_entropy(self) -> float:
        """Target entropy in nats for a learned temperature. It can be set to anything that the constructor accepts."""
        return self._target_entropy_in_nats()

    @target_entropy.setter
    def target_entropy(self, said: Any) -> None:
        before, self.__dict__["target_entropy"] = self.__dict__["target_entropy"], said
        self._said_anew = {"target_entropy"}
        try:
            self._setup_target_entropy()
        except ValueError:
            self.__dict__["target_entropy"] = before
            raise
        self._resolved["target_entropy"] = said

    @property
    def ent_coef(self) -> str | float | Schedule:
        """The temperature, in the form that the constructor accepts. Setting it creates a new temperature."""
        return self.__dict__["ent_coef"]

    @ent_coef.setter
    def ent_coef(self, said: str | float | Schedule) -> None:
        before, self.__dict__["ent_coef"] = self.__dict__["ent_coef"], said
        try:
            self.temperature = self._make_temperature()
        except ValueError:
            self.__dict__["ent_coef"] = before
            raise
        self._resolved["ent_coef"] = said

    @property
    def log_ent_coef(self) -> th.Tensor:
        """Logarithm of the temperature, one element: the parameter itself if it is learned, otherwise a copy."""
        return self.temperature.log_ent_coef if isinstance(self.temperature, AutoTemperature) else self.temperature.alpha.log()

    @property
    def ent_coef_optimizer(self) -> th.optim.Optimizer | None:
        """Optimizer of a learned temperature; None if the temperature is not learned."""
        return self.temperature.optimizer

    @ent_coef_optimizer.setter
    def ent_coef_optimizer(self, optimizer: th.optim.Optimizer) -> None:
        self.temperature.optimizer = optimizer
