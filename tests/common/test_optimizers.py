import copy

import pytest
import torch as th

from sb3_softac.common.optimizers import make_optimizer, step_if


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
