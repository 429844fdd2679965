"""Rows of a replay buffer come back as they were when the checkpoint was saved, or are left out and counted."""

import random
import re
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.replay.buffer import SoftReplayBuffer
from sb3_softac.resume import ExactCheckpoint, ResumeError, replay
from tests.resume.harness import Cut, differences, fingerprint, flatten, interrupted, uninterrupted

VECTOR = spaces.Box(-np.inf, np.inf, (2,))
DICT = spaces.Dict(a=VECTOR, b=spaces.Box(-np.inf, np.inf, (1,)))
ACTIONS = spaces.Box(-1, 1, (1,))


class Part:
    """A block on disk, in memory."""

    file = "here"

    def __init__(self, first, contents):
        self.first, self.rows, self.contents = first, len(contents["rewards"]), contents

    def read(self):
        return self.contents


def save(buffer, blocks=None):
    """:return: What a checkpoint holds of a buffer."""
    read = [(block.first, block.first + np.arange(block.rows)) for block in blocks or replay.blocks(buffer)]
    return replay.position(buffer), [Part(first, replay.read_rows(buffer, rows)) for first, rows in read]


def observe(space, step, n_envs):
    """Observations that tell environment and step."""
    if isinstance(space, spaces.Dict):
        return {key: observe(part, step, n_envs) for key, part in space.items()}
    return np.stack([np.full(space.shape, 1_000.0 * env + step) for env in range(n_envs)])


def fill(buffer, number, start=0, end=lambda step: step % 7 == 6):
    n_envs = buffer.n_envs
    for step in range(start, start + number):
        pair = [observe(buffer.observation_space, step + shift, n_envs) for shift in (0, 1)]
        rewards = np.arange(n_envs) * 1_000.0 + step
        dones = np.full(n_envs, end(step))
        infos = [{"TimeLimit.truncated": bool(step % 2)}] * n_envs if end(step) else [{}] * n_envs
        buffer.add(*pair, np.full((n_envs, 1), step / 1e4), rewards, dones, infos)
    return buffer


BUFFERS = {
    "ours": (SoftReplayBuffer, VECTOR, {}),
    "ours of n steps": (SoftReplayBuffer, VECTOR, dict(n_steps=3, gamma=0.5)),
    "ours of n steps without time limits": (SoftReplayBuffer, DICT, dict(n_steps=3, handle_timeout_termination=False)),
    "dictionary": (SoftReplayBuffer, DICT, {}),
    "sb3's": (ReplayBuffer, VECTOR, {}),
    "sb3's dictionary": (DictReplayBuffer, DICT, {}),
    "sb3's of n steps": (NStepReplayBuffer, VECTOR, dict(n_steps=3, gamma=0.5)),
    "sb3's of n steps without time limits": (NStepReplayBuffer, VECTOR, dict(n_steps=3, handle_timeout_termination=False)),
    "less memory": (ReplayBuffer, VECTOR, dict(optimize_memory_usage=True, handle_timeout_termination=False)),
}


def make(kind, rows=20, n_envs=2):
    cls, space, kwargs = BUFFERS[kind]
    return cls(rows * n_envs, space, ACTIONS, "cpu", n_envs=n_envs, **kwargs)


def contents(buffer):
    names = [name for name in (*replay.COLUMNS, "observations", "next_observations") if hasattr(buffer, name)]
    parts = flatten({name: getattr(buffer, name) for name in names})
    return {name[1:]: np.array(part)[: buffer.size()] for name, part in parts}


def assert_same(a, b):
    first, second = contents(a), contents(b)
    assert replay.position(a) == replay.position(b)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(replay, "N_BLOCKS", 7)
    monkeypatch.setattr(replay, "SMALLEST", 1)


@pytest.mark.parametrize("number", [0, 1, 5, 20, 21, 33])
@pytest.mark.parametrize("kind", BUFFERS)
def test_all_rows_come_back(kind, number):
    buffer, back = fill(make(kind), number), fill(make(kind), 5, start=500)
    replay.restore_rows(back, *save(buffer))
    assert_same(back, buffer)
    assert replay.blocks(back) == replay.blocks(buffer)
    assert_same(fill(back, 9, start=number), fill(buffer, 9, start=number))


