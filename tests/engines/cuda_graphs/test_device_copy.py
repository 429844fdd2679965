"""The copy of the replay buffer gives what the buffer gives."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_softac.engines.cuda_graphs.device_copy import DeviceCopy, DrawnBatches
from sb3_softac.replay.buffer import SoftReplayBuffer, with_extras
from tests.engines.cuda_graphs.capturers import DEVICE
from tests.engines.cuda_graphs.helpers import OBSERVATIONS

DEVICE_OF_COPY = th.device(DEVICE)
EXTRAS = {"mask": ((2,), bool), "next_mask": ((2,), bool), "number": ((), np.float64)}


def make_buffer(kind="vector", n_envs=2, **kwargs):
    return SoftReplayBuffer(8 * n_envs, OBSERVATIONS[kind], spaces.Box(-1, 1, (2,)), DEVICE, n_envs, **kwargs)


def sample_space(space, n_envs):
    if isinstance(space, spaces.Dict):
        return {key: sample_space(part, n_envs) for key, part in space.items()}
    return np.stack([space.sample() for _ in range(n_envs)])


def add(buffer, number, new_episodes=0.3):
    n_envs, rng = buffer.n_envs, np.random.default_rng(buffer.n_added)
    for _ in range(number):
        extras = {name: rng.random(column.shape[1:]) for name, column in buffer.extras.items()}
        extras = {name: values < 0.5 if "mask" in name else values for name, values in extras.items()}
        observations = [sample_space(buffer.observation_space, n_envs) for _ in range(2)]
        dones = rng.random(n_envs) < new_episodes
        actions, rewards = rng.uniform(-1, 1, (n_envs, 2)), rng.random(n_envs)
        buffer.add(*observations, actions, rewards, dones, with_extras([{}] * n_envs, extras))


def sent(batches):
    return DrawnBatches(*(each.to(DEVICE_OF_COPY) for each in batches))


def assert_same_batches(buffer, copy):
    copy.update()
    np.random.seed(3)
    batches = sent(copy.on_host([buffer.draw(16) for _ in range(2)]))
    gathered = [copy.gather(batches, step) for step in range(2)]
    np.random.seed(3)
    for mine in gathered:
        theirs = buffer.sample(16)
        assert mine._fields[: len(theirs._fields)] == theirs._fields and (mine.extras == {} or mine._fields == theirs._fields)
        for name in theirs._fields:
            a, b = getattr(mine, name), getattr(theirs, name)
            if isinstance(a, th.Tensor):
                a, b = {"": a}, {"": b}
            assert (a is None) == (b is None)
            for key in a or {}:
                assert a[key].shape == b[key].shape
                th.testing.assert_close(a[key], b[key], rtol=0, atol=0)


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_same_batches_as_the_buffer(kind, n_steps):
    """More rows than the buffer has, and as many as go round."""
    buffer = make_buffer(kind, n_steps=n_steps, extras=EXTRAS)
    add(buffer, 2)
    copy = DeviceCopy(buffer, DEVICE_OF_COPY)
    for number in (0, 1, 3, 5, 8, 11):
        add(buffer, number)
        if not copy.follows(buffer):  # more memory was needed
            copy = DeviceCopy(buffer, DEVICE_OF_COPY)
        assert_same_batches(buffer, copy)


def test_ends_of_episodes_that_come_later():
    buffer = make_buffer(n_steps=3)
    add(buffer, 20, new_episodes=0.0)
    copy = DeviceCopy(buffer, DEVICE_OF_COPY)
    buffer.end_episodes()
    add(buffer, 2, new_episodes=0.0)
    assert copy.follows(buffer)
    assert buffer.draw(50).discounts.min() < buffer.draw(50).discounts.max()
    assert_same_batches(buffer, copy)


def test_networks_get_single_precision():
    buffer = make_buffer()
    buffer.keep_double_precision()
    add(buffer, 20)
    assert buffer.stores[""].pieces.dtype == np.float64
    copy = DeviceCopy(buffer, DEVICE_OF_COPY)
    add(buffer, 1)
    assert_same_batches(buffer, copy)
    samples = copy.gather(sent(copy.on_host([buffer.draw(4)])), 0)
    assert samples.observations.dtype == samples.next_observations.dtype == th.float32


def test_the_copy_keeps_its_memory():
    """Graphs read it where it is."""
    buffer = make_buffer(extras=EXTRAS)
    add(buffer, 20)
    copy = DeviceCopy(buffer, DEVICE_OF_COPY)

    def places():
        tensors = [*copy._pieces.values(), *copy._index.values(), *copy._extras.values(), copy._actions]
        return [tensor.data_ptr() for tensor in tensors]

    before = places()
    add(buffer, 20)
    assert copy.follows(buffer)
    copy.update()
    assert places() == before


def test_what_a_copy_does_not_follow():
    buffer = make_buffer()
    add(buffer, 4)
    copy = DeviceCopy(buffer, DEVICE_OF_COPY)
    assert copy.follows(buffer) and not copy.follows(make_buffer())
    buffer.reset()
    assert not copy.follows(buffer)


def test_size():
    buffer = make_buffer("dict", extras={"mask": ((2,), bool)})
    copy = DeviceCopy(buffer, DEVICE_OF_COPY)
    tensors = [*copy._pieces.values(), *copy._index.values(), *copy._extras.values(), copy._actions]
    assert DeviceCopy.size(buffer) == sum(tensor.nbytes for tensor in tensors)
