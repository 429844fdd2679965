"""The actor of the first version of the paper: a mixture of squashed Gaussians."""

from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_softac.equations.mixture import mixture_log_prob
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob, unsquash
from sb3_softac.nets.base import Draw
from sb3_softac.nets.candidates import take
from sb3_softac.nets.judged import JudgedActor, smallest_q
from sb3_softac.nets.squashed import SquashedActor

# The upper bound is SB3's. The lower one is above SB3's -20: the log-density asks how many standard deviations lie between an
# action and the mean of each component, and below exp(-10) single precision has few digits of that.
LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


class SquashedMixtureActor(JudgedActor, SquashedActor):
    r"""
    A mixture of diagonal Gaussians, squashed by tanh, with the exact density of its actions.

    A gradient step sees one action of each component, weighted by the weights of the mixture. That estimate is unbiased, and
    its gradient reaches the weights directly.

    While the Q-function is still flat, one wide Gaussian is as good a policy as several: the components would become the same,
    and a mode that none of them is near later would never be found. Therefore the policy loss rewards at first what an action
    tells about its component, :math:`I(a; k) = E[\log N_k(a) - \log \pi(a)]` in nats. The reward falls to 0 in the first half
    of the training, from where on the loss is that of the paper.

    Its deterministic action is tanh of a mean: of the means of all components the one where the density of the mixture, before
    the squash, is the highest, or, as in the authors' code, the one with the highest Q-value (the smallest over the critics).
    With one component that is the Gaussian's.

    :param n_components: Number of Gaussians, at least 1.
    :param separation: Weight of that reward at the start of the training, in units of the temperature, at least 0.
    :param deterministic_by: What chooses the deterministic action, ``"density"`` or ``"q"``.
    :param kwargs: Keyword arguments of :class:`~sb3_softac.nets.judged.JudgedActor`.
    :raises ValueError: if there are no components, the separation is negative, or ``deterministic_by`` is something else.
    """

    separation_now: th.Tensor

    def __init__(self, *, n_components: int = 4, separation: float = 3.0, deterministic_by: str = "density", **kwargs: Any):
        super().__init__(**kwargs)
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1, got {n_components} (default: 4)")
        if not separation >= 0.0:
            raise ValueError(f"separation must be at least 0, which gives no reward, got {separation} (default: 3)")
        if deterministic_by not in ("density", "q"):
            raise ValueError(f"deterministic_by must be 'density' or 'q', got {deterministic_by!r} (default: 'density')")
        self.n_components, self.separation, self.deterministic_by = n_components, separation, deterministic_by
        # A tensor that is written into, so that recorded gradient steps see it
        self.register_buffer("separation_now", th.tensor(float(separation)), persistent=False)
        self.components = nn.Linear(self.latent_dim, n_components * (2 * self.action_dim + 1))

    def mixture(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param obs: Observations.
        :return: Logarithms of the weights of the components ``[n_components, batch]``, and means and standard deviations of
            their actions before the squash ``[n_components, batch, action_dim]``.
        """
        outputs = self.components(self.latent(obs)).unflatten(1, (self.n_components, -1)).transpose(0, 1)
        logits, mean, log_std = outputs.split([1, self.action_dim, self.action_dim], dim=2)
        return logits.squeeze(2).log_softmax(dim=0), mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Whether to take the mean of a component, the densest or the one with the highest Q, instead of a
            sample.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        :raises ValueError: if the highest Q is asked for and the actor has no Q-functions.
        """
        log_weights, mean, std = self.mixture(obs)
        if not deterministic:
            return th.tanh(self._sample(log_weights, mean, std))
        actions = th.tanh(mean).transpose(0, 1)
        if self.deterministic_by == "density":
            return take(actions, mixture_log_prob(mean, log_weights, mean, std).argmax(dim=0))
        critic = self.find_critic()
        if critic is None:
            raise ValueError("deterministic_by='q' needs Q-functions: make the actor with a policy, or with critic=...")
        return take(actions, smallest_q(critic, obs, actions).argmax(dim=1))

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        Sample an action for each observation; SB3's ``action_log_prob``. Gradients do not reach the choice of the component,
        those of :meth:`draw` do.

        :param obs: Observations.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]`` and their log-densities in nats ``[batch]``.
        """
        mixture = self.mixture(obs)
        u = self._sample(*mixture)
        return th.tanh(u), squashed_log_prob(mixture_log_prob(u, *mixture), u)

    def draw(self, obs: PyTorchObs, reparameterize: bool = True) -> Draw:
        log_weights, mean, std = self.mixture(obs)
        if not reparameterize:
            u = self._sample(log_weights, mean, std).detach()
            return Draw(th.tanh(u), squashed_log_prob(mixture_log_prob(u, log_weights, mean, std), u))
        noise = th.randn_like(mean)
        u = mean + std * noise
        log_mu = mixture_log_prob(u, log_weights, mean, std)
        log_pi = squashed_log_prob(log_mu, u)
        information = gaussian_log_prob(noise, std) - log_mu  # the squash is the same in both
        return Draw(th.tanh(u), log_pi, log_weights, log_pi - self.separation_now * information)

    def follow_schedule(self, progress_remaining: float) -> None:
        """
        :param progress_remaining: 1 at the start of training, 0 at its end.
        """
        self.separation_now.fill_(self.separation * max(0.0, 2.0 * progress_remaining - 1.0))

    def log_prob(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: Observations.
        :param actions: Actions scaled to [-1, 1] ``[..., batch, action_dim]``; the ends count as the numbers next to them.
        :return: Their log-densities in nats ``[..., batch]``.
        :raises ValueError: if an action is NaN or outside [-1, 1].
        """
        u = unsquash(actions)
        return squashed_log_prob(mixture_log_prob(u, *self.mixture(obs)), u)

    def _sample(self, log_weights: th.Tensor, mean: th.Tensor, std: th.Tensor) -> th.Tensor:
        """:return: One action before the squash for each observation ``[batch, action_dim]``."""
        chosen = th.multinomial(log_weights.exp().transpose(0, 1), 1).squeeze(1)
        mean, std = take(mean.transpose(0, 1), chosen), take(std.transpose(0, 1), chosen)
        return mean + std * th.randn_like(mean)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("n_components", "separation", "deterministic_by")
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in names}}
