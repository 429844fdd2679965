"""A checkpoint that somebody has made up: it cannot choose where the program writes, nor hang it, nor fill its memory."""

import copy
import json
import os
import re
import shutil
import types
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import save_file
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnvWrapper

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, ResumeError
from sb3_softac.resume.codecs import CODECS, read_attributes
from sb3_softac.resume.serialization import Reader
from sb3_softac.resume.snapshot import capture
from sb3_softac.resume.store import Store, digest, manifest_text, read_checkpoint


class Recorder(gym.Wrapper):
    """Writes files, as wrappers that record videos do."""

    def __init__(self, env, folder):
        super().__init__(env)
        self.video_folder, self.place, self.last_video, self.phase = str(folder), folder, None, "warm"


class VecRecorder(VecEnvWrapper):
    def __init__(self, venv, folder):
        super().__init__(venv)
        self.video_path, self.name_prefix, self.names = str(folder), "video", [str(folder)]

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


class Notes(BaseCallback):
    def __init__(self, folder):
        super().__init__()
        self.notes, self.settings, self.report, self.files = {"file": str(folder)}, Settings(folder), None, []
        self.write, self.open, self.array = (lambda: str(folder)), partial(open, str(folder)), np.array([str(folder)])

    def _on_step(self):
        return True


class Settings:
    def __init__(self, folder):
        self.folder, self.steps, self.output = str(folder), 3, None


def make(folder):
    """:return: A model and callbacks that write into a folder, not including the checkpoints."""

    def make_env():
        return Recorder(gym.make("Pendulum-v1", max_episode_steps=9), folder)

    evaluated, venv = (VecRecorder(make_vec_env(make_env, 1), folder) for _ in range(2))
    frequent = dict(eval_freq=20, n_eval_episodes=1, verbose=0)
    callbacks = [
        EvalCallback(evaluated, log_path=str(folder), best_model_save_path=str(folder), **frequent),
        EvalCallback(evaluated, **frequent),
        CheckpointCallback(10, str(folder), "model"),
        Notes(folder),
    ]
    small = dict(learning_starts=5, batch_size=4, buffer_size=100, policy_kwargs=dict(net_arch=[4]))
    model = SoftAC_v1("MlpPolicy", venv, seed=0, device="cpu", **small)
    return model, callbacks


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder with one checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, callbacks = make(folder / "own")
    model.learn(30, callback=[*callbacks, ExactCheckpoint(folder / "checkpoints")])
    return folder / "checkpoints"


def sign(folder, step=30):
    """Give a checkpoint the digests of its files, as whoever changes it would."""
    path = folder / f"checkpoint-{step:012d}"
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = {name: digest(path / name) for name in manifest["files"]}
    (path / "manifest.json").write_text(manifest_text(manifest))


def change_state(folder, change):
    path = folder / "checkpoint-000000000030" / "state.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    sign(folder)


def attribute_tables(tree):
    """All dictionaries of attributes in the state: of the algorithm, callbacks, wrappers and environments."""
    if isinstance(tree, list):
        for part in tree:
            yield from attribute_tables(part)
    elif isinstance(tree, dict):
        for name, part in tree.items():
            if name in ("attributes", "constants") and isinstance(part, dict):
                yield part
            elif name == "wrappers" and isinstance(part, list):
                yield from part
            yield from attribute_tables(part)


PLACES = (
    *(
        "log_path",
        "best_model_save_path",
        "save_path",
        "name_prefix",
        "tensorboard_log",
        "video_folder",
        "place",
        "video_path",
    ),
    *("last_video", "folder", "names", "notes", "report", "output", "filename", "results_writer", "evaluations_timesteps"),
    *("files", "write", "open", "array"),
)


NOT_SEARCHED = ("locals", "globals", "policy", "spec", "_logger", "logger", "metadata", "engines", "watch", "_announced")


def parts_of(value):
    """What a value consists of, by name."""
    if isinstance(value, partial):
        return {"args": value.args}
    if isinstance(value, types.FunctionType):
        return {
            name: cell.cell_contents for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        }
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype.kind == "U"):
        return dict(enumerate(value))
    if isinstance(value, dict):
        return value
    own = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    return {name: part for name, part in own.items() if name not in NOT_SEARCHED}


def all_places(model, callbacks):
    """Every text, path and name of a file that the program has, however deep."""
    found, seen = {}, {}

    def walk(value, name):
        if isinstance(value, str | bytes | Path):
            found[name] = value
        elif id(value) not in seen and name.count(".") < 12:
            if hasattr(value, "__dict__"):
                seen[id(value)] = value
            for key, part in parts_of(value).items():
                walk(part, f"{name}.{key}")

    walk(model, "model")
    walk(callbacks, "callbacks")
    return found


