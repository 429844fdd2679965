"""One agent on several processes: the same step as one process on the joined batch, and the same networks everywhere."""

import multiprocessing
import tempfile
import traceback

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import distributed as torch_distributed

from sb3_softac import SQL, SoftAC_v1
from sb3_softac.algorithm import distributed
from sb3_softac.replay.batch import Batch
from sb3_softac.resume import ExactCheckpoint
from tests.toys import ALGORITHMS, ENVIRONMENTS, OF_ALGORITHM, algorithms, is_discrete, step_in_pytorch

SMALL = dict(learning_starts=10, batch_size=8, buffer_size=200, policy_kwargs=dict(net_arch=[8]), device="cpu")
N = 2


def make(algorithm, seed=0, **kwargs):
    settings = {**SMALL, **OF_ALGORITHM.get(algorithm, {}), **kwargs}
    return algorithm("MlpPolicy", gym.make(ENVIRONMENTS[algorithm]), seed=seed, **settings)


def everything(model):
    """As arrays: tensors would be shared with a process that has ended."""
    state = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    moments = model.policy.optimizer.state_dict()["state"]
    state |= {f"{k} {name}": tensor.clone() for k, of_k in moments.items() for name, tensor in of_k.items()}
    state |= {f"temperature {k}": tensor for k, tensor in enumerate(model.temperature.parameters())}
    return {name: tensor.detach().numpy().copy() for name, tensor in state.items()}


def _process(rank, meeting, function, arguments, queue):
    try:
        th.set_num_threads(1)
        torch_distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=N)
        queue.put((rank, function(rank, *arguments), ""))
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))


