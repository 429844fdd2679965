"""Callbacks go on where they were: evaluations and the best model."""

import math
import os
import threading
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from sb3_contrib import ARS
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps, ProgressBarCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, ResumeError
from tests.resume.harness import differences, interrupted, uninterrupted
from tests.resume.test_exact import maker


@pytest.mark.parametrize(("rewards", "score"), [([], None), ([1.0, 3.0], 2.0), ([1.0, math.nan], None), ([math.inf], None)])
def test_the_score_of_a_checkpoint_is_finite(rewards, score, tmp_path):
    callback = ExactCheckpoint(tmp_path)
    callback.model, callback.locals = SimpleNamespace(ep_info_buffer=[{"r": each} for each in rewards]), {"callback": callback}
    assert callback._score() == score


def test_where_no_rollouts_are_told_of(tmp_path):
    model, _ = maker(SoftAC_v1)()
    with pytest.raises(ValueError, match="saves between two rollouts, of which EveryNTimesteps does not tell it"):
        model.learn(30, callback=EveryNTimesteps(10, ExactCheckpoint(tmp_path)))


def evaluation(folder):
    venv = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=5), training=False, norm_reward=False)
    return EvalCallback(
        venv, eval_freq=17, n_eval_episodes=2, log_path=str(folder), best_model_save_path=str(folder), verbose=0
    )


def test_evaluations(tmp_path):
    straight, cut = tmp_path / "a", tmp_path / "b"
    makers = [maker(SoftAC_v1, wrap=VecNormalize, n_envs=2, callbacks=lambda f=f: [evaluation(f)]) for f in (straight, cut)]
    expected = uninterrupted(makers[0], 110, tmp_path / "c")
    assert differences(expected, interrupted(makers[1], 110, tmp_path / "d", cuts=(50, 95))) == []
    first, second = (np.load(folder / "evaluations.npz") for folder in (straight, cut))
    assert len(first["timesteps"]) == 3
    assert all(np.array_equal(first[name], second[name]) for name in first.files)
    best = [SoftAC_v1.load(folder / "best_model.zip").get_parameters()["policy"] for folder in (straight, cut)]
    assert all((best[0][name] == best[1][name]).all() for name in best[0])


