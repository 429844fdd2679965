"""What C reads is what the replay buffer's ``sample`` gives; whatever is not the default buffer is asked itself."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_softac import SoftAC_v1
from sb3_softac.engines.native.direct_batch import DirectBatch
from sb3_softac.replay.batch import Batch, make_batch
from sb3_softac.replay.buffer import SoftReplayBuffer, with_extras
from tests.engines.native.helpers import make_model

BOX, GAMMA = spaces.Box(-1.0, 1.0, (3,)), 0.9
EXTRAS = {"masks": ((2,), bool), "next_masks": ((2,), bool)}


def add(buffer, number):
    n, rng = buffer.n_envs, np.random.default_rng(buffer.n_added)
    for _ in range(number):
        columns = {name: rng.random((n, 2)) < 0.5 for name in EXTRAS}
        obs, next_obs = rng.uniform(-1, 1, (2, n, 3)).astype(np.float32)
        infos = with_extras([{"TimeLimit.truncated": bool(rng.random() < 0.5)} for _ in range(n)], columns)
        buffer.add(obs, next_obs, rng.uniform(-1, 1, (n, 2)), rng.random(n), rng.random(n) < 0.3, infos)


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_same_batches_as_the_buffer(n_steps, n_envs):
    """Also once the buffer has gone round."""
    buffer = SoftReplayBuffer(
        20 * n_envs, BOX, spaces.Box(-1.0, 1.0, (2,)), "cpu", n_envs, n_steps=n_steps, gamma=GAMMA, extras=EXTRAS
    )
    direct = DirectBatch(buffer, 64)
    for number in (5, 40):
        add(buffer, number)
        if not direct.is_for(buffer, 64):  # its memory has grown
            direct = DirectBatch(buffer, 64)
        np.random.seed(number)
        mine = direct.fill(GAMMA)
        np.random.seed(number)
        theirs = make_batch(buffer.sample(64), GAMMA)
        for name in Batch._fields:
            a, b = getattr(mine, name), getattr(theirs, name)
            for key in EXTRAS if name == "extras" else ("",):
                x, y = (a[key], b[key]) if key else (a, b)
                assert x.dtype == y.dtype
                th.testing.assert_close(x, y, rtol=0, atol=0)


def test_memory_stays_where_it_is():
    """So that its addresses are given to C once."""
    model = make_model(SoftAC_v1)
    engine = model.engines[0]
    first, second = engine.sample(8), engine.sample(8)
    assert first is second
    assert model.replay_buffer.sample(8).observations.data_ptr() != first.obs.data_ptr()


@pytest.mark.parametrize("change", ["method of the object", "method of the class", "array", "SB3's"])
def test_changed_buffers(monkeypatch, change):
    model = make_model(SoftAC_v1, **({"replay_buffer_class": ReplayBuffer} if change == "SB3's" else {}))
    engine, buffer = model.engines[0], model.replay_buffer
    before = engine.sample(8)
    if change.startswith("method"):
        sample = SoftReplayBuffer.sample

        def replaced(self, *args, **kwargs):
            return sample(self, *args, **kwargs)._replace(rewards=th.full((8, 1), 7.0))

        if change.endswith("class"):
            monkeypatch.setattr(SoftReplayBuffer, "sample", replaced)
        else:
            buffer.sample = lambda *args, **kwargs: replaced(buffer, *args, **kwargs)
        assert (engine.sample(8).rewards == 7.0).all()
    elif change == "array":
        buffer.actions = np.full_like(buffer.actions, 0.5)
        assert (engine.sample(8).actions == 0.5).all()
    else:
        assert engine.sample(8) is not before