CHANGES = {
    "rewards": lambda buffer: buffer.rewards.__setitem__((3, 0), 99.0),
    "rewards of the newest row": lambda buffer: buffer.rewards.__setitem__(buffer.pos - 1, 99.0),
    "all rewards": lambda buffer: setattr(buffer, "rewards", buffer.rewards * 2),
    "rewards in double precision": lambda buffer: setattr(buffer, "rewards", buffer.rewards.astype(np.float64) / 3),
    "rewards, transposed": lambda buffer: setattr(buffer, "rewards", np.asfortranarray(buffer.rewards + 1)),
    "dones": lambda buffer: buffer.dones.__setitem__(slice(2, 9), 1),
    "timeouts": lambda buffer: buffer.timeouts.__setitem__(5, 1),
    "actions": lambda buffer: buffer.actions.__setitem__((..., 0), 0.5),
    "swapped rewards": lambda buffer: buffer.rewards.__setitem__([0, 1], buffer.rewards[[1, 0]]),
}
SB3_ONLY = {
    "observations": lambda part: part.__setitem__((4, 1), 7.0),
    "swapped observations": lambda part: part.__setitem__([0, 1], part[[1, 0]]),
    "noise on all": lambda part: np.multiply(part, 1.5, out=part),
}


def change_observations(name, change):
    def call(buffer):
        part = getattr(buffer, name)
        change(part if not isinstance(part, dict) else part["a"])

    return call


ALL_CHANGES = CHANGES | {
    f"{which}, {name}": change_observations(which, change)
    for name, change in SB3_ONLY.items()
    for which in ("observations", "next_observations")
}


@pytest.mark.parametrize("change", ALL_CHANGES)
@pytest.mark.parametrize("kind", BUFFERS)
def test_each_change_makes_blocks_differ(kind, change):
    """And nothing else does: not sampling, and not rows that are far away."""
    buffer = fill(make(kind), 33)
    written = {block: replay.read_rows(buffer, block.first + np.arange(block.rows)) for block in replay.blocks(buffer)}
    buffer.sample(16)
    assert replay.blocks(buffer) == [*written]
    if change not in CHANGES and (kind.startswith(("ours", "dictionary")) or (kind == "less memory" and "next" in change)):
        return  # they are read-only there, or do not exist
    before = contents(buffer)
    ALL_CHANGES[change](buffer)
    now = replay.blocks(buffer)
    assert set(now) != set(written)
    parts = [
        Part(block.first, written.get(block) or replay.read_rows(buffer, block.first + np.arange(block.rows))) for block in now
    ]
    back = make(kind)
    replay.restore_rows(back, replay.position(buffer), parts)
    assert_same(back, buffer)
    assert any(not np.array_equal(part, contents(back)[name]) for name, part in before.items())
    assert [getattr(back, name).dtype for name in replay.COLUMNS] == [getattr(buffer, name).dtype for name in replay.COLUMNS]


def test_new_rows_with_the_same_numbers_make_blocks_differ():
    """Only their observations differ, which are not looked at."""
    space = spaces.Discrete(50)
    buffer = SoftReplayBuffer(20, space, spaces.Discrete(2), "cpu")

    def add(step):
        pair = np.array([step % 50]), np.array([(step + 1) % 50])
        buffer.add(*pair, np.zeros(1), np.zeros(1), np.zeros(1, bool), [{}])

    for step in range(20):
        add(step)
    before = replay.blocks(buffer)
    for step in range(20, 40):
        add(step)
    assert not set(before) & set(replay.blocks(buffer))
    before = replay.blocks(buffer)
    buffer.reset()
    for step in range(20):
        add(step + 7)
    assert not set(before) & set(replay.blocks(buffer))


