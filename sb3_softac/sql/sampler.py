"""The sampler: a network that turns a state and noise into an action."""

from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_softac.nets.candidates import fixed_noise, take
from sb3_softac.nets.judged import Judge, JudgedActor, smallest_q
from sb3_softac.nets.stacked import StackedLinear, StackedMLP


class ActionSampler(JudgedActor):
    """
    A network that turns a state and Gaussian noise into an action. It can represent any density, but the density cannot be
    evaluated.

    Its deterministic action is the best of several, rated by the Q-functions of its policy.

    :param n_candidates: Number of actions among which the deterministic policy takes the best, at least 1.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.judged.JudgedActor`.
    :raises ValueError: if there are no candidates.
    """

    candidate_noise: th.Tensor
    """
    Noise of the candidates ``[n_candidates, action_dim]``; saved, so that deterministic actions are the same after loading.
    """

    def __init__(self, *, n_candidates: int = 32, **kwargs: Any):
        super().__init__(**kwargs)
        self._squash_output = True
        self.action_dim = get_action_dim(self.action_space)  # type: ignore[arg-type]
        input_dim = self.features_dim + self.action_dim
        self.network = StackedMLP(1, input_dim, self.action_dim, self.net_arch, self.activation_fn)
        # The noise has a fan-in of its own: among the weights of many features it would hardly be heard at first, and all
        # particles of a state would start in one place.
        bound = self.action_dim**-0.5
        first = self.network.layers[0]
        assert isinstance(first, StackedLinear)
        with th.no_grad():
            first.weight[:, self.features_dim :].uniform_(-bound, bound)
        # Registered before it is filled, so that whoever limits the memory of a policy can stop here
        self.register_buffer("candidate_noise", th.empty(max(n_candidates, 0), self.action_dim))
        self.n_candidates = n_candidates

    @property
    def n_candidates(self) -> int:
        """Number of actions among which the deterministic policy takes the best; can be set."""
        return self._n_candidates

    @n_candidates.setter
    def n_candidates(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"n_candidates must be at least 1, got {number} (default: 32)")
        self._n_candidates = number  # a plain number also where the shapes of tensors are being traced
        self.candidate_noise = fixed_noise(number, self.action_dim).to(self.candidate_noise)

    def transform(self, features: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param noise: Noise of K actions per state ``[batch, K, action_dim]``, or of K for all states ``[K, action_dim]``.
        :return: Actions before the squash by tanh ``[batch, K, action_dim]``.
        """
        batch, k = features.shape[0], noise.shape[-2]
        repeated = features.unsqueeze(1).expand(-1, k, -1)
        inputs = th.cat([repeated, noise.expand(batch, -1, -1)], dim=2)
        return self.network(inputs.flatten(0, 1)).squeeze(0).unflatten(0, (-1, k))

    def particles(self, features: th.Tensor, n_particles: int) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param n_particles: Number of actions per state.
        :return: Actions before the squash by tanh, drawn independently ``[batch, n_particles, action_dim]``.
        """
        shape = (features.shape[0], n_particles, self.action_dim)
        return self.transform(features, th.randn(shape, device=features.device, dtype=features.dtype))

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Whether to take the best of ``n_candidates`` actions of fixed noise, by the smallest of the
            Q-values, instead of one sample. (The sampler has no mean; more candidates get closer to the mode.) A sampler
            without Q-functions, from a file of an earlier version, gives the action of noise 0.
        :return: One action per observation, scaled to [-1, 1] ``[batch, action_dim]``.
        """
        if not deterministic:
            return th.tanh(self.particles(self.features(obs), 1)).squeeze(1)
        critic = self.find_critic()
        if critic is None:
            return th.tanh(self.transform(self.features(obs), th.zeros_like(self.candidate_noise[:1]))).squeeze(1)
        return self.best(obs, partial(smallest_q, critic))

    def best(self, obs: PyTorchObs, judge: Judge) -> th.Tensor:
        """
        :param obs: Observations.
        :param judge: Gives the Q-values by which the best is chosen.
        :return: The best of the candidates of each observation, scaled to [-1, 1] ``[batch, action_dim]``.
        """
        candidates = th.tanh(self.transform(self.features(obs), self.candidate_noise))
        return take(candidates, judge(obs, candidates).argmax(dim=1))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "n_candidates": self.n_candidates}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Files of before the noise was fixed have none
        state_dict.setdefault(f"{prefix}candidate_noise", self.candidate_noise)
        super()._load_from_state_dict(state_dict, prefix, *args)
