"""What only a GPU can show: ``TEST_GPU=0 python -m pytest tests/engines/cuda_graphs``."""

import gc

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

from sb3_softac import SoftAC_v1
from tests.engines.cuda_graphs.capturers import DEVICE
from tests.engines.cuda_graphs.helpers import ALGORITHMS, capturer_of, engine_of, learn, make_model
from tests.resume.test_exact import check, maker

pytestmark = pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU and TEST_GPU=0")


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_file_goes_on_on_any_device(algorithm, graphs, tmp_path, recwarn):
    """With the states of the optimizers."""
    model = learn(make_model(algorithm, False, cuda_graphs=graphs, ent_coef="auto"), 20)
    assert (engine_of(model) is not None) == graphs
    observations = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    for device in ("cpu", "cuda"):
        model.save(tmp_path / "model.zip")
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        loaded = algorithm.load(tmp_path / "model.zip", env=model.get_env(), device=device)
        loaded.load_replay_buffer(tmp_path / "buffer.pkl")
        mine, theirs = (each.predict(observations, deterministic=True)[0] for each in (model, loaded))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        n_updates = loaded._n_updates
        model = learn(loaded, 10, reset_num_timesteps=False)
        assert model._n_updates > n_updates and model.device.type == device
    assert len(recwarn) == graphs  # that there are no graphs on a CPU
    assert not graphs or not engine_of(model).given_up


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resumed_exactly(algorithm, graphs, tmp_path):
    check(maker(algorithm, device="cuda", cuda_graphs=graphs), tmp_path)


@pytest.mark.parametrize("algorithm", [SoftAC_v1, SAC])
def test_gsde_is_resumed_exactly(algorithm, tmp_path):
    check(maker(algorithm, device="cuda", use_sde=True), tmp_path)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_repeated(algorithm):
    """Same seed, same result."""
    runs = [learn(make_model(algorithm, False, cuda_graphs=True), 30) for _ in range(2)]
    for mine, theirs in zip(*(run.policy.parameters() for run in runs), strict=True):
        assert th.equal(mine, theirs)


def test_earlier_models_are_freed_at_any_time():
    """To destroy the graphs of one in the midst of a capture would end the capture."""
    threshold = gc.get_threshold()
    learn(make_model(ALGORITHMS[0], True), 20)  # garbage, in cycles
    model = make_model(ALGORITHMS[0], True)
    gc.set_threshold(1)
    try:
        learn(model, 20)
    finally:
        gc.set_threshold(*threshold)
    assert not engine_of(model).given_up and capturer_of(model).captures == 1
