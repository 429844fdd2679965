import copy

import pytest
import torch as th

from sb3_softac.common.optimizers import QuickAdam, make_optimizer, step_if


def parameter_with_gradient():
    parameter = th.nn.Parameter(th.ones(3))
    parameter.grad = th.full((3,), 2.0)
    return parameter


@pytest.mark.parametrize(
    ("optimizer_class", "kwargs", "fused"),
    [
        (th.optim.Adam, {}, True),
        (th.optim.AdamW, {"weight_decay": 0.1}, True),
        (th.optim.Adam, {"fused": False}, False),
        (th.optim.Adam, {"foreach": True}, None),
        (th.optim.RMSprop, {}, None),
        (th.optim.SGD, {}, None),
    ],
)
def test_fused_by_default_and_withheld_on_demand(optimizer_class, kwargs, fused):
    parameter = parameter_with_gradient()
    optimizer = make_optimizer(optimizer_class, [parameter], 0.1, kwargs)
    assert optimizer.defaults.get("fused") is fused
    step_if(optimizer, th.tensor(1.0))
    after_one = parameter.detach().clone()
    assert not th.equal(after_one, th.ones(3))
    state = copy.deepcopy(optimizer.state_dict()["state"])
    step_if(optimizer, th.tensor(0.0))
    assert th.equal(parameter, after_one)
    for key, value in optimizer.state_dict()["state"].get(0, {}).items():
        assert value is None or th.equal(th.as_tensor(value), th.as_tensor(state[0][key])), key
    step_if(optimizer, th.tensor(1.0))
    assert not th.equal(parameter, after_one)


def test_fused_equals_the_plain_adam():
    fused, plain = parameter_with_gradient(), parameter_with_gradient()
    for parameter, kwargs in ((fused, {}), (plain, {"fused": False})):
        optimizer = make_optimizer(th.optim.Adam, [parameter], 0.1, kwargs)
        for _ in range(5):
            step_if(optimizer, th.tensor(1.0))
    th.testing.assert_close(fused, plain)


def trained(optimizer_class, steps=6, **kwargs):
    """:return: Parameters and state after steps, one of them withheld and one without a gradient for the second parameter."""
    th.manual_seed(0)
    parameters = [th.nn.Parameter(th.randn(4, 3)), th.nn.Parameter(th.randn(2))]
    optimizer = optimizer_class(parameters, lr=0.1, fused=True, **kwargs)
    for step in range(steps):
        optimizer.zero_grad()
        loss = (parameters[0] ** 2).sum() + (0.0 if step == 3 else (parameters[1] ** 4).sum())
        loss.backward()
        step_if(optimizer, th.tensor(float(step != 2)))
    return parameters, optimizer


@pytest.mark.parametrize(
    "kwargs", [{}, dict(betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1), dict(maximize=True), dict(amsgrad=True)]
)
def test_quick_adam_is_adam(kwargs):
    (ours, our_optimizer), (theirs, their_optimizer) = (trained(cls, **kwargs) for cls in (QuickAdam, th.optim.Adam))
    assert all(th.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    states = [optimizer.state_dict()["state"] for optimizer in (our_optimizer, their_optimizer)]
    th.testing.assert_close(*states, rtol=0, atol=0)
    assert [states[0][place]["step"].item() for place in (0, 1)] == [5.0, 4.0]


def test_quick_adam_takes_the_quick_way(monkeypatch):
    """From the second step on PyTorch's own is not asked."""
    (parameter, _), optimizer = trained(QuickAdam)
    monkeypatch.setattr(th.optim.Adam, "step", None)
    before = parameter.detach().clone()
    step_if(optimizer, th.tensor(1.0))
    assert not th.equal(parameter, before)


def test_quick_adam_loads_saved_states_and_new_learning_rates():
    (parameter, _), optimizer = trained(QuickAdam)
    other = QuickAdam([th.nn.Parameter(parameter.detach().clone()), th.nn.Parameter(th.zeros(2))], lr=0.3, fused=True)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twin = other.param_groups[0]["params"][0]
    twin.grad = parameter.grad.clone()
    for each in (optimizer, other):
        each.param_groups[0]["lr"] = 0.5
        each.step()
    assert th.equal(twin, parameter)


def test_quick_adam_clears_gradients_and_obeys_a_closure():
    (parameter, _), optimizer = trained(QuickAdam)
    optimizer.zero_grad(set_to_none=False)
    assert th.equal(parameter.grad, th.zeros(4, 3))
    optimizer.zero_grad()
    assert parameter.grad is None
    optimizer.found_inf = None

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    closure()
    before = parameter.detach().clone()
    assert optimizer.step(closure).item() == (before**2).sum().item()
    assert not th.equal(parameter, before)