def assert_consistent(buffer, left_out, kind):
    """What is sampled has really happened, and nothing of it was left out."""
    for _ in range(3):
        batch = buffer.sample(64)
        first, last = (part["a"] if isinstance(part, dict) else part for part in (batch.observations, batch.next_observations))
        first, last = first[:, 0].numpy(), last[:, 0].numpy()
        discounts = getattr(batch, "discounts", None)
        gamma = buffer.gamma if hasattr(buffer, "gamma") else 1.0
        for number, start in enumerate(first):
            length = 1 if discounts is None else max(1, round(float(np.log(discounts[number, 0].item()) / np.log(gamma))))
            steps = start + np.arange(length)
            assert not set((steps % 1_000).astype(int)) & left_out
            if kind != "less memory" or not batch.dones[number, 0]:
                assert last[number] == start + length
            expected = sum(gamma**i * step for i, step in enumerate(steps))
            assert batch.rewards[number, 0].item() == pytest.approx(expected, rel=1e-5)
            assert batch.actions[number, 0].item() == pytest.approx(start % 1_000 / 1e4, rel=1e-5)


@pytest.mark.parametrize("number", [13, 20, 33])
@pytest.mark.parametrize("kind", BUFFERS)
def test_missing_blocks_are_left_out(kind, number):
    rng = random.Random(0)
    for _ in range(4):
        buffer = fill(make(kind), number, end=lambda step: step % 7 == 6)
        there, parts = save(buffer)
        kept = sorted(rng.sample(range(len(parts)), rng.randrange(1, len(parts))))
        missing = replay.missing_rows(there, buffer.buffer_size, [parts[i] for i in kept])
        left_out = set(contents(buffer)["rewards"][missing, 0].astype(int).tolist())
        back = make(kind)
        replay.restore_rows(back, there, [parts[i] for i in kept])
        n_left_out = len(set(missing) | ({buffer.pos} if kind == "less memory" and buffer.full else set()))
        assert back.size() == buffer.size() - n_left_out == back.pos and not back.full
        assert_consistent(back, left_out, kind)
        for start in range(number, number + 30, 6):  # and on, also after the gap at the newest rows
            fill(back, 6, start=start)
            assert_consistent(back, left_out, kind)


@pytest.mark.parametrize("kind", ["ours of n steps", "sb3's of n steps"])
def test_gaps_end_targets_without_ending_episodes(kind):
    buffer = fill(make(kind), 15, end=lambda step: False)
    there, parts = save(buffer)
    back = make(kind)
    replay.restore_rows(back, there, parts[:1] + parts[2:])
    assert not back.sample(100).dones.any()
    assert_consistent(back, {3, 4, 5}, kind)


def test_everything_is_missing():
    for kind in BUFFERS:
        buffer = fill(make(kind), 33)
        back = make(kind)
        replay.restore_rows(back, replay.position(buffer), [])
        assert (back.size(), back.pos, back.full) == (0, 0, False)
        fill(back, 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda there, parts: there.update(pos=20),
        lambda there, parts: there.update(pos=-1),
        lambda there, parts: parts.append(parts[0]),
        lambda there, parts: setattr(parts[-1], "rows", 50),
        lambda there, parts: parts[0].contents.pop("actions"),
        lambda there, parts: parts[0].contents.update(rewards=np.zeros((3, 1), np.float32)),
        lambda there, parts: parts[0].contents.update({"observations.": np.zeros((3, 2, 5), np.float32)}),
        lambda there, parts: parts[0].contents.update({"next.": np.zeros((0, 2), np.float32)}),
    ],
)
@pytest.mark.parametrize("kind", ["ours", "sb3's"])
def test_what_does_not_fit_is_refused(kind, change):
    there, parts = save(fill(make(kind), 33))
    change(there, parts)
    with pytest.raises(ResumeError, match="replay buffer"):
        replay.restore_rows(make(kind), there, parts)


SMALL = dict(learning_starts=20, batch_size=16, seed=3, device="cpu")
ALGORITHMS = {SoftAC_v1: "Pendulum-v1", SAC: "Pendulum-v1", DQN: "CartPole-v1"}


class Relabel(BaseCallback):
    """Changes the rewards of old rows now and then, and adds to that of the newest row at each step."""

    def _on_step(self):
        buffer = self.model.replay_buffer
        if buffer.size():
            buffer.rewards[buffer.pos - 1] += 0.125
        if self.num_timesteps % 30 == 17:
            buffer.rewards[:10] *= 2
            buffer.timeouts[5] = True
        return True


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.__name__)
def test_trainings_that_change_stored_rows(algorithm, tmp_path):
    def make():
        settings = dict(buffer_size=60, train_freq=5, policy_kwargs=dict(net_arch=[16]), **SMALL)
        return algorithm("MlpPolicy", make_vec_env(ALGORITHMS[algorithm], 1), **settings), [Relabel()]

    expected = uninterrupted(make, 100, tmp_path / "straight")
    assert differences(expected, interrupted(make, 100, tmp_path / "cut", cuts=(75,))) == []


