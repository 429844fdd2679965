"""Steps in C are the same from run to run, in a resumed process, in a forked one, and on several threads of Python at once."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.replay.batch import make_batch
from tests.engines.native.helpers import ALGORITHMS, is_fast, make_model, plan_of
from tests.toys import BOX, VECTOR, RandomEnv, assert_equal, state_of, train

ROOT = Path(__file__).parents[3]
RESUME = """
import sys
import torch as th
from stable_baselines3.common.logger import configure
from sb3_softac.engines.native import native_engine
from tests.engines.native.helpers import ALGORITHMS, is_fast, plan_of
from tests.toys import state_of, train

native_engine.WORK_PER_THREAD = 1
for algorithm in ALGORITHMS:
    for n_threads in (1, 3):
        folder = f"{sys.argv[1]}/{algorithm.__name__}{n_threads}"
        th.set_num_threads(n_threads)
        model = algorithm.load(f"{folder}/model", device="cpu")
        model.load_replay_buffer(f"{folder}/buffer")
        model.set_logger(configure(None, []))
        train(model, 7, seed=2)
        assert is_fast(model) and plan_of(model).n_threads == n_threads
        th.save(state_of(model), f"{folder}/state")
"""


@pytest.fixture(params=[1, 3])
def n_threads(request):
    th.set_num_threads(request.param)
    yield request.param
    th.set_num_threads(1)


def model_of(algorithm):
    return make_model(algorithm, ent_coef="auto", batch_size=13)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_from_run_to_run(algorithm, n_threads):
    models = [model_of(algorithm) for _ in range(3)]
    for model in models:
        train(model, 20)
        assert plan_of(model).n_threads == n_threads
    for model in models[1:]:
        assert_equal(state_of(models[0]), state_of(model))


@pytest.mark.slow
def test_resumed_in_another_process(tmp_path):
    models = {}
    try:
        for algorithm in ALGORITHMS:
            for n_threads in (1, 3):
                th.set_num_threads(n_threads)
                folder = tmp_path / f"{algorithm.__name__}{n_threads}"
                folder.mkdir()
                models[folder] = model = model_of(algorithm)
                train(model, 5)
                model.save(folder / "model")
                model.save_replay_buffer(folder / "buffer")
                train(model, 7, seed=2)
    finally:
        th.set_num_threads(1)
    command = [sys.executable, "-W", "error", "-c", RESUME, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for folder, model in models.items():
        assert_equal(state_of(model), th.load(folder / "state"))


def test_number_of_threads_changed_in_between():
    """From one call to the next; a number that comes back gives the same numbers as before."""
    models = [model_of(SoftAC_v1) for _ in range(2)]
    for model in models:
        for n_threads in (1, 3, 2, 1):
            th.set_num_threads(n_threads)
            train(model, 3)
            assert plan_of(model).n_threads == n_threads
    assert_equal(*map(state_of, models))


def test_two_models_at_once():
    """Each on a thread of Python of its own, with batches drawn before."""
    kinds, steps = [SoftAC_v1, DiscreteSAC], 40
    alone, together = ([make_model(kind, ent_coef="auto") for kind in kinds] for _ in range(2))
    plans = {}
    for model in [*alone, *together]:
        train(model)
        plans[model] = plan_of(model)
    th.set_num_threads(2)
    try:
        for model in [*alone, *together]:
            assert not model.engines[0].prepare(model.batch_size)
            plans[model] = plan_of(model)
    finally:
        th.set_num_threads(1)
    batches = {kind: draw(model) for kind, model in zip(kinds, alone, strict=True)}

    def run(model):
        for _ in range(steps):
            plan = plans[model]
            keep = plan._fill(batches[type(model)])
            if isinstance(model, SoftAC_v1):  # the generator is common to all threads
                noise = th.full((model.batch_size, plan.job.n_actions), 0.3)
                plan.job.noise = noise.data_ptr()
            plan.job.alpha = float(model.temperature.alpha)
            assert plan._step(plan.job)
            del keep

    for model in alone:
        run(model)
    workers = [threading.Thread(target=run, args=(model,)) for model in together]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(alone, together, strict=True):
        assert_equal(state_of(one), state_of(other))


def draw(model):
    return make_batch(model.replay_buffer.sample(model.batch_size), model.gamma)


def train_in_child(model, connection):
    train(model, 5)
    connection.send({name: value.tolist() for name, value in state_of(model).items()})
    connection.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_after_fork(algorithm):
    """A child goes on with what its parent had made, and so does the parent."""
    model = model_of(algorithm)
    th.set_num_threads(2)
    try:
        train(model, 3)
    finally:
        th.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=train_in_child, args=(model, sender))
    child.start()
    assert receiver.poll(60)
    theirs = receiver.recv()
    child.join(60)
    assert child.exitcode == 0
    train(model, 5)
    assert is_fast(model)
    assert {name: value.tolist() for name, value in state_of(model).items()} == theirs


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_with_environments_in_processes():
    model = make_model(SoftAC_v1, n_envs=2)
    th.set_num_threads(2)
    try:
        train(model, 3)
        env = make_vec_env(
            lambda: RandomEnv(VECTOR, BOX), 2, seed=0, vec_env_cls=SubprocVecEnv, vec_env_kwargs=dict(start_method="fork")
        )
        model.set_env(env)
        model.learning_starts = 0
        model.learn(20, reset_num_timesteps=False)
        env.close()
    finally:
        th.set_num_threads(1)
    assert is_fast(model) and model._n_updates == 14
