"""The actors: squashed Gaussian, categorical, and a sampler that maps noise to actions."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_softac.discretesac.branches import Branches
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob, squashed_sample_gradient
from sb3_softac.nets.features import Network
from sb3_softac.nets.mlp import ReluMLP, quicken
from sb3_softac.nets.stacked import StackedLinear, StackedMLP


class SquashedSample(th.autograd.Function):
    """Actions and their log-densities as one operation with one node in the graph, in place of twenty."""

    @staticmethod
    def forward(ctx: Any, mean: th.Tensor, log_std: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param ctx: Context.
        :param mean: Means before the squash ``[batch, action_dim]``.
        :param log_std: Logarithms of the standard deviations ``[batch, action_dim]``.
        :param noise: Standard Gaussian noise ``[batch, action_dim]``.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]`` and their log-densities in nats ``[batch]``.
        """
        std = log_std.exp()
        deviation = std * noise
        u = mean + deviation
        actions = th.tanh(u)
        ctx.save_for_backward(actions, deviation)
        return actions, squashed_log_prob(gaussian_log_prob(noise, std), u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_actions: th.Tensor, grad_log_prob: th.Tensor) -> tuple[th.Tensor, th.Tensor, None]:
        """
        :param ctx: Context.
        :param grad_actions: Gradient of the actions ``[batch, action_dim]``.
        :param grad_log_prob: Gradient of the log-densities ``[batch]``.
        :return: Gradients of the arguments of :meth:`forward`; the noise has none.
        """
        actions, deviation = ctx.saved_tensors
        return *squashed_sample_gradient(actions, deviation, grad_actions, grad_log_prob), None


class SquashedGaussianActor(Network, Actor):
    """
    SB3's SAC actor with the density of its actions computed exactly.

    SB3 clips 1 - tanh^2(u) at 1e-6 and, with gSDE, recovers u from the rounded action; here u is kept and the softplus form
    of the correction is used. Networks, parameter names and gSDE are SB3's, so weights move freely between the two.
    The constructor's parameters are those of ``stable_baselines3.sac.policies.Actor``.
    """

    def get_action_dist_params(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, dict[str, th.Tensor]]:
        """
        :param obs: Observations.
        :return: Means before the squash and logarithms of the standard deviations, both ``[batch, action_dim]``, and what gSDE
            needs besides.
        """
        if self.use_sde or not isinstance(self.latent_pi, ReluMLP):
            return super().get_action_dist_params(obs)
        features = self.extract_features(obs, self.features_extractor)
        assert isinstance(self.log_std, nn.Linear) and isinstance(self.mu, nn.Linear)
        mean, log_std = self.latent_pi.heads(features, self.mu, self.log_std)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX), {}

    def _noise(self, mean: th.Tensor, log_std: th.Tensor, latent_sde: th.Tensor | None) -> tuple[th.Tensor, th.Tensor]:
        """
        Draw the exploration noise of u = mean + std * noise.

        :return: Standardised noise and standard deviation, both ``[batch, action_dim]``.
        """
        if latent_sde is None:
            return th.randn_like(mean), log_std.exp()
        # gSDE (arXiv:2005.05719): the noise is a linear function of the features, with a weight matrix kept for several steps
        assert isinstance(self.action_dist, StateDependentNoiseDistribution)
        variance = latent_sde.square() @ self.action_dist.get_std(log_std).square()
        std = (variance + self.action_dist.epsilon).sqrt()
        return self.action_dist.get_noise(latent_sde) / std, std

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: Observations.
        :param deterministic: Return tanh of the mean instead of a sample.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]``.
        """
        mean, log_std, gsde = self.get_action_dist_params(obs)
        if deterministic:
            return th.tanh(mean)
        noise, std = self._noise(mean, log_std, gsde.get("latent_sde"))
        return th.tanh(mean + std * noise)

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        Sample an action for each observation, differentiable in the actor's parameters (Eq. 11, arXiv:1801.01290v2).

        :param obs: Observations.
        :return: Actions scaled to [-1, 1] ``[batch, action_dim]`` and their log-densities in nats ``[batch]``.
        """
        mean, log_std, gsde = self.get_action_dist_params(obs)
        if not gsde:
            return SquashedSample.apply(mean, log_std, th.randn_like(mean))
        noise, std = self._noise(mean, log_std, gsde["latent_sde"])
        u = mean + std * noise
        return th.tanh(u), squashed_log_prob(gaussian_log_prob(noise, std), u)


class CategoricalActor(Network):
    """
    Policy over discrete actions: one softmax per branch.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param branches: Branches of the action space.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        branches: Branches,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.branches = branches
        self.logits = quicken(nn.Sequential(*create_mlp(features_dim, branches.n, net_arch, activation_fn)))

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations, a tensor or a dictionary of tensors with a batch dimension.
        :return: Features ``[batch, features_dim]``.
        """
        return self.extract_features(obs, self.features_extractor)

    def log_probs(self, features: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param masks: True where an action is allowed ``[batch, n]``; None if all are.
        :return: Log-probabilities of the options of all branches ``[batch, n]``, in nats.
        """
        return self.branches.log_softmax(self.logits(features), masks)

    def forward(self, obs: PyTorchObs, masks: th.Tensor | None = None) -> th.Tensor:
        """
        :param obs: Observations.
        :param masks: True where an action is allowed ``[batch, n]``; None if all are.
        :return: Log-probabilities of the options of all branches ``[batch, n]``, in nats.
        """
        return self.log_probs(self.features(obs), masks)


class ActionSampler(Network):
    """
    A network that turns a state and Gaussian noise into an action: any density, but none that could be evaluated.

    :param observation_space: Observation space.
    :param action_space: Action space.
    :param net_arch: Sizes of the hidden layers.
    :param features_extractor: Network that extracts features from observations.
    :param features_dim: Number of features.
    :param activation_fn: Activation function.
    :param normalize_images: Whether to divide images by 255.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.action_dim = get_action_dim(action_space)
        self.network = StackedMLP(1, features_dim + self.action_dim, self.action_dim, net_arch, activation_fn)
        # The noise has a fan-in of its own: among the weights of many features it would hardly be heard at first, and all
        # particles of a state would start in one place.
        bound = self.action_dim**-0.5
        first = self.network.layers[0]
        assert isinstance(first, StackedLinear)
        with th.no_grad():
            first.weight[:, features_dim:].uniform_(-bound, bound)

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations, a tensor or a dictionary of tensors with a batch dimension.
        :return: Features ``[batch, features_dim]``.
        """
        return self.extract_features(obs, self.features_extractor)

    def particles(self, features: th.Tensor, n_particles: int) -> th.Tensor:
        """
        :param features: What :meth:`features` returned ``[batch, features_dim]``.
        :param n_particles: Number of actions per state.
        :return: Actions before the squash by tanh, drawn independently ``[batch, n_particles, action_dim]``.
        """
        noise = th.randn(len(features), n_particles, self.action_dim, device=features.device)
        return self.network.particles(features, noise).squeeze(0)

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: Observations.
        :return: One sampled action per observation, scaled to [-1, 1] ``[batch, action_dim]``.
        """
        return th.tanh(self.particles(self.features(obs), 1).squeeze(1))