FORMS = {
    "text": lambda victim: str(victim),
    "a word": lambda victim: "authorized_keys",
    "text of NumPy": lambda victim: {"text": str(victim)},
    "bytes": lambda victim: {"bytes": "L3RtcC92aWN0aW0="},
    "a handle": lambda victim: 1,
    "true": lambda victim: True,
    "a list": lambda victim: {"list": [str(victim)]},
    "an object": lambda victim: {"object": {"class": "Settings", "attributes": {"folder": str(victim)}}},
    "what another value was": lambda victim: {"same": 1},
    "what does not exist": lambda victim: {"same": 10**9},
    "a kind that does not exist": lambda victim: {"evil": str(victim)},
    "a list of nothing": lambda victim: {},
}


@pytest.mark.parametrize("everywhere", [True, False], ids=["every attribute", "every place"])
@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_does_not_choose_where_the_program_writes(form, everywhere, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")
    victim = tmp_path / "victim" / "file"
    counts = []

    def change(tree):
        for table in list(attribute_tables(tree)):
            for name in table.keys() | set(PLACES) if not everywhere else table:
                part = table.get(name)
                if name in PLACES or (everywhere and (part is None or isinstance(part, bool | int | float | str))):
                    table[name] = FORMS[form](victim)
                    counts.append(name)

    change_state(tmp_path / "checkpoints", change)
    assert len(counts) > 50
    model, callbacks = make(tmp_path / "own")
    before = copy.deepcopy(all_places(model, callbacks))
    try:
        model.learn(60, callback=[*callbacks, ExactCheckpoint(tmp_path / "checkpoints")])
    except Exception:  # whatever made-up numbers lead to
        pass
    after = all_places(model, callbacks)
    assert {name: after.get(name) for name in before} == before
    places = [name for name, text in after.items() if "victim" in str(text) or "authorized_keys" in str(text)]
    assert all(".env.env.env.env." in name for name in places) and (not places or form == "a word")  # it is a state there
    assert {path.name for path in tmp_path.iterdir()} <= {"checkpoints", "own"}


VICTIM = "/victim/file"
ELSEWHERE = {  # what is there, and with what text in it, each where the writer would write it
    "names": {"at": None, "list": [VICTIM]},
    "notes": {"at": None, "dict": ["dict", ["file", VICTIM]]},
    "files": {"at": None, "list": ["authorized_keys"]},
    "write": {"at": None, "function": [[{"at": None, "cell": [VICTIM]}], None, None, {}]},
    "open": {"at": None, "partial": [{"kept": None}, {"tuple": [VICTIM]}, {"at": None, "dict": ["dict"]}]},
    "array": {"at": None, "items": ["<U99", [1], True, [VICTIM]]},
    "place": {"at": "callback.callbacks.3.files", "list": ["authorized_keys"]},
    "steps": {"at": "callback.callbacks.3.notes", "dict": ["dict", ["file", VICTIM]]},
}


@pytest.mark.filterwarnings("ignore:These attributes cannot be saved")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_checkpoint_does_not_change_names_of_files_in_place(name, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")
    counts = []

    def change(tree):
        for table in list(attribute_tables(tree)):
            if name in table:
                table[name] = ELSEWHERE[name]
                counts.append(name)

    change_state(tmp_path / "checkpoints", change)
    assert counts
    model, callbacks = make(tmp_path / "own")
    before = copy.deepcopy(all_places(model, callbacks))
    model.learn(60, callback=[*callbacks, ExactCheckpoint(tmp_path / "checkpoints")])
    after = all_places(model, callbacks)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name, text in after.items() if "victim" in str(text) or "authorized_keys" in str(text)]


@pytest.mark.parametrize("name", ["log_path", "model", "parent", "new_text"])
def test_what_is_never_saved_is_named(name, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")

    def change(tree):
        callback = tree["callbacks"]["callback"]["attributes"]["callbacks"]["list"][0]["callback"]
        callback["attributes"][name] = "anything"

    change_state(tmp_path / "checkpoints", change)
    model, callbacks = make(tmp_path / "own")
    with pytest.raises(ResumeError, match=rf"{name} is not something that a checkpoint contains: the checkpoint was changed"):
        model.learn(60, callback=[*callbacks, ExactCheckpoint(tmp_path / "checkpoints")])


class Refused(BaseCallback):
    """Ends a training where a checkpoint is refused."""

    def _on_training_start(self):
        raise ResumeError

    def _on_step(self):
        return True


def state_of(model, callbacks):
    snapshot = capture(model, CallbackList(callbacks))
    return json.dumps(snapshot.tree) + str({name: part.tolist() for name, part in snapshot.tensors.items()})


@pytest.mark.parametrize("part", ["attributes", "environment", "callbacks", "generators", "parameters"])
def test_a_refused_checkpoint_changes_nothing(part, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")

    def change(tree):
        if part == "callbacks":
            tree[part]["callback"]["attributes"]["callbacks"]["list"][-1] = {"evil": 1}
        elif part == "parameters":
            tree[part]["dict"].pop()
        else:
            tree[part] = {"evil": {"evil": 1}}

    change_state(tmp_path / "checkpoints", change)
    states = []
    for last in ([ExactCheckpoint(tmp_path / "none"), Refused()], [ExactCheckpoint(tmp_path / "checkpoints")]):
        model, callbacks = make(tmp_path / "own")
        with pytest.raises(ResumeError):
            model.learn(60, callback=[*callbacks, *last])
        states.append(re.sub(r"\d{10}\.\d+", "time", state_of(model, callbacks)))
    assert states[0] == states[1]


def test_what_would_not_be_saved_is_not_deleted(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")

    def change(tree):
        first, _, third, *_ = tree["callbacks"]["callback"]["attributes"]["callbacks"]["list"]
        first["callback"]["gone"], third["callback"]["gone"] = ["log_path", "model"], ["save_path", "model"]

    change_state(tmp_path / "checkpoints", change)
    model, callbacks = make(tmp_path / "own")
    model.learn(40, callback=[*callbacks, ExactCheckpoint(tmp_path / "checkpoints")])
    assert callbacks[0].log_path and callbacks[2].save_path and callbacks[0].model is callbacks[2].model is model


def read(live, **written):
    reader = Reader({}, CODECS)
    read_attributes(reader, written, live, "live")
    reader.apply()
    return live


def test_text_that_is_state_comes_back(tmp_path):
    live = Recorder(gym.make("Pendulum-v1"), tmp_path)
    assert read(live, phase="hot", last_video="far away", place=3).phase == "hot"
    assert live.last_video == "far away" and live.place == tmp_path
    assert read(live, phase=None).phase is None
    live.goal = str(tmp_path)
    assert read(live, goal="authorized_keys").goal == str(tmp_path)
    for written in (3, {"list": []}):
        live.phase = "warm"
        with pytest.raises(ResumeError, match=r"live.phase is 'warm' now, but \w+ was saved"):
            read(live, phase=written)
    with pytest.raises(ResumeError, match=r"live.step is a method"):
        read(live, step=3)


# Files


def only(folder):
    return folder / "checkpoint-000000000030"


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def link_to(target):
    def replace(path):
        path.unlink()
        path.symlink_to(target)

    return replace


def link_to_itself(path):
    path.rename(path.with_name("copy"))
    path.symlink_to(path.with_name("copy"))


def sparse(path):
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(2**42)  # takes no room on the disk


def folder(path):
    path.unlink()
    path.mkdir()


ODD_FILES = {
    "a FIFO": fifo,
    "a link to a device": link_to("/dev/zero"),
    "a link": link_to_itself,
    "a huge file without content": sparse,
    "a folder": folder,
    "nothing": os.unlink,
}
FILES = ["manifest.json", "state.json", "state.safetensors", "rows-000000000030-000000000.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ODD_FILES)
def test_only_plain_files_are_opened(kind, name, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    ODD_FILES[kind](only(tmp_path) / name)
    if name.startswith("rows"):  # training goes on without them
        assert [path.name for path in Store(tmp_path).newest().damaged] == [name]
    else:
        with pytest.raises(ResumeError, match=name):
            read_checkpoint(only(tmp_path))
        with pytest.raises(ResumeError, match="No checkpoint can be read"):
            Store(tmp_path).newest()
    Store(tmp_path).save(40, {}, {}, [], [(0, {"rewards": np.zeros((1, 1))})], score=1.0)  # reads the scores of the others


@pytest.mark.parametrize("content", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, "[]", "{}", "null", "\udcff"])
@pytest.mark.parametrize("name", FILES[:2])
def test_odd_json(name, content, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")
    (only(tmp_path / "checkpoints") / name).write_text(content, errors="surrogateescape")
    if name == "state.json":
        sign(tmp_path / "checkpoints")
    model, callbacks = make(tmp_path / "own")
    with pytest.raises(ResumeError):
        model.learn(60, callback=[*callbacks, ExactCheckpoint(tmp_path / "checkpoints")])


def test_deep_values_are_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "checkpoints")
    deep = 1
    for _ in range(400):
        deep = {"list": [deep]}
    change_state(tmp_path / "checkpoints", lambda tree: tree["attributes"].update(deep=deep))
    model, callbacks = make(tmp_path / "own")
    with pytest.raises(ResumeError):
        model.learn(60, callback=[*callbacks, ExactCheckpoint(tmp_path / "checkpoints")])


def test_arrays_of_items_are_as_large_as_their_items():
    for content in (["<U5", [10**9], []], ["|O", [2], [1]], ["<U1000000000", [1], ["a"]], ["<f8", [1], [1.0]]):
        with pytest.raises(ResumeError, match="are not an array of the shape"):
            read(Settings(""), steps={"items": [content[0], content[1], False, content[2]]})


def test_a_file_of_tensors_that_lies_about_its_size(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    path = only(tmp_path) / "state.safetensors"
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**11], "data_offsets": [0, 4 * 10**11]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    sign(tmp_path)
    with pytest.raises(ResumeError, match="cannot be read"):
        read_checkpoint(only(tmp_path))
    save_file({}, path)
