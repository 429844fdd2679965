"""One gradient step under the microscope."""

from unittest.mock import Mock

import pytest
import torch as th
from gymnasium.wrappers import TimeLimit
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_softac.algorithm.engine import StepResult
from sb3_softac.replay.batch import make_batch
from tests.softac_v1.helpers import ConstantReward, draw_batch, make_model
from tests.toys import assert_equal, flat, state_of


def filled_model(**kwargs):
    model = make_model(TimeLimit(ConstantReward(), 7), **kwargs)
    model.learn(20)
    return model


NETWORKS = ("actor", "critic", "value_net", "value_net_target")


def test_update_equals_a_plain_reference():
    """The losses, written out with SB3's ingredients and separate optimizers, give the same parameters after one step."""
    model, reference = filled_model(ent_coef=0.3), filled_model(ent_coef=0.3)
    batch = model.replay_buffer.sample(16)
    optimizers = [th.optim.Adam(getattr(reference, name).parameters(), lr=3e-4) for name in NETWORKS[:3]]
    for optimizer, other in zip(optimizers, [reference.policy.optimizer] * 3, strict=True):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter] = {k: v.clone() for k, v in other.state[parameter].items()}
    th.manual_seed(1)
    actions, log_pi = reference.actor.action_log_prob(batch.observations)
    q1, q2 = reference.critic(batch.observations, actions)
    soft_value = (th.min(q1, q2) - 0.3 * log_pi.reshape(-1, 1)).detach()
    with th.no_grad():
        target = batch.rewards + (1 - batch.dones) * reference.gamma * reference.value_net_target(batch.next_observations)
    actor_loss = (0.3 * log_pi.reshape(-1, 1) - th.min(q1, q2)).mean()
    v_loss = 0.5 * th.nn.functional.mse_loss(reference.value_net(batch.observations), soft_value)
    critic_loss = 0.5 * sum(th.nn.functional.mse_loss(q, target) for q in reference.critic(batch.observations, batch.actions))
    for loss, name in zip((actor_loss, critic_loss, v_loss), NETWORKS[:3], strict=True):
        gradients = th.autograd.grad(loss, list(getattr(reference, name).parameters()), retain_graph=True)
        for parameter, gradient in zip(getattr(reference, name).parameters(), gradients, strict=True):
            parameter.grad = gradient
    for optimizer in optimizers:
        optimizer.step()

    th.manual_seed(1)
    logs = model._update(make_batch(batch, model.gamma))
    for name in NETWORKS[:3]:
        th.testing.assert_close(flat(getattr(model, name)), flat(getattr(reference, name)), rtol=1e-5, atol=1e-6)
    for name, loss in (("actor_loss", actor_loss), ("critic_loss", critic_loss), ("value_loss", v_loss)):
        assert logs[name].item() == pytest.approx(loss.item(), rel=1e-5)
    assert logs["entropy"].item() == pytest.approx(-log_pi.mean().item(), rel=1e-5)


def test_actor_q_first_ignores_the_other_critic(monkeypatch):
    losses = {}
    for actor_q in ("min", "first"):
        model = filled_model(actor_q=actor_q)
        # Lift the second critic: the smaller one is then the first
        model.critic.q_networks.layers[-1].bias.data[1] += 100.0
        seen = {}
        monkeypatch.setattr(model, "_minimize", lambda given, seen=seen: seen.update(given) or {})
        for bias in (100.0, -300.0):  # ... and then sink it below
            th.manual_seed(0)
            model._update(draw_batch(model))
            losses[actor_q, bias] = seen["actor_loss"].item()
            model.critic.q_networks.layers[-1].bias.data[1] -= 300.0
    assert losses["first", 100.0] == pytest.approx(losses["first", -300.0], abs=1.0)
    assert losses["min", -300.0] > losses["min", 100.0] + 100.0


class HostReads(TorchDispatchMode):
    """Counts how often a tensor's value is asked for on the host."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is th.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("ent_coef", [0.2, "auto"])
def test_training_asks_the_device_for_nothing(ent_coef, monkeypatch):
    """On a GPU each question would make the host wait for all work queued so far. Logs are read when they are written."""
    model = filled_model(ent_coef=ent_coef)
    monkeypatch.setattr(model, "_logs_stay_on_device", lambda: True)
    with HostReads() as reads:
        model.train(gradient_steps=3, batch_size=16)
    assert reads.count == 0
    with HostReads() as reads:
        th.ones(()).item()
    assert reads.count == 1


def test_logged_values():
    model = filled_model(ent_coef="auto")
    model.train(gradient_steps=2, batch_size=16)
    names = {"actor_loss", "critic_loss", "value_loss", "ent_coef", "ent_coef_loss", "entropy", "q_mean", "v_mean"}
    logged = {key.removeprefix("train/"): value for key, value in model.logger.name_to_value.items() if "train/" in key}
    assert logged.keys() == names | {"n_updates", "learning_rate"}
    assert all(isinstance(value, float | int) for value in logged.values())
    assert logged["n_updates"] == model._n_updates


def test_optimizers_without_a_flag_are_not_stepped_either(monkeypatch):
    """The third of three batches holds a reward that is not a number; see tests/algorithm/test_not_finite.py."""
    kwargs = dict(ent_coef="auto", policy_kwargs=dict(net_arch=[16], optimizer_class=th.optim.RMSprop))
    model, twin = filled_model(**kwargs), filled_model(**kwargs)
    batches = [model.replay_buffer.sample(16) for _ in range(3)]
    poisoned = batches[2]._replace(rewards=th.full_like(batches[2].rewards, th.nan))
    for each, given in ((model, [*batches[:2], poisoned]), (twin, batches[:2])):
        monkeypatch.setattr(each.replay_buffer, "sample", Mock(side_effect=given))
        th.manual_seed(1)
        if each is twin:
            each.train(gradient_steps=2, batch_size=16)
            continue
        with pytest.raises(ValueError, match="critic_loss is nan at gradient step"):
            each.train(gradient_steps=3, batch_size=16)
    assert_equal(state_of(model), state_of(twin))


def test_logs_of_huge_values_are_finite():
    """Two values of 3e38 have a mean, though no sum in single precision."""
    model = filled_model()
    model.count_steps(StepResult(["critic_loss"], [], th.full((2, 1), 3e38)))
    model._flush_logs()
    assert model.logger.name_to_value["train/critic_loss"] == pytest.approx(3e38)
