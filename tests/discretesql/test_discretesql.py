"""DiscreteSQL alone; exact MDPs are in tests/discrete/test_exact.py, what holds for all algorithms in tests/algorithm."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.special import logsumexp, softmax

from sb3_softac import DiscreteSQL
from sb3_softac.replay.batch import make_batch
from tests import toys
from tests.toys import flat, random_envs, saved, train

ALPHA, GAMMA = 0.7, 0.9
DISCRETE, FACTORED = spaces.Discrete(3), spaces.MultiDiscrete([2, 3])
make_model = partial(toys.make_model, DiscreteSQL)


def filled_model(actions=DISCRETE, masked=False, **kwargs):
    """A model with a full replay buffer, and networks far from their small initial outputs."""
    kwargs = {"ent_coef": ALPHA, "gamma": GAMMA, "learning_starts": 1_000, **kwargs}
    model = make_model(random_envs(DiscreteSQL, actions=actions, masked=masked), **kwargs).learn(50)
    th.manual_seed(4)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(th.randn_like(parameter))
    return model


class Reference:
    """Q-values of all combinations of options in double precision: a state at a time, a critic at a time."""

    def __init__(self, model, network, obs, masks):
        sizes, n = model.branches.sizes, model.branches.n
        utilities = network(obs).detach().double().numpy()  # [n_critics, batch, n]
        masks = np.ones((len(obs), n), bool) if masks is None else masks.numpy()
        starts = np.cumsum([0, *sizes[:-1]])
        self.actions = [np.array(options) for options in itertools.product(*map(range, sizes))]
        chosen = [starts + options for options in self.actions]
        self.each = np.stack([utilities[:, :, index].sum(axis=-1) for index in chosen], axis=-1)
        allowed = np.stack([masks[:, index].all(axis=-1) for index in chosen], axis=-1)
        self.each = np.where(allowed, self.each, -np.inf)
        values = ALPHA * logsumexp(self.each / ALPHA, axis=-1)  # Eq. 3 [n_critics, batch]
        one_branch, rows = len(sizes) == 1, np.arange(len(obs))
        self.q = self.each.min(axis=0) if one_branch else self.each[values.argmin(axis=0), rows]
        self.v, self.pi = ALPHA * logsumexp(self.q / ALPHA, axis=-1), softmax(self.q / ALPHA, axis=-1)
        self.entropy = -(self.pi * np.log(np.where(self.pi > 0, self.pi, 1.0))).sum(axis=-1)
        self.max_entropy = np.log(allowed.sum(axis=-1))

    def taken(self, actions):
        """:return: Q-values of actions by each critic ``[n_critics, batch]``."""
        index = [next(i for i, each in enumerate(self.actions) if (each == action).all()) for action in actions.numpy()]
        return self.each[:, np.arange(len(index)), index]


@pytest.mark.parametrize(
    ("actions", "masked", "n_critics", "n_steps"),
    [(DISCRETE, False, 2, 3), (DISCRETE, True, 1, 1), (FACTORED, False, 1, 1), (FACTORED, True, 3, 1)],
)
def test_the_update_equals_sums_over_all_actions(actions, masked, n_critics, n_steps):
    """Losses and logs; the critics' gradient follows from the first by PyTorch."""
    model = filled_model(
        actions, masked, ent_coef=f"auto_{ALPHA}", target_entropy="ratio_0.4", n_steps=n_steps,
        policy_kwargs=dict(n_critics=n_critics),
    )  # fmt: skip
    np.random.seed(0)
    batch = make_batch(model.replay_buffer.sample(32), model.gamma)
    masks = [batch.extras.get(name) for name in ("action_masks", "next_action_masks")]
    now, target = (
        Reference(model, network, obs, mask)
        for network, obs, mask in zip((model.critic, model.critic_target), (batch.obs, batch.next_obs), masks, strict=True)
    )
    y = batch.rewards.numpy() + np.asarray(batch.discounts) * (1.0 - batch.dones.numpy()) * target.v
    logs = {name: value.item() for name, value in model._update(batch).items()}
    assert 0.0 < batch.dones.mean() < 1.0
    assert logs["critic_loss"] == pytest.approx(0.5 * ((now.taken(batch.actions) - y) ** 2).mean(axis=1).sum(), rel=1e-4)
    assert logs["q_mean"] == pytest.approx(y.mean(), rel=1e-4)
    assert logs["entropy"] == pytest.approx(now.entropy.mean(), rel=1e-4)
    assert logs["entropy_ratio"] == pytest.approx(now.entropy.mean() / now.max_entropy.mean(), rel=1e-4)
    gap = (now.entropy - 0.4 * now.max_entropy).mean()
    assert model.log_ent_coef.grad.item() == pytest.approx(gap, rel=1e-3)
    assert logs["ent_coef"] == pytest.approx(ALPHA)


