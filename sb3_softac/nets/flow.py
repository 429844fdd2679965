"""An actor with a normalizing flow: real NVP (arXiv:1605.08803) over the squashed Gaussian."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.checks import Argument, integer
from sb3_softac.equations.flow import affine, inverse_affine, stretch
from sb3_softac.equations.shapes import require_same_shape
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob, unsquash
from sb3_softac.nets.base import BaseActor, LikelihoodRatioSample, PolicySample, hidden_layers
from sb3_softac.nets.candidates import fixed_noise, take
from sb3_softac.nets.mixture import LOG_STD_MAX, LOG_STD_MIN

# Largest logarithms of the scale and of the slope that one coupling may give; smooth bounds, at which no gradient vanishes
MAX_LOG_SCALE, MAX_LOG_SLOPE = 2.0, 5.0
N_CANDIDATES = 32
"""Number of actions among which the deterministic policy takes the densest."""


class Coupling(nn.Module):
    """
    Moves half of the coordinates, by functions of the other half and of the state. It starts as the identity.

    With a single coordinate there is no other half, and the state alone decides. ``parity`` 0 moves the first coordinate and
    every other one from there, 1 the rest.
    """

    moved: th.Tensor

    def __init__(self, latent_dim: int, action_dim: int, width: int, activation_fn: type[nn.Module], parity: int):
        super().__init__()
        moved = th.arange(action_dim) % 2 == parity % 2
        self.register_buffer("moved", moved if action_dim > 1 else th.ones_like(moved))
        self.from_state = nn.Linear(latent_dim, width)
        self.from_actions = nn.Linear(action_dim, width, bias=False)
        self.activation = activation_fn()
        self.outputs = nn.Linear(width, 3 * action_dim)
        nn.init.zeros_(self.outputs.weight)
        nn.init.zeros_(self.outputs.bias)

    def functions(self, x: th.Tensor, latent: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """:return: Logarithm of the scale, shift, and logarithm of the slope at 0, from the coordinates that do not move."""
        hidden = self.activation(self.from_state(latent) + self.from_actions(x.masked_fill(self.moved, 0.0)))
        log_scale, shift, log_slope = self.outputs(hidden).chunk(3, dim=-1)
        return _bounded(log_scale, MAX_LOG_SCALE), shift, _bounded(log_slope, MAX_LOG_SLOPE)

    def forward(self, x: th.Tensor, latent: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """:return: The moved coordinates ``[..., batch, action_dim]``, and log of the growth of volumes ``[..., batch]``."""
        log_scale, shift, log_slope = self.functions(x, latent)
        scaled, log_of_scale = affine(x, log_scale, shift)
        y, log_of_slope = stretch(scaled, log_slope)
        return th.where(self.moved, y, x), th.where(self.moved, log_of_scale + log_of_slope, 0.0).sum(dim=-1)

    def inverse(self, y: th.Tensor, latent: th.Tensor) -> th.Tensor:
        """:return: The coordinates that :meth:`forward` moves to these."""
        log_scale, shift, log_slope = self.functions(y, latent)
        x = inverse_affine(stretch(y, -log_slope)[0], log_scale, shift)
        return th.where(self.moved, x, y)


def _bounded(x: th.Tensor, bound: float) -> th.Tensor:
    return bound * th.tanh(x / bound)


class SquashedFlowActor(BaseActor):
    """
    A Gaussian whose noise goes through the couplings of real NVP first, squashed by tanh, with the exact density of actions.

    It starts as a Gaussian policy.

    Its deterministic action is the densest, before the squash, of 32 actions of fixed noise, the noise 0 among them: the
    noise 0 alone may lie between two modes.

    :param n_couplings: Number of couplings, at least 1; neighbours move different halves of the coordinates.
    :param coupling_width: Size of the hidden layer of each coupling.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseActor`.
    """

    arguments: ClassVar[dict[str, Argument]] = {"n_couplings": integer(1), "coupling_width": integer(1)}
    candidate_noise: th.Tensor
    """Noise of the candidates ``[n_candidates, 1, action_dim]``; saved, so that deterministic actions are the same after
    loading."""

    def __init__(self, *, n_couplings: int = 4, coupling_width: int = 64, **kwargs: Any):
        super().__init__(**kwargs)
        self.n_couplings, self.coupling_width = n_couplings, coupling_width
        self.latent_pi, latent_dim = hidden_layers(self)
        self.mu = nn.Linear(latent_dim, self.action_dim)
        self.log_std = nn.Linear(latent_dim, self.action_dim)
        self.couplings = nn.ModuleList(
            Coupling(latent_dim, self.action_dim, coupling_width, self.activation_fn, parity) for parity in range(n_couplings)
        )
        noise = fixed_noise(N_CANDIDATES, 1, self.action_dim)
        noise[0] = 0.0
        self.register_buffer("candidate_noise", noise)

    def transform(self, latent: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Actions before the squash ``[..., batch, action_dim]`` and their log-densities in nats, from Gaussian noise."""
        mean, std = self._moments(latent)
        x, log_volume = noise, th.zeros_like(noise[..., 0])
        for coupling in self.couplings:
            x, log_growth = coupling(x, latent)
            log_volume = log_volume + log_growth
        return mean + std * x, gaussian_log_prob(noise, std.expand_as(noise)) - log_volume

    def noise_of(self, latent: th.Tensor, u: th.Tensor) -> th.Tensor:
        """The noise that :meth:`transform` maps to these actions before the squash ``[..., batch, action_dim]``."""
        mean, std = self._moments(latent)
        require_same_shape(mean=mean, actions=u.reshape(-1, *u.shape[-2:])[0])
        x = (u - mean) / std
        for coupling in reversed(self.couplings):
            x = coupling.inverse(x, latent)  # type: ignore[operator]
        return x

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Scaled actions ``[batch, action_dim]``: samples, or the densest of the candidates."""
        latent = self._latent(obs)
        if not deterministic:
            return th.tanh(self.transform(latent, self._noise(latent))[0])
        u, log_mu = self.transform(latent, self.candidate_noise.expand(-1, latent.shape[0], -1))
        return th.tanh(take(u.transpose(0, 1), log_mu.argmax(dim=0)))

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """As :meth:`.SquashedGaussianActor.action_log_prob`."""
        latent = self._latent(obs)
        u, log_mu = self.transform(latent, self._noise(latent))
        return th.tanh(u), squashed_log_prob(log_mu, u)

    def sample(self, obs: PyTorchObs, reparameterize: bool = True) -> PolicySample | LikelihoodRatioSample:
        """As :meth:`.SquashedGaussianActor.sample`."""
        if reparameterize:
            return PolicySample(*self.action_log_prob(obs))
        latent = self._latent(obs)
        with th.no_grad():
            u, _ = self.transform(latent, self._noise(latent))
        return LikelihoodRatioSample(th.tanh(u), self._log_density(latent, u))

    def log_prob(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """As :meth:`.SquashedGaussianActor.log_prob`."""
        return self._log_density(self._latent(obs), unsquash(actions))

    def _latent(self, obs: PyTorchObs) -> th.Tensor:
        return self.latent_pi(self.features(obs))

    def _log_density(self, latent: th.Tensor, u: th.Tensor) -> th.Tensor:
        _, log_mu = self.transform(latent, self.noise_of(latent, u))
        return squashed_log_prob(log_mu, u)

    def _moments(self, latent: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.mu(latent), self.log_std(latent).clamp(LOG_STD_MIN, LOG_STD_MAX).exp()

    def _noise(self, latent: th.Tensor) -> th.Tensor:
        return th.randn(latent.shape[0], self.action_dim, dtype=latent.dtype, device=latent.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in self.arguments}}