class Count(BaseCallback):
    """Has a state of its own."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        self.seen.append((self.n_calls, self.num_timesteps))
        return True


class Creates(Count):
    """Makes things while it runs that no file can bring back."""

    def __init__(self, create):
        super().__init__()
        self.create, self.late, self.several, self.calls = create, None, [], 0

    def _on_step(self):
        if self.late is None:
            self.late, self.several = self.create(self), [1, self.create(self)]
        self.calls += 1
        return super()._on_step()


@pytest.mark.parametrize(
    "create",
    [
        lambda callback: Count(),
        lambda callback: Fraction,
        lambda callback: callback._on_step,
        lambda callback: partial(max, 1),
        lambda callback: callback.training_env.action_space.__class__(2),
        lambda callback: threading.Lock(),
    ],
    ids=["object", "class", "method", "partial", "space", "lock"],
)
@pytest.mark.filterwarnings("ignore:These attributes cannot be saved")
def test_what_was_created_while_a_callback_ran(create, tmp_path):
    """It is named when it is saved, and stays as the program creates it; the training goes on."""
    callbacks = []

    def make():
        model, _ = maker(DiscreteSAC)()
        callbacks.append(Creates(create))
        return model, callbacks[-1:]

    with pytest.warns(UserWarning, match=r"These attributes cannot be saved.*\.late .*\.several\.1 "):
        expected = uninterrupted(make, 40, tmp_path / "a")
    assert differences(expected, interrupted(make, 40, tmp_path / "b", cuts=(36,))) == []
    assert callbacks[0].calls == callbacks[-1].calls == 40 and callbacks[-1].several[0] == 1


def test_algorithms_without_rollouts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ExactCheckpoint cannot resume ARS: .* Use SB3's CheckpointCallback"):
        ARS("LinearPolicy", "Pendulum-v1").learn(10, callback=ExactCheckpoint(tmp_path))


def test_nested_callbacks(tmp_path):
    counts = []

    def callbacks():
        counts.append(Count())
        return [CallbackList([EveryNTimesteps(15, counts[-1])])]

    make = maker(SoftAC_v1, callbacks=callbacks)
    uninterrupted(make, 75, tmp_path / "straight")
    interrupted(make, 75, tmp_path / "cut", cuts=(32, 55))
    assert counts[0].seen == counts[-1].seen == [(i, 15 * i) for i in range(1, 6)]


def test_other_algorithm_is_refused(tmp_path):
    uninterrupted(maker(SoftAC_v1), 30, tmp_path)
    model, _ = maker(DiscreteSAC)()
    with pytest.raises(ResumeError, match=r"algorithm: DiscreteSAC now, but SoftAC_v1 in the checkpoint\. Use"):
        model.learn(60, callback=[ExactCheckpoint(tmp_path)])


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bars_start_where_the_training_stopped(tmp_path, monkeypatch):
    totals = []
    start = ProgressBarCallback._on_training_start

    def note(bar):
        start(bar)
        totals.append(bar.pbar.total)

    monkeypatch.setattr(ProgressBarCallback, "_on_training_start", note)
    uninterrupted(maker(SoftAC_v1), 60, tmp_path, progress_bar=True)
    uninterrupted(maker(SoftAC_v1), 100, tmp_path, progress_bar=True)
    uninterrupted(maker(SoftAC_v1), 110, tmp_path)
    assert totals == [60, 40]


@pytest.mark.parametrize("every", [0, -1, 1.5, math.nan, "10"])
def test_every_is_checked(every, tmp_path):
    with pytest.raises(ValueError, match="every must be an integer, at least 1"):
        ExactCheckpoint(tmp_path, every)


def test_a_finished_training_stays_as_it_is(tmp_path):
    make = maker(SoftAC_v1)
    expected = uninterrupted(make, 60, tmp_path)
    assert differences(expected, uninterrupted(make, 60, tmp_path)) == []


def test_a_longer_training_goes_on(tmp_path):
    make = maker(SoftAC_v1, use_sde=True)
    uninterrupted(make, 60, tmp_path / "short")
    longer = uninterrupted(make, 100, tmp_path / "short")
    expected = uninterrupted(make, 100, tmp_path / "long")
    expected["counters"] = longer["counters"] = ()
    assert differences(expected, longer) == []


class Report(BaseCallback):
    """Begins anew with each call of learn."""

    def _on_training_start(self):
        self.rows = []

    def _on_step(self):
        self.rows.append(self.num_timesteps)
        return True

    def _on_training_end(self):
        self.written = self.rows


@pytest.mark.parametrize("order", [1, -1])
def test_the_results_of_a_finished_training_stay(order, tmp_path):
    for steps in (30, 30, 45):
        model, report = maker(SoftAC_v1)()[0], Report()
        model.learn(steps, callback=[report, ExactCheckpoint(tmp_path, 15)][::order])
        assert report.written == [*range(1, steps + 1)]


def test_one_folder_for_several_calls_of_learn(tmp_path):
    model, _ = maker(SoftAC_v1)()
    model.learn(30, callback=ExactCheckpoint(tmp_path))
    with pytest.raises(ResumeError, match=r"steps before this call of learn: 30 now, but 0 in the checkpoint.*a new folder"):
        model.learn(30, callback=ExactCheckpoint(tmp_path), reset_num_timesteps=False)


class Chain(Count):
    """Its objects know one another."""

    def __init__(self):
        super().__init__()
        self.first = one = SimpleNamespace()
        for _ in range(2_000):
            one.next = one = SimpleNamespace()


def test_long_chains_of_objects_are_named(tmp_path):
    make = maker(SoftAC_v1, callbacks=lambda: [Chain()])
    with pytest.warns(UserWarning, match=r"callbacks\.0\.first \(too many of its objects refer to one another in a row\)"):
        uninterrupted(make, 30, tmp_path)
    assert uninterrupted(make, 30, tmp_path)["counters"][0] == 30


class Stop(BaseCallback):
    def _on_step(self):
        return self.num_timesteps < 70


def test_a_stopped_training_is_stopped_again(tmp_path):
    make = maker(SoftAC_v1, callbacks=lambda: [Stop()])
    expected = uninterrupted(make, 100, tmp_path)
    assert expected["counters"][0] == 70
    assert differences(expected, uninterrupted(make, 100, tmp_path)) == []


def remove_at(step, path):
    class Remove(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == step:
                os.remove(path)
            return True

    return Remove()


def test_a_removed_monitor_file_does_not_end_the_training(tmp_path):
    path = tmp_path / "0.monitor.csv"
    model, _ = maker(DiscreteSAC, venv={"monitor_dir": str(tmp_path)})()
    model.learn(60, callback=[ExactCheckpoint(tmp_path / "checkpoints", 20), remove_at(30, path)])
    model.env.close()
    assert (tmp_path / "checkpoints" / "checkpoint-000000000060").is_dir()


def test_the_bytes_of_the_monitor_file_are_restored(tmp_path):
    folders = {name: tmp_path / name for name in ("straight", "cut")}
    makers = {name: maker(DiscreteSAC, venv={"monitor_dir": str(folder)}) for name, folder in folders.items()}
    uninterrupted(makers["straight"], 90, tmp_path / "a")
    interrupted(makers["cut"], 90, tmp_path / "b", cuts=(70,))
    straight, cut = ((folder / "0.monitor.csv").read_bytes() for folder in folders.values())
    assert straight.count(b"\r\n") == cut.count(b"\r\n") > 2 and straight.count(b"\n") == cut.count(b"\n")


def test_a_change_of_the_working_directory(tmp_path, monkeypatch):
    class Move(BaseCallback):
        def _on_step(self):
            os.chdir(tmp_path / "other")
            return True

    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    model, _ = maker(DiscreteSAC)()
    model.learn(60, callback=[ExactCheckpoint("checkpoints", 20), Move()])
    assert (tmp_path / "checkpoints" / "checkpoint-000000000060").is_dir() and not any((tmp_path / "other").iterdir())
