"""One gradient step of DiscreteSAC under the microscope, and what a training keeps from one step to the next."""

import math
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_softac import DiscreteSAC
from sb3_softac.replay.batch import make_batch
from sb3_softac.replay.buffer import SoftReplayBufferSamples
from tests.toys import flat

OBS, HIDDEN, BATCH, GAMMA = 4, 6, 32, 0.9
DISCRETE, FACTORED = spaces.Discrete(3), spaces.MultiDiscrete([2, 3])


class Noise(gym.Env):
    """Random observations; the reward is the first of them, an episode takes seven steps."""

    def __init__(self, action_space=DISCRETE):
        self.observation_space, self.action_space = spaces.Box(-5, 5, (OBS,), np.float32), action_space

    def observe(self):
        return self.np_random.uniform(-1, 1, OBS).astype(np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        obs = self.observe()
        return obs, float(obs[0]), self.steps == 7, False, {}


def make_model(action_space=DISCRETE, **kwargs) -> DiscreteSAC:
    policy_kwargs = dict(net_arch=[HIDDEN], optimizer_class=th.optim.SGD, **kwargs.pop("policy_kwargs", {}))
    given = dict(ent_coef=0.3, gamma=GAMMA, batch_size=16, learning_starts=10, buffer_size=500, seed=0, device="cpu")
    model = DiscreteSAC("MlpPolicy", Noise(action_space), policy_kwargs=policy_kwargs, **{**given, **kwargs})
    model.set_logger(Logger(None, []))
    return model


def filled_model(**kwargs) -> DiscreteSAC:
    model = make_model(**{"learning_starts": 60, **kwargs})
    model.learn(60)
    model.set_logger(Logger(None, []))
    return model


def draw_masks(sizes) -> th.Tensor:
    """One option of each branch is always allowed; the others half the time."""
    masks = [(th.rand(BATCH, n) < 0.5) | nn.functional.one_hot(th.randint(n, (BATCH,)), n).bool() for n in sizes]
    return th.cat(masks, dim=1)


def make_samples(model, masked=False, discounts=False, **replaced) -> SoftReplayBufferSamples:
    th.manual_seed(3)
    sizes, extras = model.branches.sizes, {"old_entropy": th.rand(BATCH)}
    if masked:
        extras |= {"action_masks": draw_masks(sizes), "next_action_masks": draw_masks(sizes)}
    columns = dict(
        observations=th.randn(BATCH, OBS),
        actions=th.stack([th.randint(n, (BATCH,)) for n in sizes], dim=1),
        next_observations=th.randn(BATCH, OBS),
        dones=(th.rand(BATCH, 1) < 0.3).float(),
        rewards=3.0 * th.randn(BATCH, 1),
        discounts=th.rand(BATCH, 1) if discounts else None,
        extras=extras,
    )
    return SoftReplayBufferSamples(**{**columns, **replaced})


def spread(model) -> None:
    """Move the networks away from their small initial outputs, and the target away from the critics."""
    th.manual_seed(4)
    with th.no_grad():
        for network in (model.actor, model.critic, model.critic_target):
            for parameter in network.parameters():
                parameter.copy_(th.randn_like(parameter))


class Reference:
    """The losses once more, from torch alone: a layer at a time, a branch at a time, a transition at a time."""

    def __init__(self, model):
        self.sizes = [int(n) for n in getattr(model.action_space, "nvec", [getattr(model.action_space, "n", 0)])]
        actor = model.actor.logits
        self.actor = self.mlp([(actor[0].weight, actor[0].bias), (actor[2].weight, actor[2].bias)])
        self.critics, self.targets = (
            [
                self.mlp([(layer.weight[i].T, layer.bias[i, 0]) for layer in network.q_networks.layers])
                for i in range(model.critic.n_critics)
            ]
            for network in (model.critic, model.critic_target)
        )

    @staticmethod
    def mlp(parameters) -> nn.Sequential:
        linear = []
        for weight, bias in parameters:
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().clone()
            linear.append(layer)
        return nn.Sequential(linear[0], nn.ReLU(), linear[1])

    def branches(self, network, obs, divide):
        """Outputs for each branch; Q-values are means over branches, so theirs are divided."""
        return network(obs).div(len(self.sizes) if divide else 1).split(self.sizes)

    def policies(self, obs, mask):
        mask = th.ones(sum(self.sizes), dtype=th.bool) if mask is None else mask
        logits = self.branches(self.actor, obs, divide=False)
        return [
            th.where(allowed, th.exp(x - x[allowed].logsumexp(0)), 0.0)
            for x, allowed in zip(logits, mask.split(self.sizes), strict=True)
        ]

    @staticmethod
    def entropy(policies):
        return sum(-(p[p > 0] * p[p > 0].log()).sum() for p in policies)

    def aggregated(self, networks, obs, aggregation, policies):
        values = [self.branches(network, obs, divide=True) for network in networks]
        if aggregation == "mean":
            return [th.stack(options).mean(0) for options in zip(*values, strict=True)]
        if len(self.sizes) == 1:
            return [th.stack([branches[0] for branches in values]).min(0).values]
        # the critic that expects least of the policy
        return min(values, key=lambda branches: sum((p * q).sum().item() for p, q in zip(policies, branches, strict=True)))

    def losses(self, batch, alpha, aggregation="min", scale=1.0, ratio=0.98, q_clip=None, penalty=0.0):
        masks = [batch.extras.get(name, [None] * BATCH) for name in ("action_masks", "next_action_masks")]
        targets, actor, entropies, largest, penalties = [], [], [], [], []
        for i in range(BATCH):
            next_policies = self.policies(batch.next_observations[i], masks[1][i])
            q_next = self.aggregated(self.targets, batch.next_observations[i], aggregation, next_policies)
            value = sum((p * q).sum() for p, q in zip(next_policies, q_next, strict=True))
            value = value + scale * alpha * self.entropy(next_policies)
            discount = GAMMA if batch.discounts is None else batch.discounts[i, 0]
            targets.append((batch.rewards[i, 0] + (0.0 if batch.dones[i, 0] else discount * value)).detach())
            policies = self.policies(batch.observations[i], masks[0][i])
            entropies.append(self.entropy(policies))
            q = self.aggregated(self.critics, batch.observations[i], aggregation, policies)
            expected_q = sum((p * x.detach()).sum() for p, x in zip(policies, q, strict=True))
            actor.append(-expected_q - alpha * entropies[-1])
            allowed = [th.ones(n) for n in self.sizes] if masks[0][i] is None else masks[0][i].split(self.sizes)
            largest.append(sum(math.log(options.sum()) for options in allowed))
            penalties.append(penalty * 0.5 * (entropies[-1] - batch.extras["old_entropy"][i]) ** 2)
        clip = None if q_clip is None else q_clip * math.sqrt(sum(target.item() ** 2 for target in targets) / BATCH)
        errors = []
        for network, old in zip(self.critics, self.targets, strict=True):
            for i, target in enumerate(targets):
                chosen = list(enumerate(batch.actions[i]))
                q = sum(self.branches(network, batch.observations[i], divide=True)[b][a] for b, a in chosen)
                error = (q - target) ** 2
                if clip is not None:
                    q_old = sum(self.branches(old, batch.observations[i], divide=True)[b][a] for b, a in chosen).detach()
                    error = max(error, (q_old + (q - q_old).clamp(-clip, clip) - target) ** 2)
                errors.append(0.5 * error / BATCH)
        gap = sum(h.item() - ratio * m for h, m in zip(entropies, largest, strict=True)) / BATCH
        return {
            "critic_loss": sum(errors),
            "actor_loss": sum(actor) / BATCH,
            "entropy_penalty": sum(penalties) / BATCH,
            "gap": gap,
            "entropy": sum(entropies) / BATCH,
            "q_mean": sum(targets) / BATCH,
            "entropy_ratio": sum(entropies) / sum(largest),
        }

    def assert_same_gradients(self, model):
        (w1, b1), (w2, b2) = ((layer.weight.grad, layer.bias.grad) for layer in model.critic.q_networks.layers)
        for i, critic in enumerate(self.critics):
            ours = [w1[i].T, b1[i, 0], w2[i].T, b2[i, 0]]
            for gradient, parameter in zip(ours, critic.parameters(), strict=True):
                assert parameter.grad.any()
                th.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(model.actor.logits.parameters(), self.actor.parameters(), strict=True):
            assert theirs.grad.any()
            th.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


CASES = [
    dict(),
    dict(action_space=FACTORED),
    dict(masked=True),
    dict(action_space=FACTORED, masked=True),
    dict(action_space=FACTORED, q_aggregation="mean", masked=True, discounts=True),
    dict(q_aggregation="mean", critic_ent_coef_scale=0.5),
    dict(critic_ent_coef_scale=0.0, discounts=True),
    dict(stable_kwargs=dict(q_clip=0.2)),
    dict(action_space=FACTORED, stable_kwargs=dict(q_clip=0.3, entropy_penalty=0.7), masked=True),
    dict(policy_kwargs=dict(n_critics=3), target_entropy="ratio_0.4", masked=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case) or "default")
def test_update_equals_a_plain_reference(case):
    case, alpha, learning_rate = dict(case), 0.4, 0.01
    batch_kwargs = {name: case.pop(name, False) for name in ("masked", "discounts")}
    model = make_model(ent_coef="auto_0.4", learning_rate=learning_rate, **case)
    spread(model)
    batch, reference = make_samples(model, **batch_kwargs), Reference(model)
    stable = case.get("stable_kwargs", {})
    expected = reference.losses(
        batch,
        alpha,
        case.get("q_aggregation", "min"),
        case.get("critic_ent_coef_scale", 1.0),
        ratio=0.4 if "target_entropy" in case else 0.98,
        q_clip=stable.get("q_clip"),
        penalty=stable.get("entropy_penalty", 0.0),
    )
    (expected["critic_loss"] + expected["actor_loss"] + expected["entropy_penalty"]).backward()
    before = {name: flat(getattr(model, name)) for name in ("actor", "critic", "critic_target")}
    logs = model._update(make_batch(batch, GAMMA))

    reference.assert_same_gradients(model)
    for name in ("actor", "critic"):  # one step of SGD
        gradient = th.cat([parameter.grad.flatten() for parameter in getattr(model, name).parameters()])
        th.testing.assert_close(flat(getattr(model, name)), before[name] - learning_rate * gradient)
    assert th.equal(flat(model.critic_target), before["critic_target"])
    assert model.log_ent_coef.grad.item() == pytest.approx(expected["gap"], rel=1e-4, abs=1e-6)
    names = ["critic_loss", "actor_loss", "entropy", "q_mean", "entropy_ratio"]
    names += ["entropy_penalty"] if "entropy_penalty" in stable else []
    for name in names:
        assert logs[name].item() == pytest.approx(expected[name].item(), rel=1e-4), name
    assert logs["ent_coef_loss"].item() == pytest.approx(math.log(alpha) * expected["gap"], rel=1e-4)
    assert logs["ent_coef"].item() == pytest.approx(alpha)
    assert ("entropy_penalty" in logs) is ("entropy_penalty" in stable)


def test_the_cases_make_a_difference():
    """Each option moves the loss of the same batch by ten times the tolerance of the comparison above."""
    model = make_model()
    spread(model)
    plain, masked, reference = make_samples(model), make_samples(model, masked=True), Reference(model)
    base = reference.losses(plain, 0.4)["critic_loss"].item()
    for options in (dict(aggregation="mean"), dict(scale=0.5), dict(scale=0.0), dict(q_clip=0.2)):
        assert reference.losses(plain, 0.4, **options)["critic_loss"].item() != pytest.approx(base, rel=1e-3)
    assert reference.losses(masked, 0.4)["critic_loss"].item() != pytest.approx(base, rel=1e-3)


class LinearExtractor(BaseFeaturesExtractor):
    """An extractor with parameters."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 5)
        self.layer = nn.Linear(OBS, 5)

    def forward(self, observations):
        return th.tanh(self.layer(observations))


@pytest.mark.parametrize("loss", ["actor_loss", "critic_loss", "ent_coef_loss", "entropy_penalty"])
def test_the_critic_loss_alone_trains_a_shared_features_extractor(loss, monkeypatch):
    policy_kwargs = dict(features_extractor_class=LinearExtractor, share_features_extractor=True)
    model = make_model(ent_coef="auto_0.4", stable_kwargs=dict(entropy_penalty=1.0, q_clip=0.5), policy_kwargs=policy_kwargs)
    seen = {}
    with monkeypatch.context() as patch:
        patch.setattr(model, "_minimize", lambda losses: seen.update(losses) or {})
        model._update(make_batch(make_samples(model), GAMMA))
    model._minimize({loss: seen[loss]})
    critic = [*model.critic.q_networks.parameters(), *model.critic.features_extractor.parameters()]
    owners = {"critic_loss": critic, "ent_coef_loss": [model.log_ent_coef]}
    own = {id(parameter) for parameter in owners.get(loss, model.actor.logits.parameters())}
    everything = [*model.policy.parameters(), model.log_ent_coef]
    for parameter in everything:
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached is (id(parameter) in own)
    assert len({id(parameter) for parameter in everything} & own) == len(own)


def with_logits(model, *logits) -> DiscreteSAC:
    """Give every state the same policy."""
    with th.no_grad():
        model.actor.logits[-1].weight.zero_()
        model.actor.logits[-1].bias.copy_(th.tensor(logits))
    return model


@pytest.mark.parametrize("action_space", [DISCRETE, FACTORED])
def test_target_entropy_of_each_state_counts_its_allowed_actions(action_space, monkeypatch):
    """A policy that is uniform over what is allowed has ratio 1 in every state, a target of ratio 1 leaves alpha alone."""
    for ratio, gap in (("ratio_1.0", 0.0), ("ratio_0.5", 0.5)):
        model = make_model(action_space, ent_coef="auto_0.4", target_entropy=ratio)
        with_logits(model, *[0.0] * model.branches.n)
        batch = make_samples(model, masked=True)
        counts = [mask.sum(1) for mask in batch.extras["action_masks"].split(model.branches.sizes, dim=1)]
        largest = sum(count.log() for count in counts).mean().item()
        assert largest < model.branches.max_entropy - 0.1
        logs = model._update(make_batch(batch, GAMMA))
        assert model.log_ent_coef.grad.item() == pytest.approx(gap * largest, abs=1e-5)
        assert logs["entropy_ratio"].item() == pytest.approx(1.0, abs=1e-5)


def test_states_without_a_choice_are_no_obstacle():
    """Where every mask of a batch leaves one action, entropies and their largest value are 0."""
    model = make_model(ent_coef="auto", target_entropy=dict(schedule="drop", timeout=1))
    only = th.tensor([False, True, False]).expand(BATCH, 3)
    batch = make_samples(model, extras={"action_masks": only, "next_action_masks": only})
    model.replay_buffer.sample = Mock(return_value=batch)
    model.train(gradient_steps=2)
    assert all(flat(network).isfinite().all() for network in (model.actor, model.critic))


def test_the_replay_buffer_keeps_the_entropy_of_the_policy_that_acted():
    """Uniform at first, then that of the actor, which does not change here."""
    model = make_model(FACTORED, stable_kwargs=dict(entropy_penalty=0.5), random_steps=20, learning_rate=0.0)
    spread(model)
    model.learn(40)
    kept, obs = model.replay_buffer.extras["old_entropy"][:40, 0], model.replay_buffer.observations[:40, 0]
    reference = Reference(model)
    acted = [reference.entropy(reference.policies(th.tensor(row), None)).item() for row in obs[20:]]
    np.testing.assert_allclose(kept, [math.log(6)] * 20 + acted, rtol=1e-4)


@pytest.mark.parametrize("schedule", [dict(schedule="drop", timeout=4, decay=0.9), dict(schedule="linear")])
def test_loading_and_continuing_equals_not_stopping(schedule, tmp_path):
    """10 + 10 gradient steps with a file in between; a schedule that drops goes on from where it was, mid-way to a drop."""
    kwargs = dict(ent_coef="auto_0.5", target_entropy=schedule, learning_rate=0.01, target_update_interval=3)
    model = filled_model(**kwargs)
    model._current_progress_remaining = 0.6
    model.train(gradient_steps=10, batch_size=16)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = DiscreteSAC.load(tmp_path / "model", env=Noise())
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.set_logger(Logger(None, []))
    assert loaded.entropy_target.state() == model.entropy_target.state()
    for each in (model, loaded):
        np.random.seed(5)
        th.manual_seed(5)
        each.train(gradient_steps=10, batch_size=16)
    for name in ("actor", "critic", "critic_target"):
        assert th.equal(flat(getattr(model, name)), flat(getattr(loaded, name)))
    assert model.temperature.alpha == loaded.temperature.alpha
    assert model.entropy_target.state() == loaded.entropy_target.state()
    ratio = {"drop": 0.98 * 0.9**5, "linear": 0.98 + 0.4 * (0.3 - 0.98)}[schedule["schedule"]]
    assert loaded.entropy_target.ratio.item() == pytest.approx(ratio) == model.entropy_target.ratio.item()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(critic_ent_coef_scale=1.5), r"critic_ent_coef_scale must be a number in \[0, 1\].*1\.5"),
        (dict(critic_ent_coef_scale=-0.1), "critic_ent_coef_scale must be"),
        (dict(q_aggregation="max"), "q_aggregation must be 'min' .* or 'mean', got 'max'"),
        (dict(stable_kwargs=dict(q_clp=0.5)), "unknown option 'q_clp'"),
        (dict(stable_kwargs=dict(q_clip=0.0)), "q_clip must be a finite number greater than 0"),
        (dict(stable_kwargs=dict(entropy_penalty=float("nan"))), "entropy_penalty must be a finite number greater than 0"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


def test_a_replay_buffer_without_entropies_is_refused_with_the_penalty(tmp_path):
    make_model().save_replay_buffer(tmp_path / "buffer")
    model = make_model(stable_kwargs=dict(entropy_penalty=0.5))
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="start with an empty replay buffer"):
        model.learn(10)
