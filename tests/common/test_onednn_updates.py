"""Training with oneDNN's products is training with PyTorch's, up to rounding."""

import pytest
import torch as th

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.nets import mlp
from tests.common.test_graph_steps import learn, make_model

pytestmark = pytest.mark.skipif(not mlp.AVAILABLE, reason="PyTorch without oneDNN")


@pytest.mark.parametrize("algorithm", [SoftAC_v1, SQL, DiscreteSAC])
@pytest.mark.parametrize(("updates", "tolerance"), [(1, 1e-5), (100, 2e-3)])
def test_same_parameters(monkeypatch, algorithm, updates, tolerance):
    """Adam divides a gradient by its size, so that rounding grows where it is almost 0; 2e-3 is 7 steps of 3e-4."""
    policies = []
    for large in (0, 1 << 62):
        monkeypatch.setattr(mlp, "LARGE", 1 << 62)
        model = make_model(algorithm, False, policy_kwargs=dict(net_arch=[32, 32]))
        learn(model, 5)
        model.set_random_seed(2)
        monkeypatch.setattr(mlp, "LARGE", large)
        model.train(updates, 32)
        policies.append(model.policy)
    for mine, other in zip(*(policy.parameters() for policy in policies), strict=True):
        th.testing.assert_close(mine, other, rtol=0, atol=tolerance)
    assert any(not th.equal(mine, other) for mine, other in zip(*(policy.parameters() for policy in policies), strict=True))