def on_all(function, *arguments, fails=False):
    """:return: What the function gave in each process, or its traceback where it failed."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"{folder}/meeting", function, arguments, queue)
        processes = [context.Process(target=_process, args=(rank, *arguments)) for rank in range(N)]
        for process in processes:
            process.start()
        answers = dict((rank, (answer, error)) for rank, answer, error in (queue.get(timeout=300) for _ in processes))
        for process in processes:
            process.join(30)
            process.kill()
    if fails:
        return [answers[rank][1] for rank in range(N)]
    assert not any(error for _, error in answers.values()), answers
    return [answers[rank][0] for rank in range(N)]


def joined_batch(model):
    """Transitions that all processes draw the same: each takes a half."""
    samples = model.replay_buffer.sample(16)
    flat = {name: getattr(samples, name).flatten() for name in ("rewards", "dones")}
    discounts = th.full_like(flat["rewards"], 0.9)
    return Batch(
        samples.observations, samples.actions, flat["rewards"], flat["dones"], discounts, samples.next_observations, {}
    )


def half(batch, rank):
    return Batch(*(part if isinstance(part, dict) else part[rank::N] for part in batch))


def fixed_noise(shape):
    """Noise of row i depends on i only, not on how many rows there are."""
    return th.as_tensor(np.random.default_rng(3).normal(size=shape).astype(np.float32))


def steps(rank, algorithm, share):
    model = make(algorithm, ent_coef="auto")
    model.learn(20)
    model.set_logger(Logger(None, []))
    batch = joined_batch(model)
    own = half(batch, rank) if share else batch
    rows = slice(rank, None, N) if share else slice(None)

    def randn(*shape, **kwargs):
        shape = shape[0] if isinstance(shape[0], (tuple, th.Size)) else shape
        return fixed_noise((16, *shape[1:]))[rows] if shape[0] == len(own.rewards) else th.Tensor(*shape).fill_(0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(th, "randn", randn)
        patch.setattr(th, "randn_like", lambda x, **kwargs: randn(tuple(x.shape)))
        patch.setattr(th, "rand", lambda *shape, **kwargs: th.sigmoid(randn(*shape)))
        for _ in range(3):
            step_in_pytorch(model, own)
    return everything(model)


@pytest.mark.parametrize("algorithm", [each for each in ALGORITHMS if each is not SQL])
def test_the_step_of_a_joined_batch(algorithm):
    first, second = on_all(steps, algorithm, True)
    alone = steps(0, algorithm, False)
    assert first.keys() == second.keys() == alone.keys()
    for name in alone:
        assert np.array_equal(first[name], second[name]), name
        assert first[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-6), name


def trained(rank, algorithm, folder, n_steps, kwargs):
    model = make(algorithm, seed=rank, ent_coef="auto", **kwargs)
    callback = ExactCheckpoint(f"{folder}/{rank}", every=10) if folder else None
    model.learn(n_steps, callback=callback)
    return everything(model), model.replay_buffer.rewards[:20].copy() if hasattr(model.replay_buffer, "rewards") else None


@algorithms
def test_all_have_the_same_networks(algorithm):
    """Each has a seed, environments and transitions of its own."""
    (first, rewards), (second, others) = on_all(trained, algorithm, None, 40, {})
    for name in first:
        assert np.array_equal(first[name], second[name]), name
    before = everything(make(algorithm, seed=0, ent_coef="auto"))
    assert any(not np.array_equal(first[name], before[name]) for name in before)
    assert is_discrete(algorithm) or not np.array_equal(rewards, others)


@pytest.mark.slow
def test_resumed_together(tmp_path):
    """One of them has come further before it was killed: they go on from where both have been."""
    (straight, _), _ = on_all(trained, SoftAC_v1, tmp_path / "straight", 60, {})
    on_all(trained, SoftAC_v1, tmp_path / "cut", 40, {})
    newest = sorted((tmp_path / "cut" / "1").glob("checkpoint-*"))[-1]
    newest.rename(tmp_path / "lost")
    (resumed, _), (other, _) = on_all(trained, SoftAC_v1, tmp_path / "cut", 60, {})
    for name in straight:
        assert np.array_equal(straight[name], resumed[name]) and np.array_equal(resumed[name], other[name]), name


def fail_in_second(rank):
    model = make(SoftAC_v1, seed=rank)
    if rank == 1:
        update = model._update

        def fail(batch):
            if model._n_updates == 3:
                torch_distributed.destroy_process_group()
                raise ZeroDivisionError
            return update(batch)

        model._update = fail
    model.learn(40)


def test_one_that_ends_ends_the_others():
    first, second = on_all(fail_in_second, fails=True)
    assert "ZeroDivisionError" in second
    assert "Process 0 has lost the other processes that train this agent" in first


def not_finite_in_second(rank):
    model = make(SoftAC_v1, seed=rank)
    model.learn(30)
    if rank == 1:
        sample = model.replay_buffer.sample
        model.replay_buffer.sample = lambda *args, **kwargs: (lambda s: s._replace(rewards=s.rewards * np.nan))(
            sample(*args, **kwargs)
        )
    before = everything(model)
    with pytest.raises(ValueError, match="critic_loss is nan"):
        model.train(1, 8)
    after = everything(model)
    return all(np.array_equal(before[name], after[name]) for name in before)


def test_none_takes_a_step_that_is_not_finite_in_one():
    assert on_all(not_finite_in_second) == [True, True]


def episodes(rank):
    make(SoftAC_v1, train_freq=(1, "episode")).learn(20)


def test_episodes_are_refused():
    for error in on_all(episodes, fails=True):
        assert "give train_freq in steps, not in episodes" in error


class StopAt(BaseCallback):
    """Stops one process at its n-th step."""

    def __init__(self, rank, n):
        super().__init__()
        self.stops = distributed.rank() == rank
        self.n = n

    def _on_step(self):
        return not (self.stops and self.n_calls == self.n)


def stopped(rank, stopping, n, train_freq):
    model = make(SoftAC_v1, seed=rank, train_freq=train_freq)
    model.learn(60, callback=StopAt(stopping, n))
    return model.num_timesteps, model.replay_buffer.size(), model._n_updates, everything(model)


@pytest.mark.parametrize(("n", "train_freq"), [(5, 1), (22, 4)])
@pytest.mark.parametrize("stopping", range(N))
def test_one_that_stops_stops_all(stopping, n, train_freq):
    """With what it has stored until then; before the first gradient step, too."""
    results = on_all(stopped, stopping, n, train_freq)
    for rank, (steps, stored, n_updates, networks) in enumerate(results):
        assert steps == stored == (n if rank == stopping else -(-n // train_freq) * train_freq)
        assert n_updates == (0 if n < 10 else 3)
        assert all(np.array_equal(networks[name], results[0][3][name]) for name in networks)
