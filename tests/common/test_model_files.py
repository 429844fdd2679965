"""Saved models are written at once or not at all, and can be read without running what is in them."""

import base64
import io
import json
import os
import pickle
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.common.plain_json import NotPlain, from_plain, to_plain
from tests.random_observations import RandomObservations

ALGORITHMS = {SoftAC_v1: "Pendulum-v1", DiscreteSAC: "CartPole-v1", SQL: "Pendulum-v1"}


def make(algorithm=SoftAC_v1, **kwargs):
    kwargs = {"policy_kwargs": dict(net_arch=[4], activation_fn=th.nn.Tanh), **kwargs}
    return algorithm(
        "MlpPolicy", ALGORITHMS[algorithm], device="cpu", learning_starts=5, batch_size=4, buffer_size=100, **kwargs
    )


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


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.__name__)
def test_safe_load_gives_the_same_model(algorithm, tmp_path):
    model = make(algorithm, train_freq=(2, "step")).learn(20)
    model.save(tmp_path / "model")
    safe, plain = (algorithm.load(tmp_path / "model", gym.make(ALGORITHMS[algorithm]), safe=safe) for safe in (True, False))
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
    with pytest.raises(ValueError, match=r"Refused: 'data' in .* is not something that save"):
        SoftAC_v1.load(path, safe=True)


def test_members_that_share_their_content_are_refused(tmp_path):
    path = tmp_path / "model.zip"
    make().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += [archive.getinfo("policy.pth")] * 1_000
        archive.writestr("last.pth", b"")
    with pytest.raises(ValueError, match=r"Refused: .* claims to contain more data than it does"):
        SoftAC_v1.load(path, safe=True)


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
    SoftAC_v1.load(io.BytesIO(stream.getvalue()), safe=True)


SPACES = [
    spaces.Box(-1.5, np.array([2.0, np.inf], np.float32)),
    spaces.Box(0, 255, (3, 4, 4), np.uint8),
    spaces.Box(-1, 1, (2,), np.float64),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiBinary(3),
    spaces.MultiBinary([2, 3]),
    spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (2,))),
]


@pytest.mark.parametrize("value", [*SPACES, HerReplayBuffer, th.nn.ReLU, [1, (2.5, None)], {"a": {"b": "c"}}])
def test_values_come_back(value):
    back = from_plain(json.loads(json.dumps(to_plain(value, {}))), {})
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("value", [spaces.Text(3), object(), print, {1: 2}, RandomObservations])
def test_other_values_have_no_form(value):
    with pytest.raises(NotPlain):
        to_plain(value, {})