class AtTheStart(BaseCallback):
    """Changes rows where a training, and each rollout, begins: also in front of the callback that saves and restores."""

    def _on_training_start(self):
        obs = self.training_env.reset()
        self.model.replay_buffer.add(obs, obs, np.zeros((1, 1)), np.array([7.0]), np.zeros(1, bool), [{}])

    def _on_rollout_start(self):
        self.model.replay_buffer.rewards[:5] += 0.25

    def _on_step(self):
        return True


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("algorithm", [SoftAC_v1, SAC], ids=lambda a: a.__name__)
def test_rows_that_are_changed_where_a_training_begins(algorithm, first, tmp_path):
    ends = []
    for name, cuts in {"straight": [], "cut": [75]}.items():
        for cut in [*cuts, 10**9]:
            model = algorithm("MlpPolicy", "Pendulum-v1", buffer_size=200, train_freq=5, **SMALL | dict(learning_starts=10**6))
            callbacks = [AtTheStart(), ExactCheckpoint(tmp_path / name, 25), Cut(cut)]
            try:
                model.learn(100, callback=callbacks if first else [callbacks[1], callbacks[0], callbacks[2]])
            except KeyboardInterrupt:
                continue
            ends.append(fingerprint(model))
    assert differences(*ends) == []


def test_only_what_has_changed_is_written(tmp_path):
    model = SoftAC_v1("MlpPolicy", "Pendulum-v1", buffer_size=70, **SMALL | dict(learning_starts=10**6))
    model.learn(200, callback=ExactCheckpoint(tmp_path, 50))
    folders = [path for path in sorted(tmp_path.glob("checkpoint-*"))][-2:]
    files = [{path.name: path.stat().st_ino for path in folder.glob("rows-*")} for folder in folders]
    shared = files[0].items() & files[1].items()
    assert [len(part) for part in (*files, shared)] == [7, 7, 2]


DAMAGES = {
    "bit": lambda content, rng: flip(content, rng.randrange(8 * len(content))),
    "truncated": lambda content, rng: content[: rng.randrange(len(content))],
    "zeros": lambda content, rng: content[:40] + bytes(len(content) - 40),
    "gone": lambda content, rng: None,
    "empty": lambda content, rng: b"",
}


def flip(content, bit):
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def damage(folder, rng, number):
    """Damage some files with rows in place, so that checkpoints that share them are damaged too."""
    files = sorted(folder.glob("rows-*"))
    for path in rng.sample(files, min(number, len(files))):
        content = DAMAGES[rng.choice([*DAMAGES])](path.read_bytes(), rng)
        if content is None:
            for link in folder.parent.glob(f"checkpoint-*/{path.name}"):
                link.unlink()
        else:
            with open(path, "r+b") as file:
                file.write(content)
                file.truncate(len(content))


def trainings():
    settings = dict(
        buffer_size=200, train_freq=20, policy_kwargs=dict(net_arch=[16]), **SMALL
    )  # SB3 writes into policy_kwargs
    her = dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(n_sampled_goal=2))
    return {
        "SoftAC_v1": lambda: SoftAC_v1("MlpPolicy", make_vec_env("Pendulum-v1", 2), n_steps=3, **settings),
        "DiscreteSAC": lambda: DiscreteSAC("MlpPolicy", "CartPole-v1", **settings),
        "SAC": lambda: SAC("MlpPolicy", "Pendulum-v1", **settings),
        "HER": lambda: SAC("MultiInputPolicy", BitFlippingEnv(n_bits=4, continuous=True), **her, **settings),
    }


