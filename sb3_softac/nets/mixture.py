"""The actor of the first version of the paper: a mixture of squashed Gaussians."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.checks import Argument, integer, number, one_of
from sb3_softac.equations.mixture import mean_over_components, mixture_log_prob
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob, unsquash
from sb3_softac.nets.base import BaseActor, LikelihoodRatioSample, hidden_layers
from sb3_softac.nets.candidates import QRanking, take
from sb3_softac.nets.critics import StackedContinuousCritic

# The upper bound is SB3's. The lower one is above SB3's -20: the log-density asks how many standard deviations lie between an
# action and the mean of each component, and below exp(-10) single precision has few digits of that.
LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


class MixtureSample(NamedTuple):
    """As :class:`~sb3_softac.nets.base.PolicySample`, with one action of each component for each state."""

    actions: th.Tensor
    """Scaled to [-1, 1] ``[n_components, batch, action_dim]``."""
    log_pi: th.Tensor
    """Their log-densities in nats ``[n_components, batch]``."""
    log_weights: th.Tensor
    """Logarithms of the weights of the components ``[n_components, batch]``."""
    separation_bonus: th.Tensor
    """What the policy loss rewards besides the entropy, in nats ``[n_components, batch]``."""

    def mean(self, values: th.Tensor) -> th.Tensor:
        return mean_over_components(values, self.log_weights)

    def policy_loss(self, q: th.Tensor, v: th.Tensor, alpha: th.Tensor) -> th.Tensor:
        # Eq. 12, arXiv:1801.01290v2, whose gradient reaches the weights of the components directly
        return self.mean(alpha * (self.log_pi - self.separation_bonus) - q).mean()


class SquashedMixtureActor(BaseActor):
    r"""
    A mixture of diagonal Gaussians, squashed by tanh, with the exact density of its actions.

    A gradient step sees one action of each component, weighted by the weights of the mixture. That estimate is unbiased, and
    its gradient reaches the weights directly.

    While the Q-function is still flat, one wide Gaussian is as good a policy as several: the components would become the same,
    and a mode that none of them is near later would never be found. So at first the policy loss rewards what an action reveals
    about its component, :math:`I(a; k) = E[\log N_k(a) - \log \pi(a)]` in nats. The reward falls to 0 in the first half of the
    training, after which the loss is the paper's.

    Its deterministic action is tanh of a mean: of the means of all components the one where the density of the mixture, before
    the squash, is the highest, or, as in the authors' code, the one with the highest Q-value (the smallest over the critics).
    With one component, this is the Gaussian's action.

    :param n_components: Number of Gaussians, at least 1.
    :param separation: Weight of that reward at the start of the training, in units of the temperature, at least 0.
    :param deterministic_by: What chooses the deterministic action, ``"density"`` or ``"q"``.
    :param critic: Soft Q-functions for that choice, or a function that finds them.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.base.BaseActor`.
    """

    arguments: ClassVar[dict[str, Argument]] = {
        "n_components": integer(1, " Gaussian"),
        "separation": number("a number, at least 0 (0 gives no reward)", lambda value: value >= 0.0),
        "deterministic_by": one_of("density", "q"),
    }
    separation_now: th.Tensor

    def __init__(
        self,
        *,
        n_components: int = 4,
        separation: float = 3.0,
        deterministic_by: str = "density",
        critic: StackedContinuousCritic | Callable[[], StackedContinuousCritic] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.n_components, self.separation, self.deterministic_by = n_components, separation, deterministic_by
        self.latent_pi, latent_dim = hidden_layers(self)
        # A tensor that is written into, so that recorded gradient steps see it
        self.register_buffer("separation_now", th.tensor(float(separation)), persistent=False)
        self.components = nn.Linear(latent_dim, n_components * (2 * self.action_dim + 1))
        self.ranking = QRanking(critic if deterministic_by == "q" else None)

    def mixture(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        Log-weights of the components ``[n_components, batch]``, and means and standard deviations of their actions before the
        squash ``[n_components, batch, action_dim]``.
        """
        latent = self.latent_pi(self.features(obs))
        outputs = self.components(latent).unflatten(1, (self.n_components, -1)).transpose(0, 1)
        logits, mean, log_std = outputs.split([1, self.action_dim, self.action_dim], dim=2)
        return logits.squeeze(2).log_softmax(dim=0), mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Scaled actions ``[batch, action_dim]``: samples, or the mean of a component, the densest or that with the best Q."""
        log_weights, mean, std = self.mixture(obs)
        if not deterministic:
            return th.tanh(self._sample(log_weights, mean, std))
        actions = th.tanh(mean).transpose(0, 1)
        if self.deterministic_by == "q":
            return self.ranking.best(obs, actions)
        return take(actions, mixture_log_prob(mean, log_weights, mean, std).argmax(dim=0))

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        As :meth:`.SquashedGaussianActor.action_log_prob`. Gradients do not reach the choice of the component; those of
        :meth:`sample` do.
        """
        mixture = self.mixture(obs)
        u = self._sample(*mixture)
        return th.tanh(u), squashed_log_prob(mixture_log_prob(u, *mixture), u)

    def sample(self, obs: PyTorchObs, reparameterize: bool = True) -> MixtureSample | LikelihoodRatioSample:
        """As :meth:`.SquashedGaussianActor.sample`, with one action of each component if gradients flow through actions."""
        log_weights, mean, std = self.mixture(obs)
        if not reparameterize:
            u = self._sample(log_weights, mean, std).detach()
            log_mu = mixture_log_prob(u, log_weights, mean, std)
            return LikelihoodRatioSample(th.tanh(u), squashed_log_prob(log_mu, u))
        noise = th.randn_like(mean)
        u = mean + std * noise
        log_mu = mixture_log_prob(u, log_weights, mean, std)
        log_pi = squashed_log_prob(log_mu, u)
        information = gaussian_log_prob(noise, std) - log_mu  # the squash is the same in both
        return MixtureSample(th.tanh(u), log_pi, log_weights, self.separation_now * information)

    def follow_schedule(self, progress_remaining: float) -> None:
        """Set the weight of the separation for a progress that falls from 1 to 0 during training."""
        self.separation_now.fill_(self.separation * max(0.0, 2.0 * progress_remaining - 1.0))

    def log_prob(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """As :meth:`.SquashedGaussianActor.log_prob`."""
        u = unsquash(actions)
        return squashed_log_prob(mixture_log_prob(u, *self.mixture(obs)), u)

    def _sample(self, log_weights: th.Tensor, mean: th.Tensor, std: th.Tensor) -> th.Tensor:
        """:return: One action before the squash for each observation ``[batch, action_dim]``."""
        chosen = th.multinomial(log_weights.exp().transpose(0, 1), 1).squeeze(1)
        mean, std = take(mean.transpose(0, 1), chosen), take(std.transpose(0, 1), chosen)
        return mean + std * th.randn_like(mean)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.arguments}
        return {**super()._get_constructor_parameters(), **own, "critic": self.ranking.find_critic()}
