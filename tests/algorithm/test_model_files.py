"""Saved models are written at once or not at all, and can be read without running what is in them."""

import base64
import io
import json
import os
import pickle
import re
import tracemalloc
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import rl_zoo3.utils
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common import noise, utils
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_softac import SoftAC_v1
from sb3_softac.algorithm.plain_json import NotPlain, from_plain, to_plain
from sb3_softac.files.plain_files import safe_load_is_on
from tests.toys import ENVIRONMENTS, RandomEnv, algorithms, assert_equal, state_of


def make(algorithm=SoftAC_v1, **kwargs):
    kwargs = {"policy_kwargs": dict(net_arch=[4], activation_fn=th.nn.Tanh), **kwargs}
    small = dict(device="cpu", learning_starts=5, batch_size=4, buffer_size=100)
    return algorithm("MlpPolicy", ENVIRONMENTS[algorithm], **small, **kwargs)


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """Change the members of a zip, a dictionary of bytes by name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def pickled(value):
    return {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(value)).decode()}


def put(members, key, value, member="data"):
    data = json.loads(members[member])
    data[key] = value
    members[member] = json.dumps(data).encode()


@algorithms
def test_safe_load_gives_the_same_model(algorithm, tmp_path):
    model = make(algorithm, train_freq=(2, "step")).learn(20)
    model.save(tmp_path / "model")
    safe, plain = (algorithm.load(tmp_path / "model", gym.make(ENVIRONMENTS[algorithm]), safe=safe) for safe in (True, False))
    observations = np.array([model.observation_space.sample() for _ in range(50)])
    assert np.array_equal(
        safe.predict(observations, deterministic=True)[0], plain.predict(observations, deterministic=True)[0]
    )
    assert (safe.observation_space, safe.action_space) == (plain.observation_space, plain.action_space)
    for name in ("policy_class", "policy_kwargs", "train_freq", "replay_buffer_class", "num_timesteps", "_n_updates"):
        assert getattr(safe, name) == getattr(plain, name), name
    safe.learn(10)


MALICIOUS = {
    "an extra key": lambda members, bomb: put(members, "anything", pickled(bomb)),
    "a known key": lambda members, bomb: put(members, "gamma", pickled(bomb)),
    "among the tensors": lambda members, bomb: members.update({"policy.pth": dumped(bomb)}),
    "a name that leads out": lambda members, bomb: members.update({"../outside": b""}),
    "an environment": lambda members, bomb: put(members, "env", "this:Env-v0"),
    "an environment in JSON": lambda members, bomb: put(members, "env", "this:Env-v0", "plain.json"),
    "an unknown class": lambda members, bomb: put(members, "policy_class", {"class": "Popen"}, "plain.json"),
    "an array of objects": lambda members, bomb: put(
        members, "action_space", {"space": ["Box", 0, 1, [1], "O"]}, "plain.json"
    ),
}


def dumped(value):
    file = io.BytesIO()
    th.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", MALICIOUS)
def test_malicious_files_are_refused(kind, tmp_path):
    path, canary = tmp_path / "model.zip", tmp_path / "canary"
    make().save(path)
    rewrite(path, lambda members: MALICIOUS[kind](members, Canary(canary)))
    with pytest.raises((ValueError, TypeError)):
        SoftAC_v1.load(path, safe=True)
    assert not canary.exists()


def test_a_pickle_that_is_not_needed_is_not_read(tmp_path):
    path, canary = tmp_path / "model.zip", tmp_path / "canary"
    make().save(path)
    rewrite(path, lambda members: put(members, "policy_class", pickled(Canary(canary))))
    SoftAC_v1.load(path, safe=True)
    assert not canary.exists()
    with pytest.raises(ValueError, match="cannot use the policy None"):
        SoftAC_v1.load(path)
    assert canary.exists()


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "model.zip"
    make().save(path)
    rewrite(path, lambda members: members.update({"bomb.pth": bytes(10_000_000)}), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"Refused: .* save\(\) has written: 'data' is compressed"):
        SoftAC_v1.load(path, safe=True)


def test_members_that_share_their_content_are_refused(tmp_path):
    path = tmp_path / "model.zip"
    make().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += [archive.getinfo("policy.pth")] * 1_000
        archive.writestr("last.pth", b"")
    with pytest.raises(ValueError, match=r"Refused: .* claims to contain more data than it does"):
        SoftAC_v1.load(path, safe=True)


def rewrite_tensors(members, change, compression=zipfile.ZIP_STORED, member="policy.pth"):
    """Change the members of the zip that PyTorch has written."""
    file = io.BytesIO(members[member])
    rewrite(file, change, compression)
    members[member] = file.getvalue()


def deflated(members):
    rewrite_tensors(members, lambda inner: inner.update({"archive/data/9": bytes(10_000_000)}), zipfile.ZIP_DEFLATED)


def longer_than_its_data(members):
    rewrite_tensors(members, lambda inner: inner.update({"archive/data/0": inner["archive/data/0"][:-4]}))


def a_call(module, name, argument):
    code = f"c{module}\n{name}\n".encode() + pickle.dumps((argument,), 2)[2:-1] + b"R."

    def change(members):
        rewrite_tensors(members, lambda inner: inner.update({"archive/data.pkl": b"\x80\x02" + code}))

    return change


def declares(**kwargs):
    return lambda members: put(members, "policy_kwargs", to_plain(kwargs, {}), "plain.json")


def a_space(*plain):
    return lambda members: put(members, "observation_space", {"space": list(plain)}, "plain.json")


LARGE = {
    "a deflated tensor": (deflated, "policy.pth: 'archive/data.pkl' is compressed"),
    "a tensor without data": (longer_than_its_data, "policy.pth: a tensor has another size than its data"),
    "a call": (a_call("builtins", "bytearray", 10**12), "policy.pth: it contains builtins.bytearray"),
    "code": (a_call("os", "mkdir", "canary"), "policy.pth: it contains os.mkdir"),
    "deep networks": (declares(net_arch=[2000] * 400), "describes networks with more parameters than it has numbers"),
    "wide networks": (declares(net_arch=[10**5, 10**5]), "describes "),
    "many networks": (declares(net_arch=[4], n_critics=10**6), "describes networks with more parameters than it has numbers"),
    "many layers": (declares(net_arch=[1] * 20_000), "describes networks with more parameters than it has numbers"),
    "a mixture": (
        declares(net_arch=[4], distribution="mixture", distribution_kwargs={"n_components": 10**8}),
        "more parameters than it has numbers",
    ),
    "observations": (a_space("Box", 0, 1, [500_000_000], "float32"), "its spaces are larger than its networks can be"),
    "pictures": (a_space("Box", 0, 255, [3, 10**5, 10**5], "uint8"), "its spaces are larger"),
    "many observations": (
        a_space("Dict", {str(i): ["Box", 0, 1, [10**5], "float32"] for i in range(99)}),
        "its spaces are larger",
    ),
    "values": (a_space("Discrete", 10**12, 0), "its spaces are larger"),
    "bits": (a_space("MultiBinary", [10**9]), "its spaces are larger"),
    "lists of values": (a_space("MultiDiscrete", [10**9] * 3, [0] * 3), "its spaces are larger"),
    "a negative size": (a_space("Box", 0, 1, [-1, -(10**9)], "float32"), "is not a number of elements"),
    "long words": (a_space("Box", 0, 1, [1], "U99999999"), "is not a numeric dtype"),
    "depth": (lambda members: members.update({"plain.json": b"[" * 10**5}), "RecursionError"),
    "depth of data": (lambda members: members.update({"data": b'{"a":' * 10**5}), "RecursionError"),
    "long numbers": (lambda members: members.update({"data": b'{"a":' + b"1" * 10**5 + b"}"}), "ValueError"),
    "no attributes": (lambda members: members.update({"data": b"[]"}), "it has no attributes"),
    "no data": (lambda members: members.pop("data"), "KeyError"),
    "tensors of before": (lambda members: members.update({"policy.pth": b"\x80\x02"}), "policy.pth: it is not a zip file"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", LARGE)
def test_what_a_file_declares_is_compared_with_its_size(kind, tmp_path):
    path, (change, message) = tmp_path / "model.zip", LARGE[kind]
    make().save(path)
    rewrite(path, change)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"Refused: .*{re.escape(message)}"):
        SoftAC_v1.load(path, safe=True)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_a_tensor_in_place_of_a_storage_is_refused(tmp_path):
    path = tmp_path / "model.zip"
    make().save(path)
    rewrite(path, lambda members: members.update({"policy.pth": dumped(th.ones(1).expand(10**9))}))
    with pytest.raises(ValueError, match="a tensor repeats its data"):
        SoftAC_v1.load(path, safe=True)


FOREIGN = {
    "a place in JSON": ("tensorboard_log", "/victim", "plain.json"),
    "a method": ("learn", 1, "data"),
    "a device": ("device", "cuda:7", "data"),
    "a logger": ("_custom_logger", True, "data"),
    "more in JSON": ("gamma", 0.5, "plain.json"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_save_does_not_write_is_refused(kind, tmp_path):
    path, (name, value, member) = tmp_path / "model.zip", FOREIGN[kind]
    make().save(path)
    rewrite(path, lambda members: put(members, name, value, member))
    with pytest.raises(ValueError, match=rf"\['{name}'\] is not something that save\(\) writes"):
        SoftAC_v1.load(path, safe=True)


def test_a_file_does_not_choose_where_logs_go(tmp_path):
    path = tmp_path / "model.zip"
    make(tensorboard_log=str(tmp_path / "mine")).save(path)
    assert SoftAC_v1.load(path, safe=True).tensorboard_log is None
    rewrite(path, lambda members: put(members, "tensorboard_log", pickled("/victim")))
    rewrite(path, lambda members: put(members, "tensorboard_log", "/victim", "plain.json"))
    assert SoftAC_v1.load(path, safe=True).tensorboard_log is None
    own = str(tmp_path / "given")
    assert SoftAC_v1.load(path, safe=True, tensorboard_log=own).tensorboard_log == own


@pytest.mark.parametrize("name", ["model.zip", "model"])
def test_only_plain_files_are_opened(name, tmp_path):
    os.mkfifo(tmp_path / "model.zip")
    with pytest.raises(OSError, match="is not a regular file"):
        SoftAC_v1.load(tmp_path / name, safe=True)


@pytest.mark.parametrize("said", ["1", "true", "yes"])
def test_the_switch_is_on_whatever_it_is_set_to(said, monkeypatch):
    monkeypatch.setenv("SB3_SOFTAC_SAFE_LOAD", said)
    assert safe_load_is_on()


@pytest.mark.parametrize("said", ["", "0", None])
def test_the_switch_is_off(said, monkeypatch):
    monkeypatch.delenv("SB3_SOFTAC_SAFE_LOAD", raising=False)
    if said is not None:
        monkeypatch.setenv("SB3_SOFTAC_SAFE_LOAD", said)
    assert not safe_load_is_on()


def test_a_file_of_before_is_refused_and_converted(tmp_path):
    path = tmp_path / "model.zip"
    make().save(path)
    rewrite(path, lambda members: members.pop("plain.json"))
    with pytest.raises(ValueError, match=r"Refused: \['action_space', .*once with SoftAC_v1.load\(path\).save\(path\)"):
        SoftAC_v1.load(path, safe=True)
    SoftAC_v1.load(path).save(path)
    SoftAC_v1.load(path, safe=True)


def test_what_has_no_form_in_json_is_named(tmp_path):
    path = tmp_path / "model.zip"
    make(learning_rate=lambda remaining: 1e-3).save(path)
    with pytest.raises(ValueError, match=r"Refused: \['learning_rate'\] in"):
        SoftAC_v1.load(path, safe=True)
    assert SoftAC_v1.load(path, safe=True, custom_objects={"learning_rate": 1e-3}).lr_schedule(1) == 1e-3


def test_programs_of_others_can_be_told(tmp_path, monkeypatch):
    path = tmp_path / "model.zip"
    make(learning_rate=lambda remaining: 1e-3).save(path)
    monkeypatch.setenv("SB3_SOFTAC_SAFE_LOAD", "1")
    with pytest.raises(ValueError, match=r"Refused: \['learning_rate'\] in"):
        SoftAC_v1.load(path)
    SoftAC_v1.load(path, safe=False)


class Full(RuntimeError):
    pass


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_file(call, tmp_path, monkeypatch):
    path = tmp_path / "model.zip"
    make().save(path)
    before = path.read_bytes()

    def fail(*args):
        raise Full

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(Full):
            make().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.zip"]


def test_paths_and_streams(tmp_path):
    model = make()
    model.save(tmp_path / "new" / "model")
    (tmp_path / "link.zip").symlink_to(tmp_path / "new" / "model.zip")
    model.save(tmp_path / "link")
    assert (tmp_path / "link.zip").is_symlink()
    (tmp_path / "folder").mkdir()
    model.save(tmp_path / "folder")  # as RL Zoo does
    (tmp_path / "folder.a").mkdir()
    with pytest.warns(UserWarning, match="is a folder. Will save instead to"):
        model.save(tmp_path / "folder.a")
    stream = io.BytesIO()
    model.save(stream)
    with open(tmp_path / "stream.zip", "wb") as file:
        model.save(file)
    for name in ("new/model.zip", "link", "folder.zip", "folder.a_2", "stream"):
        SoftAC_v1.load(tmp_path / name, safe=True)
    SoftAC_v1.load(stream, safe=True)  # which stands at its end


SPACES = [
    spaces.Box(-1.5, np.array([2.0, np.inf], np.float32)),
    spaces.Box(0, 255, (3, 4, 4), np.uint8),
    spaces.Box(-1, 1, (2,), np.float64),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 3]),
    spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (2,))),
]


CLASSES = [HerReplayBuffer, th.nn.ReLU, th.optim.AdamW, np.float32]
NUMBERS = [np.float32(0.1), np.int64(3), np.bool_(True), GoalSelectionStrategy.EPISODE]


@pytest.mark.parametrize("value", [*SPACES, *CLASSES, *NUMBERS, [1, (2.5, None)], {"a": {"b": "c"}}])
def test_values_come_back(value):
    back = from_plain(json.loads(json.dumps(to_plain(value, {}))), {})
    assert back == value and type(back) is type(value)


SCHEDULES = [
    utils.ConstantSchedule(1e-3),
    utils.LinearSchedule(1e-3, 1e-5, 0.7),
    utils.FloatSchedule(utils.LinearSchedule(1e-3, 0, 1)),
    utils.FloatSchedule(1e-3),
    rl_zoo3.utils.SimpleLinearSchedule("3e-4"),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_schedules_come_back(schedule, tmp_path):
    make(learning_rate=schedule).save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", safe=True)
    assert type(loaded.learning_rate) is type(schedule)
    assert [loaded.lr_schedule(x) for x in (1.0, 0.6, 0.1, 0.0)] == [float(schedule(x)) for x in (1.0, 0.6, 0.1, 0.0)]


NOISE = [
    noise.NormalActionNoise(np.zeros(1), np.full(1, 0.1)),
    noise.OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.1), initial_noise=np.ones(1)),
    noise.VectorizedActionNoise(noise.NormalActionNoise(np.zeros(1), np.full(1, 0.1)), 2),
]


@pytest.mark.parametrize("value", NOISE, ids=lambda value: type(value).__name__)
def test_noise_comes_back(value, tmp_path):
    make(action_noise=value).save(tmp_path / "model")
    loaded = SoftAC_v1.load(tmp_path / "model", safe=True).action_noise
    assert type(loaded) is type(value)
    draws = []
    for part in (value, loaded):
        part.reset()
        np.random.seed(0)
        draws.append([part() for _ in range(3)])
    assert np.array_equal(*draws) and draws[0][0].dtype == draws[1][0].dtype


@pytest.mark.parametrize("value", [spaces.Text(3), object(), print, {1: 2}, RandomEnv])
def test_other_values_have_no_form(value):
    with pytest.raises(NotPlain):
        to_plain(value, {})


@algorithms()
def test_a_pickled_model_trains_as_the_original(algorithm):
    """As a pool of processes sends it."""
    model = make(algorithm).learn(12)
    twin = pickle.loads(pickle.dumps(model))
    for each in (model, twin):
        th.manual_seed(1)
        np.random.seed(1)
        each.train(3, 4)
    assert_equal(state_of(model), state_of(twin))


@algorithms()
def test_policy_kwargs_that_the_model_was_made_with(algorithm, tmp_path):
    kwargs = dict(net_arch=[4])
    make(algorithm, policy_kwargs=kwargs).save(tmp_path / "model")
    assert algorithm.load(tmp_path / "model", policy_kwargs=kwargs).policy_kwargs["net_arch"] == [4]
    with pytest.raises(ValueError, match=r"policy_kwargs=\{'net_arch': \[8\]\} cannot be loaded: the saved networks have"):
        algorithm.load(tmp_path / "model", policy_kwargs=dict(net_arch=[8]))