def drill(kind, tmp_path, number, lost):
    """Resume from damaged checkpoints, each with other damage, and list how many transitions were lost each time."""
    model = trainings()[kind]()
    template = tmp_path / "template"
    model.learn(500, callback=[ExactCheckpoint(template, 50), Sizes()])
    last = model.num_timesteps
    for seed in range(number):
        rng, folder = random.Random(seed), tmp_path / str(seed)
        subprocess.run(["cp", "-a", template, folder], check=True)  # with its hard links
        damage(max(folder.glob("checkpoint-*")), rng, rng.randrange(1, 4))
        if seed % 10 == 0:
            shutil.rmtree(min(folder.glob("checkpoint-*")))
        model = trainings()[kind]()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.learn(600, callback=[ExactCheckpoint(folder, 10), (sizes := Sizes())])
        texts = [
            str(warning.message) for warning in caught if "transitions in the replay buffer are lost" in str(warning.message)
        ]
        ((n_lost, n_before),) = re.findall(r"(\d+) of (\d+) transitions", texts[0])
        assert len(texts) == 1 and f"step {last} without them" in texts[0]
        if kind != "HER":
            assert sizes.first * model.n_envs == int(n_before) - int(n_lost)
        assert model.num_timesteps == 600 and np.isfinite(next(flatten(model.get_parameters()))[1]).all()
        # What is saved now is whole again
        again = trainings()[kind]()
        again.learn(600, callback=[ExactCheckpoint(folder, 10), Sizes()])
        assert_same(again.replay_buffer, model.replay_buffer)
        lost.append(int(n_lost))
        shutil.rmtree(folder)


class Sizes(BaseCallback):
    """Number of rows when the training begins."""

    not_resumed = ("first",)
    first = None

    def _on_step(self):
        self.first = self.first or self.model.replay_buffer.size()
        return True


@pytest.mark.parametrize("kind", trainings())
def test_damaged_rows_are_left_out(kind, tmp_path):
    lost = []
    drill(kind, tmp_path, 2, lost)
    assert all(0 < n_lost < 100 for n_lost in lost)


def test_episodes_with_missing_rows_are_not_sampled(tmp_path):
    space = spaces.Dict({key: VECTOR for key in ("observation", "achieved_goal", "desired_goal")})
    rng = np.random.default_rng(0)

    class Goals:
        num_envs = 2

        def env_method(self, name, achieved, desired, infos, indices=None):
            return [np.zeros(len(achieved), np.float32)]

    for number in (30, 53):
        for missing in range(7):
            buffer = HerReplayBuffer(40, space, ACTIONS, Goals(), "cpu", n_envs=2)
            for step in range(number):
                pair = [{key: observe(part, step + shift, 2) for key, part in space.items()} for shift in (0, 1)]
                dones = rng.random(2) < 0.2
                buffer.add(*pair, np.zeros((2, 1)), np.zeros(2), dones, [{}] * 2)
            there, parts = save(buffer)
            parts = [part for number, part in enumerate(parts) if number != missing]
            rows = replay.missing_rows(there, buffer.buffer_size, parts)
            replay.restore_rows(buffer, there, parts)
            replay.forget_episodes(buffer, rows)
            assert buffer.size() == min(number, 20) and not buffer.ep_length[rows].any()
            for step in range(number, number + 40):
                pair = [{key: observe(part, step + shift, 2) for key, part in space.items()} for shift in (0, 1)]
                buffer.add(*pair, np.zeros((2, 1)), np.zeros(2), rng.random(2) < 0.2, [{}] * 2)
                if (buffer.ep_length > 0).any():
                    batch = buffer.sample(64)
                    steps, following = (part["observation"][:, 0] for part in (batch.observations, batch.next_observations))
                    np.testing.assert_array_equal(steps + 1, following)


class Vandal(BaseCallback):
    """Damages all files with rows at one step."""

    not_resumed = ("folder", "step")

    def __init__(self, folder, step):
        super().__init__()
        self.folder, self.step = folder, step

    def _on_step(self):
        if self.num_timesteps == self.step:
            for path in self.folder.glob("checkpoint-*/rows-*"):
                path.write_bytes(b"x")
        return True


def test_files_that_are_damaged_during_the_training_are_written_again(tmp_path):
    ends = []
    for step in (70, 10**6):
        model = SoftAC_v1("MlpPolicy", "Pendulum-v1", buffer_size=100, **SMALL | dict(learning_starts=10**6))
        model.learn(100, callback=[Vandal(tmp_path, step), ExactCheckpoint(tmp_path, 25)])
        ends.append(model.replay_buffer)
    assert_same(*ends)
