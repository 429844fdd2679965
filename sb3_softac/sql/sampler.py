"""The sampler: a network that turns a state and noise into an action."""

from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_softac.checks import integer, read
from sb3_softac.nets.base import BaseActor
from sb3_softac.nets.candidates import QRanking, fixed_noise
from sb3_softac.nets.critics import StackedContinuousCritic
from sb3_softac.nets.stacked import StackedLinear, StackedMLP


class ActionSampler(BaseActor):
    """
    A network that turns a state and Gaussian noise into an action. It can represent any density, but the density cannot be
    evaluated.

    Its deterministic action is the best of several, by the smallest of the Q-values.

    :param n_candidates: Number of actions among which the deterministic policy takes the best, at least 1.
    :param critic: Soft Q-functions for that choice, or a function that finds them.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseActor`.
    :raises ValueError: if there are no candidates.
    """

    candidate_noise: th.Tensor
    """
    Noise of the candidates ``[n_candidates, action_dim]``; saved, so that deterministic actions are the same after loading.
    """

    def __init__(
        self,
        *,
        n_candidates: int = 32,
        critic: StackedContinuousCritic | Callable[[], StackedContinuousCritic] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        input_dim = self.features_dim + self.action_dim
        self.network = StackedMLP(1, input_dim, self.action_dim, self.net_arch, self.activation_fn)
        # The noise has a fan-in of its own: among the weights of many features it would have almost no effect at first, and
        # all particles of a state would start in one place.
        bound = self.action_dim**-0.5
        first = self.network.layers[0]
        assert isinstance(first, StackedLinear)
        with th.no_grad():
            first.weight[:, self.features_dim :].uniform_(-bound, bound)
        # Registered before it is filled, so that ``networks_that_fit`` can stop here
        self.register_buffer("candidate_noise", th.empty(max(n_candidates, 0), self.action_dim))
        self.n_candidates = n_candidates
        self.ranking = QRanking(critic)

    @property
    def n_candidates(self) -> int:
        """Number of actions among which the deterministic policy takes the best; can be set."""
        return self._n_candidates

    @n_candidates.setter
    def n_candidates(self, number: int) -> None:
        number = read("n_candidates", number, integer(1, " action"))
        self._n_candidates = number  # a plain int, so that a trace does not record it
        self.candidate_noise = fixed_noise(number, self.action_dim).to(self.candidate_noise)

    def _load_from_state_dict(self, state: dict[str, th.Tensor], prefix: str, *args: Any) -> None:
        # The number may have been set since the policy was made, and the arguments in a saved model are the first ones
        saved = state.get(f"{prefix}candidate_noise", self.candidate_noise)
        if len(saved) != self.n_candidates and saved.shape[1:] == self.candidate_noise.shape[1:]:
            self.n_candidates = len(saved)
        super()._load_from_state_dict(state, prefix, *args)

    def transform(self, features: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        Actions before the squash by tanh ``[batch, K, action_dim]``, from features and noise ``[batch, K, action_dim]``, or
        ``[K, action_dim]`` for all states.
        """
        batch, k = features.shape[0], noise.shape[-2]
        repeated = features.unsqueeze(1).expand(-1, k, -1)
        inputs = th.cat([repeated, noise.expand(batch, -1, -1)], dim=2)
        return self.network(inputs.flatten(0, 1)).squeeze(0).unflatten(0, (-1, k))

    def particles(self, features: th.Tensor, n_particles: int) -> th.Tensor:
        """:return: Actions before the squash by tanh, drawn independently ``[batch, n_particles, action_dim]``."""
        shape = (features.shape[0], n_particles, self.action_dim)
        return self.transform(features, th.randn(shape, device=features.device, dtype=features.dtype))

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Scaled actions ``[batch, action_dim]``: samples, or the best of the candidates, for which Q-functions are needed."""
        if deterministic:
            return self.ranking.best(obs, self.candidates(obs))
        return th.tanh(self.particles(self.features(obs), 1)).squeeze(1)

    def candidates(self, obs: PyTorchObs) -> th.Tensor:
        """:return: The actions among which the deterministic one is chosen ``[batch, n_candidates, action_dim]``."""
        return th.tanh(self.transform(self.features(obs), self.candidate_noise))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"n_candidates": self.n_candidates, "critic": self.ranking.find_critic()}
        return {**super()._get_constructor_parameters(), **own}
