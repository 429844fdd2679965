"""A second discrete algorithm, soft Q-learning without an actor, is a policy and an ``_update`` on top of discrete/."""

import inspect
import io

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.sac.policies import SACPolicy

from sb3_softac import DiscreteSAC
from sb3_softac.algorithm.arguments import POLICY_ARGUMENTS
from sb3_softac.algorithm.policies import (
    NetworkOfPolicy,
    constructor_parameters,
    copy_as_target,
    finite_obs_to_tensor,
    make_initialized_extractor,
    make_joint_optimizer,
)
from sb3_softac.discrete.branches import Branches
from sb3_softac.discrete.discrete_algorithm import DiscreteOffPolicyAlgorithm
from sb3_softac.discrete.masked_policy import masked_distribution, masked_forward, masked_log_probs, masked_predict
from sb3_softac.discrete.networks import StackedDiscreteCritic
from sb3_softac.equations.bellman import q_loss, soft_bellman_target
from sb3_softac.equations.discrete_sac import policy_entropy, soft_state_value
from sb3_softac.export import exported_policy
from sb3_softac.tabular import TabularEnv, TabularMDP, soft_value_iteration
from tests.discrete.masked_walk import MaskableWalk, check_stored_masks

ALPHA = 0.3


class SoftmaxPolicy(SACPolicy):
    """softmax(Q / alpha) of the smallest Q-values."""

    trained_networks, arguments = ("critic",), POLICY_ARGUMENTS
    make_optimizer, make_features_extractor = make_joint_optimizer, make_initialized_extractor
    obs_to_tensor, forward, predict = finite_obs_to_tensor, masked_forward, masked_predict
    log_probs, get_distribution = masked_log_probs, masked_distribution

    def __init__(self, observation_space, action_space, lr_schedule, net_arch=None, n_critics=2):
        self.branches = Branches(action_space)
        extractor = dict(features_extractor_class=FlattenExtractor, share_features_extractor=False)
        super().__init__(observation_space, action_space, lr_schedule, net_arch, n_critics=n_critics, **extractor)
        self._squash_output = False

    def _build(self, lr_schedule):
        self.register_buffer("alpha", th.ones(()))
        self.critic, self.critic_target = self.make_critic(), self.make_critic()
        copy_as_target(self.critic, self.critic_target)
        self.optimizer = self.make_optimizer(lr_schedule)

    def make_critic(self, features_extractor=None):
        return StackedDiscreteCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor))

    def log_pi(self, obs, masks=None):
        return self.branches.log_softmax(self.critic(obs).amin(dim=0) / self.alpha, masks)

    def set_training_mode(self, mode):
        self.critic.set_training_mode(mode)

    def _get_constructor_parameters(self):
        parameters = constructor_parameters(self)
        return {name: parameters[name] for name in inspect.signature(type(self)).parameters}


class SoftQ(DiscreteOffPolicyAlgorithm):
    policy_base = SoftmaxPolicy
    policy_aliases = {"MlpPolicy": SoftmaxPolicy}
    trains, targets = {"critic_loss": "critic"}, {"critic": "critic_target"}
    critic, critic_target = NetworkOfPolicy(), NetworkOfPolicy()

    def __init__(self, policy, env, learning_rate=0.01, **kwargs):
        ours = inspect.signature(DiscreteSAC).parameters.values()
        defaults = {each.name: each.default for each in ours if each.name not in ("policy", "env", "learning_rate")}
        for name in ("critic_ent_coef_scale", "q_aggregation", "stable_kwargs"):
            defaults.pop(name)
        super().__init__(policy, env, learning_rate, sde_support=False, **{**defaults, "ent_coef": ALPHA, **kwargs})

    def _update(self, batch):
        alpha = self.temperature.alpha
        self.policy.alpha.copy_(alpha)
        with th.no_grad():
            q_next = self.critic_target(batch.next_obs).amin(dim=0)
            log_pi_next = self.branches.log_softmax(q_next / alpha, batch.extras.get("next_action_masks"))
            v_next = soft_state_value(q_next, log_pi_next, alpha)
            q_target = soft_bellman_target(batch.rewards, batch.dones, v_next, batch.discounts)
            entropy = policy_entropy(self.policy.log_pi(batch.obs, batch.extras.get("action_masks")))
        q, actions = self.critic(batch.obs), batch.actions.long()
        losses = {"critic_loss": q_loss(self.branches.select(q, actions.expand(len(q), *actions.shape)), q_target)}
        self._minimize(losses)
        ratio = entropy.mean() / self.branches.max_entropy
        return {**losses, "ent_coef": alpha, "entropy": entropy.mean(), "entropy_ratio": ratio}


def make_model(env, **kwargs):
    return SoftQ("MlpPolicy", env, seed=0, device="cpu", buffer_size=1_000, batch_size=64, **kwargs)


def test_it_reaches_the_soft_optimal_solution(tmp_path):
    rng = np.random.default_rng(0)
    transitions = np.eye(4)[rng.integers(4, size=(4, 3))]
    mdp = TabularMDP.from_arrays(transitions, rng.normal(size=(4, 3)), 0.8)
    env, exact = TabularEnv(mdp), soft_value_iteration(mdp, ALPHA)
    # By chance not every state can be left for every other; those that are visited count
    model = make_model(env, gamma=0.8, tau=0.1, learning_starts=300, policy_kwargs=dict(net_arch=[]), learning_rate=0.05)
    model.learn(900)
    visited = np.unique(np.asarray(model.replay_buffer.observations)[:300])
    obs, _ = model.policy.obs_to_tensor(visited)
    with th.no_grad():
        np.testing.assert_allclose(model.critic(obs).mean(dim=0), exact.q[visited], atol=0.1)
        np.testing.assert_allclose(model.policy.log_probs(obs).exp(), exact.pi[visited], atol=0.05)


def test_it_has_masks_and_files_and_is_exported():
    model = make_model(MaskableWalk(), learning_starts=40).learn(150)
    assert model._n_updates > 30 and min(check_stored_masks(model)) >= 3
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded, obs = SoftQ.load(file, env=MaskableWalk()), np.eye(8, dtype=np.float32)
    masks = np.arange(4) % 2 == np.arange(8)[:, None] % 2
    actions, _ = model.predict(obs, deterministic=True, action_masks=masks)
    assert masks[np.arange(8), actions].all()
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True, action_masks=masks)[0], actions)
    np.testing.assert_array_equal(exported_policy(loaded)(th.as_tensor(obs), th.as_tensor(masks)), actions)
    for predict in (model.predict, exported_policy(model).predict):
        with pytest.raises(ValueError, match="not finite"):
            predict(np.full(8, np.nan, np.float32), action_masks=masks[0])