@pytest.mark.parametrize("actions", [DISCRETE, FACTORED])
def test_the_policy_is_the_softmax_of_q_and_its_mode_the_largest_q(actions):
    model, obs = filled_model(actions), th.randn(20, 3)
    masks = th.rand(20, model.branches.n) < 0.6
    masks[:, [0, -1]] = True
    reference = Reference(model, model.critic, obs, masks)
    parts = model.policy.get_distribution(obs, masks.numpy())
    parts = getattr(parts, "distributions", None) or [parts.distribution]
    joint = parts[0].probs
    for part in parts[1:]:
        joint = (joint[:, :, None] * part.probs[:, None, :]).flatten(1)
    np.testing.assert_allclose(joint.detach().numpy(), reference.pi, atol=1e-5)
    best, _ = model.predict(obs.numpy(), deterministic=True, action_masks=masks.numpy())
    np.testing.assert_array_equal(best.reshape(20, -1), np.array(reference.actions)[reference.q.argmax(axis=1)])
    drawn = [model.predict(obs[:1].numpy(), action_masks=masks[:1].numpy())[0].reshape(-1) for _ in range(600)]
    frequencies = [np.mean([(each == action).all() for each in drawn]) for action in reference.actions]
    np.testing.assert_allclose(frequencies, reference.pi[0], atol=0.08)


def test_masks_hold_at_any_temperature():
    """The logit of an allowed action, Q / alpha, may be far below what stands for a forbidden one."""
    model = make_model(random_envs(DiscreteSQL, masked=True), ent_coef=1e-9)
    q, masks = th.tensor([[-5.0, 3.0, -7.0], [-2e3, 1e3, -3e3]]), th.tensor([[True, False, True]]).expand(2, 3)
    np.testing.assert_array_equal(model.policy.log_softmax(q, masks).exp(), [[1, 0, 0]] * 2)
    model.learn(40)  # raises an error if a loss is not finite


def test_the_policy_follows_the_temperature(tmp_path):
    """Fixed, set, learned, scheduled, loaded, loaded with another one: the policy always acts with the current temperature."""

    def act(policy):
        return policy.log_probs(th.ones(1, 3)).exp()

    model = filled_model(ent_coef=0.5)
    warm = act(model.policy)
    model.ent_coef = 1e-3
    train(model)
    assert act(model.policy).max() > 0.99 > warm.max() and model.policy.alpha.item() == pytest.approx(1e-3)
    for ent_coef in ("auto_0.5", lambda left: 0.1 + left):
        model.ent_coef = ent_coef
        train(model, 2)
        assert model.policy.alpha.item() == model.temperature.alpha.item() != 0.5
    assert model.policy.alpha.item() == pytest.approx(0.1 + model._current_progress_remaining)
    path = saved(filled_model(ent_coef="auto_0.5").learn(5), tmp_path)
    loaded = DiscreteSQL.load(path)
    assert loaded.policy.alpha.item() == loaded.temperature.alpha.item() == pytest.approx(0.5)
    assert DiscreteSQL.load(path, ent_coef=0.2).policy.alpha.item() == pytest.approx(0.2)
    loaded.policy.save(tmp_path / "policy")
    assert th.equal(act(type(loaded.policy).load(tmp_path / "policy")), act(loaded.policy))


def test_a_learned_temperature_reaches_the_target_entropy():
    model = filled_model(ent_coef="auto_0.01", target_entropy="ratio_0.5", learning_rate=0.03, gamma=0.0)
    logged = {}
    model.logger.record = lambda name, value, exclude=None: logged.update({name: value})
    for _ in range(4):
        model.train(200, 32)
    assert logged["train/entropy_ratio"] == pytest.approx(0.5, abs=0.1)
    assert logged["train/target_entropy_ratio"] == pytest.approx(0.5)


def test_there_is_no_actor():
    model = make_model()
    assert not hasattr(model.policy, "actor")
    held = [parameter for group in model.policy.optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len([*model.critic.parameters()]) and all(map(th.equal, held, model.critic.parameters()))
    assert th.equal(flat(model.critic), flat(model.critic_target))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (dict(ent_coef=0.0), ValueError, "ent_coef.* greater than 0"),
        (dict(policy_kwargs=dict(net_arch=dict(pi=[4], qf=[4]))), ValueError, "net_arch must be a list of integers"),
        (dict(policy_kwargs=dict(share_features_extractor=True)), ValueError, "no argument 'share_features_extractor'"),
        (dict(env="Pendulum-v1"), AssertionError, "Expected Discrete"),
    ],
)
def test_wrong_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        make_model(**kwargs)
