"""The squashed Gaussian actor."""

import torch as th
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import Actor

from sb3_softac.equations.shapes import require_same_shape
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob, unsquash
from sb3_softac.nets.base import LikelihoodRatioSample, PolicySample, no_optimizer, switch_mode


class SquashedGaussianActor(Actor):
    """
    SB3's SAC actor with the density of its actions computed exactly.

    SB3 adds 1e-6 to 1 - tanh^2(u) and, with gSDE, recovers u from the rounded action; here u is kept and the softplus form
    of the correction is used. Networks, parameter names and gSDE are SB3's, so weights move freely between the two.
    The constructor's parameters are those of ``stable_baselines3.sac.policies.Actor``.
    """

    optimizer = no_optimizer  # type: ignore[assignment]
    set_training_mode = switch_mode

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Actions scaled to [-1, 1] ``[batch, action_dim]``: samples, or tanh of the mean."""
        mean, log_std, gsde = self.get_action_dist_params(obs)
        if deterministic:
            return th.tanh(mean)
        noise, std = self._noise(mean, log_std, gsde.get("latent_sde"))
        return th.tanh(mean + std * noise)

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        Sampled actions scaled to [-1, 1] ``[batch, action_dim]``, and their log-densities in nats ``[batch]``; differentiable
        in the actor's parameters (Eq. 11, arXiv:1801.01290v2).
        """
        mean, log_std, gsde = self.get_action_dist_params(obs)
        noise, std = self._noise(mean, log_std, gsde.get("latent_sde"))
        u = mean + std * noise
        return th.tanh(u), squashed_log_prob(gaussian_log_prob(noise, std), u)

    def sample(self, obs: PyTorchObs, reparameterize: bool = True) -> PolicySample | LikelihoodRatioSample:
        """
        One action for each observation, for a gradient step. Without ``reparameterize``, gradients do not flow through the
        actions, but only through their log-densities.
        """
        if reparameterize:
            return PolicySample(*self.action_log_prob(obs))
        mean, log_std, gsde = self.get_action_dist_params(obs)
        noise, std = self._noise(mean, log_std, gsde.get("latent_sde"))
        u = (mean + std * noise).detach()
        return LikelihoodRatioSample(th.tanh(u), squashed_log_prob(gaussian_log_prob((u - mean) / std, std), u))

    def log_prob(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        Log-densities in nats ``[..., batch]`` of actions scaled to [-1, 1] ``[..., batch, action_dim]``. The ends count as the
        numbers next to them; with gSDE, those over all draws of its noise matrix.

        :raises ValueError: if an action is NaN or outside [-1, 1], or if the actions are not one for each observation.
        """
        mean, log_std, gsde = self.get_action_dist_params(obs)
        std = self._std(log_std, gsde.get("latent_sde"))
        u = unsquash(actions)
        require_same_shape(mean=mean, actions=u.reshape(-1, *u.shape[-2:])[0])
        noise = (u - mean) / std
        return squashed_log_prob(gaussian_log_prob(noise, std.expand_as(noise)), u)

    def _std(self, log_std: th.Tensor, latent_sde: th.Tensor | None) -> th.Tensor:
        if latent_sde is None:
            return log_std.exp()
        assert isinstance(self.action_dist, StateDependentNoiseDistribution)
        variance = latent_sde.square() @ self.action_dist.get_std(log_std).square()
        return (variance + self.action_dist.epsilon).sqrt()

    def _noise(self, mean: th.Tensor, log_std: th.Tensor, latent_sde: th.Tensor | None) -> tuple[th.Tensor, th.Tensor]:
        """:return: Standardised noise and standard deviation of u = mean + std * noise, both ``[batch, action_dim]``."""
        std = self._std(log_std, latent_sde)
        if latent_sde is None:
            return th.randn_like(mean), std
        # gSDE (arXiv:2005.05719): the noise is a linear function of the features, with a weight matrix kept for several steps
        assert isinstance(self.action_dist, StateDependentNoiseDistribution)
        return self.action_dist.get_noise(latent_sde) / std, std
