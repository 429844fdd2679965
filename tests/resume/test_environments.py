"""Environments of users: what is captured by itself, what by a protocol, and what is said where neither is possible."""

import array
import collections
import contextlib
import datetime
import mmap
import os
import re
import resource
import signal
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, Resumable, signals
from sb3_softac.resume.environments import read_environments, try_once, write_environments
from sb3_softac.resume.serialization import Baseline
from sb3_softac.resume.trial import differs_when_restored
from sb3_softac.tabular import TabularEnv, TabularMDP
from tests.discrete.masked_walk import MaskableWalk
from tests.resume.harness import Cut, differences, fingerprint, interrupted, uninterrupted
from tests.resume.test_exact import check, maker


class Walk(gym.Env):
    """A random walk; where it is kept, a subclass decides."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.put(self.np_random.normal(size=2))
        return self.get().astype(np.float32), {}

    def step(self, action):
        self.put(self.get() + self.np_random.normal(size=2) + action)
        value = self.get()
        return value.astype(np.float32), float(-(value**2).sum()), bool(abs(value).max() > 5), False, {}


class Nested(Walk):
    """In objects and containers that refer to one another."""

    class Part:
        pass

    def put(self, value):
        if not hasattr(self, "part"):
            self.part = self.Part()
            self.part.owner = self
        self.part.values = {"now": (value, [None, float("inf")]), "again": value}
        self.part.values["now"][0][0] += 0.5  # the same array under two names

    def get(self):
        return self.part.values["again"]


class Opaque(Walk):
    """Where Python cannot see it."""

    def put(self, value):
        self.hidden = memoryview(np.array(value).tobytes())

    def get(self):
        return np.frombuffer(self.hidden).copy()


class WithProtocol(Opaque):
    """The same, with the two methods."""

    def get_state(self):
        return {"value": self.get()}

    def set_state(self, state):
        self.put(state["value"])


class WithObject(WithProtocol):
    """Its state holds a random generator, whose state is saved in turn, and then an object, which cannot be saved."""

    def get_state(self):
        return {"generator": self.np_random, "part": Nested.Part(), **super().get_state()}


WORLDS = {}


class Registered(Walk):
    """Elsewhere, as in the native memory of a simulator: the environment itself has only a number."""

    def put(self, value):
        if not hasattr(self, "handle"):
            self.handle = len(WORLDS)
        WORLDS[self.handle] = value

    def get(self):
        return WORLDS[self.handle]


class Growing(Walk):
    """Makes an object while it runs, which a new environment does not have."""

    def put(self, value):
        self.count = getattr(self, "count", 0) + 1
        self.value = value
        if self.count == 2:
            self.late = Nested.Part()

    def get(self):
        return self.value


@pytest.mark.parametrize("env", [Nested, WithProtocol])
def test_environments_of_users(env, tmp_path):
    check(
        maker(
            SoftAC_v1, env, n_envs=2, venv=dict(wrapper_class=gym.wrappers.TimeLimit, wrapper_kwargs=dict(max_episode_steps=7))
        ),
        tmp_path,
    )


@pytest.mark.slow
def test_protocol_in_other_processes(tmp_path):
    check(maker(SoftAC_v1, WithProtocol, venv=dict(wrapper_class=Resumable, vec_env_cls=SubprocVecEnv)), tmp_path)


@pytest.mark.slow
def test_ctrl_c_is_left_to_the_training():
    venv = make_vec_env("Pendulum-v1", 1, wrapper_class=Resumable, vec_env_cls=SubprocVecEnv)
    venv.reset()
    os.kill(venv.processes[0].pid, signal.SIGINT)
    assert venv.step(np.zeros((1, 1)))[0].shape == (1, 3)
    venv.close()


class Crowd(Walk):
    """Its objects know one another."""

    def put(self, value):
        if not hasattr(self, "first"):
            self.first = one = Nested.Part()
            for _ in range(2_000):
                one.next = one = Nested.Part()
        self.value = value

    def get(self):
        return self.value


class Placed(Walk):
    """Its methods have the names of the protocol, and another meaning, as those of MujocoEnv."""

    def put(self, value):
        self.value = value

    def get(self):
        return self.value

    def get_state(self, name):
        raise AssertionError

    def set_state(self, qpos, qvel):
        raise AssertionError


def test_objects_that_know_one_another_start_over(tmp_path):
    model, _ = maker(SoftAC_v1, Crowd)()
    with pytest.warns(UserWarning, match=r"their episodes start over.*too many of its objects refer to one another"):
        model.learn(30, callback=ExactCheckpoint(tmp_path, 20))


def test_methods_that_only_have_the_names_of_the_protocol(tmp_path):
    check(maker(SoftAC_v1, Placed), tmp_path)


def test_atari(tmp_path):
    ale_py = pytest.importorskip("ale_py")
    gym.register_envs(ale_py)
    envs = [gym.make("ALE/Pong-v5", obs_type="ram") for _ in range(2)]
    for number, env in enumerate(envs):
        env.reset(seed=number)
    for _ in range(50):
        envs[0].step(envs[0].action_space.sample())
    read_environments([envs[1]], "env", *write_environments([envs[0]], "env"))()
    for _ in range(300):
        action = envs[0].action_space.sample()
        (first, *rest), (second, *others) = (env.step(action) for env in envs)
        assert np.array_equal(first, second) and rest == others


def test_tabular(tmp_path):
    check(
        maker(DiscreteSAC, lambda: gym.wrappers.TimeLimit(TabularEnv(TabularMDP.from_gymnasium("FrozenLake-v1", 0.9)), 9)),
        tmp_path,
    )


class Wrapped(VecNormalize):
    def __init__(self, venv):
        super().__init__(VecFrameStack(venv, 2))


@pytest.mark.parametrize(
    ("env", "venv", "reason"),
    [
        (Opaque, {}, r"environment: .*\.hidden \(builtins.memoryview\)"),
        (Growing, {}, r"environment: .*\.late \(Nested.Part, created while the training runs\)"),
        (WithObject, {}, r"get_state\(\)\S*part\S* \(\S*Nested.Part\)"),
        (Registered, {}, r"environment 0 \(Registered\) does not repeat its steps .* differs.*get_state\(\) and set_state"),
        ("LunarLanderContinuous-v3", {}, r"this \(.SwigPyObject\) and \d+ more is not plain data: it belongs to Box2D. Wrap"),
        ("Pendulum-v1", dict(vec_env_cls=SubprocVecEnv), "the environments are in other processes. Wrap each environment in"),
        (
            "Pendulum-v1",
            dict(vec_env_cls=SubprocVecEnv, wrapper_class=lambda env: gym.wrappers.TimeLimit(Resumable(env), 9)),
            "Resumable has to be the outermost wrapper, not .*TimeLimit",
        ),
    ],
)
def test_what_cannot_be_captured_is_named_once(env, venv, reason, tmp_path):
    algorithm = SAC if env is Opaque else SoftAC_v1
    make = maker(algorithm, env, n_envs=2, wrap=Wrapped, venv=venv)
    model, _ = make()
    with pytest.warns(UserWarning, match=reason) as warnings, pytest.raises(KeyboardInterrupt):
        model.learn(80, callback=[ExactCheckpoint(tmp_path, 20), Cut(50)])
    assert len([warning for warning in warnings if "start over" in str(warning.message)]) == 1
    model.env.close()
    model, _ = make()
    with pytest.warns(UserWarning, match="start over"):
        model.learn(80, callback=[ExactCheckpoint(tmp_path, 20), Cut(10**9)])
    model.env.close()
    assert model.num_timesteps == 80 and model.replay_buffer.size() == 40
    # What was observed at the resumption does not follow from what was observed before
    if algorithm is SoftAC_v1:
        assert (model.replay_buffer.timeouts | model.replay_buffer.dones)[19].all()


Point = collections.namedtuple("Point", "x y")


class Notes:
    """Keeps what no file can bring back, and counts in its class."""

    count = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []
        type(self).count = 0  # a new program

    def note(self):
        self.seen.append(Point(1, 2))
        type(self).count += 1
        return self.count


class VecNotes(Notes, VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards + self.note(), dones, infos


class BufferNotes(Notes, ReplayBuffer):
    def add(self, obs, next_obs, action, reward, done, infos):
        super().add(obs, next_obs, action, reward + self.note(), done, infos)


@pytest.mark.parametrize(
    ("settings", "name"),
    [(dict(wrap=VecNotes), "environment.wrapper0"), (dict(replay_buffer_class=BufferNotes), "replay")],
    ids=["wrapper", "buffer"],
)
@pytest.mark.filterwarnings("ignore:These attributes cannot be saved")
def test_what_wrappers_and_buffers_cannot_save_is_named(settings, name, tmp_path):
    make = maker(SAC, **settings)
    with pytest.warns(UserWarning, match=rf"These attributes cannot be saved.*{name}\.seen\.0 "):
        expected = uninterrupted(make, 40, tmp_path / "a")
    assert differences(expected, interrupted(make, 40, tmp_path / "b", cuts=(36,))) == []


class Constants(Nested):
    """What environments have that is not plain data, but does not change either."""

    def __init__(self):
        days = pd.date_range("2020-01-01", periods=3, freq="D")
        self.prices = pd.DataFrame({"close": [1.0, 2.0, 3.0], "name": ["a", "b", "c"]}, index=days)
        self.which, self.rest, self.pattern, self.zone = slice(0, 2), (..., slice(None)), re.compile("a+"), datetime.UTC
        self.numbers, self.size, self.seeds = array.array("d", [1.0]), th.Size([2]), np.random.SeedSequence(3)

    def put(self, value):
        super().put(value + self.numbers[0] * self.prices["close"].iloc[1])


class Changing(Constants):
    def put(self, value):
        self.numbers[0] += 0.1
        super().put(value)


class ChangingTable(Constants):
    def put(self, value):
        self.prices.iloc[1, 0] += 0.1
        super().put(value)


def test_what_does_not_change_need_not_be_plain(tmp_path):
    check(maker(SoftAC_v1, Constants), tmp_path)


@pytest.mark.parametrize(("env", "name"), [(Changing, "numbers"), (ChangingTable, "prices")])
def test_what_changes_is_named(env, name, tmp_path):
    model, _ = maker(SoftAC_v1, env)()
    with pytest.warns(UserWarning, match=rf"episodes start over when training is resumed.*\.{name} \("):
        model.learn(50, callback=ExactCheckpoint(tmp_path, 25))


@contextlib.contextmanager
def ended_processes_are_ignored():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextlib.contextmanager
def many_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1_100):
            stack.enter_context(open(os.devnull))
        yield


@pytest.mark.parametrize("program", [ended_processes_are_ignored, many_open_files])
def test_the_trial_works_in_any_program(program):
    env = Nested()
    env.reset(seed=0)
    with program():
        assert "does not repeat its steps" in differs_when_restored([env], lambda: None)


@pytest.mark.parametrize(
    "shared", [lambda: th.zeros(1).share_memory_(), lambda: np.frombuffer(mmap.mmap(-1, 8))], ids=["tensor", "mapped"]
)
def test_memory_that_processes_share_is_not_changed_by_a_trial(shared):
    env, baseline = Placed(), Baseline()
    env.shared = shared()
    env.put = lambda value: (env.shared.__iadd__(1), setattr(env, "value", value))
    env.reset(seed=0)
    write_environments([env], "env", baseline, recording=True)
    try_once([env], "env", *write_environments([env], "env", baseline), baseline)
    assert env.shared[0] == 1


@pytest.mark.parametrize("n_steps", [1, 3])
def test_action_masks(n_steps, tmp_path):
    check(maker(DiscreteSAC, MaskableWalk, n_envs=2, n_steps=n_steps, buffer_size=50), tmp_path)


class Signal(BaseCallback):
    """Gets a signal in the middle of a round."""

    not_resumed = ("step", "number")

    def __init__(self, step, number):
        super().__init__()
        self.step, self.number = step, number

    def _on_step(self):
        if self.num_timesteps == self.step:
            os.kill(os.getpid(), self.number)
        return True


@pytest.mark.parametrize(("number", "train_freq"), [(signal.SIGTERM, 1), (signal.SIGINT, 7)])
def test_signals(number, train_freq, tmp_path, capfd):
    before = signal.getsignal(number)
    make = maker(SoftAC_v1, train_freq=train_freq)
    expected = uninterrupted(make, 56, tmp_path / "straight", every=1_000)
    model, _ = make()
    with pytest.raises(SystemExit) as end:
        model.learn(56, callback=[ExactCheckpoint(tmp_path / "cut", 1_000), Signal(38, number)])
    assert end.value.code == 128 + number
    assert "saving a checkpoint; after 5 seconds, send the signal again to end the program" in capfd.readouterr().err
    step = -(-38 // train_freq) * train_freq
    assert [path.name for path in (tmp_path / "cut").glob("*-*")] == [f"checkpoint-{step:012d}"]
    model, _ = make()
    model.learn(56, callback=[ExactCheckpoint(tmp_path / "cut", 1_000), Signal(-1, number)])
    assert differences(expected, fingerprint(model)) == []
    assert signal.getsignal(number) is before


def test_a_signal_in_the_last_round_ends_the_program(tmp_path):
    """Which may be about to start another training."""
    model, _ = maker(SoftAC_v1, train_freq=7)()
    with pytest.raises(SystemExit) as end:
        model.learn(56, callback=[ExactCheckpoint(tmp_path, 1_000), Signal(52, signal.SIGTERM)])
    assert end.value.code == 143 and [path.name for path in tmp_path.glob("*-*")] == ["checkpoint-000000000056"]


class GroupSignal(Signal):
    def _on_step(self):
        if self.num_timesteps == self.step:
            os.killpg(0, self.number)
        return True


def in_other_processes(path, callback):
    make = maker(SoftAC_v1, n_envs=2, venv=dict(wrapper_class=Resumable, vec_env_cls=SubprocVecEnv))
    make()[0].learn(60, callback=[ExactCheckpoint(path, 1_000), callback])


@pytest.mark.slow
@pytest.mark.parametrize(("callback", "code"), [("GroupSignal(30, t.signal.SIGTERM)", 143), ("Cut(30)", -2)])
def test_a_signal_to_all_processes(callback, code, tmp_path):
    """As job managers send it; and after an error nothing waits for the other processes."""
    lines = ["import sys, tests.resume.test_environments as t", "if __name__ == '__main__':"]
    (tmp_path / "program.py").write_text("\n".join([*lines, f"    t.in_other_processes(sys.argv[1], t.{callback})"]))
    command = [sys.executable, tmp_path / "program.py", tmp_path / "checkpoints"]
    done = subprocess.run(command, start_new_session=True, timeout=120, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == code
    assert len([*tmp_path.glob("checkpoints/checkpoint-*")]) == (code == 143)


@pytest.mark.parametrize(("seconds", "end"), [(5.0, SystemExit), (0.0, KeyboardInterrupt)])
def test_a_second_signal(seconds, end, tmp_path, monkeypatch):
    """It ends the program at once, unless it comes with the first one, passed on by another process."""
    monkeypatch.setattr(signals, "SAME_SIGNAL_SECONDS", seconds)
    model, _ = maker(SoftAC_v1, train_freq=50)()
    with pytest.raises(end):
        model.learn(56, callback=[ExactCheckpoint(tmp_path), Signal(3, signal.SIGINT), Signal(5, signal.SIGINT)])
    assert len([*tmp_path.glob("checkpoint-*")]) == (end is SystemExit)


@pytest.mark.slow
@given(data=st.data())
@settings(
    max_examples=8,
    phases=[Phase.generate],
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_random_cuts(data, tmp_path_factory):
    every, train_freq = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 12))
    cuts = sorted(data.draw(st.lists(st.integers(60, 95), min_size=1, max_size=3)))
    settings = dict(
        n_envs=data.draw(st.integers(1, 3)), train_freq=train_freq, buffer_size=data.draw(st.sampled_from([60, 1000]))
    )
    algorithm = data.draw(st.sampled_from([SoftAC_v1, DiscreteSAC]))
    folder = tmp_path_factory.mktemp("cuts")
    make = maker(algorithm, n_steps=data.draw(st.integers(1, 3)), **settings)
    expected = uninterrupted(make, 96, folder / "straight", every)
    assert differences(expected, interrupted(make, 96, folder / "cut", cuts, every)) == []


def test_signals_after_an_error_are_left_to_others(tmp_path):
    model, _ = maker(SoftAC_v1)()
    with pytest.raises(KeyboardInterrupt):
        model.learn(56, callback=[ExactCheckpoint(tmp_path), Cut(30)])
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_box2d_environment_that_has_not_started(tmp_path):
    first, second = (Resumable(gym.make("LunarLander-v3")) for _ in range(2))
    first.unwrapped.np_random = np.random.default_rng(5)
    second.set_state(first.get_state())
    assert np.array_equal(first.reset()[0], second.reset()[0])
    second.set_state(Resumable(gym.make("LunarLander-v3")).get_state())
    assert second.get_state()["state"]
