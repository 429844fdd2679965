"""With SB3_SOFTAC_SAFE_LOAD nothing in a run's folder runs code, whatever tool of the Zoo reads it."""

import base64
import collections
import importlib
import io
import json
import os
import pickle
import shutil
import sys
import types
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common import save_util
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SoftAC_v1
from sb3_softac.zoo import hub, register, resume, safe, statistics
from tests.zoo.commands import PENDULUM, run_as_typed

register()
import rl_zoo3.callbacks  # noqa: E402  (registered first)
import rl_zoo3.exp_manager  # noqa: E402
import rl_zoo3.utils as zoo_utils  # noqa: E402

SWITCH = "SB3_SOFTAC_SAFE_LOAD"
PATCHED = [
    *((yaml, name) for name in ("UnsafeLoader", "Loader", "FullLoader", "CUnsafeLoader", "CLoader", "CFullLoader")),
    *((module, name) for module in (zoo_utils, rl_zoo3, rl_zoo3.exp_manager) for name in safe.CHECKED),
    *((zoo_utils, "eval"), (rl_zoo3.exp_manager, "eval"), (save_util, "json_to_data"), (pickle, "load")),
    *((OffPolicyAlgorithm, "load_replay_buffer"), (VecNormalize, "load")),
]


@pytest.fixture
def switched_on(monkeypatch):
    """What a process that starts with the switch has."""
    missing = [(holder, name) for holder, name in PATCHED if name not in vars(holder)]
    before = [(holder, name, vars(holder)[name]) for holder, name in PATCHED if name in vars(holder)]
    monkeypatch.setenv(SWITCH, "1")
    safe.make_safe(zoo_utils)
    safe.make_experiments_safe(rl_zoo3.exp_manager)
    yield
    for holder, name, value in before:
        setattr(holder, name, value)
    for holder, name in missing:
        if name in vars(holder):
            delattr(holder, name)


# Expressions


@pytest.mark.parametrize(
    "text",
    [
        "dict(net_arch=[64, 64], log_std_init=-3.67, use_expln=True)",
        "{'norm_obs': True, 'norm_reward': False}",
        "dict(net_arch=dict(pi=[8], qf=[2 * 4]), optimizer_kwargs=dict(eps=1e-5), gamma=1 - 1/30)",
        "[1, (2.5, None), 'x', {3}, +1, float('inf'), int('7'), list((1,)), tuple([2])]",
        "  dict(\n    a=1)",
    ],
)
def test_what_files_of_hyperparameters_contain(text):
    assert safe.literal(text) == eval(text.strip())


def test_classes_in_expressions():
    expected = {"activation_fn": th.nn.ReLU, "optimizer_class": th.optim.AdamW}
    assert safe.literal("dict(activation_fn=nn.ReLU, optimizer_class=torch.optim.AdamW)") == expected
    assert safe.literal("HerReplayBuffer").__name__ == "HerReplayBuffer"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('canary')",
        "(lambda: os.mkdir('canary'))()",
        "[os.mkdir('canary') for _ in [1]]",
        "dict(a=open('canary', 'w'))",
        "dict(**{'a': 1}, b=exec('1'))",
        "nn.ReLU.__init__.__globals__",
        "th.load",
        "os.ReLU",
        "().__class__",
        "f'{os.mkdir(1)}'",
        "[0] * 10**10",
        "'a' * 10**10",
        "9 ** 9 ** 9",
        "1 / 0",
        "(" * 5_000,
        "-" * 9_000 + "1",
        "x := 1",
        "",
        "\0",
    ],
)
def test_other_expressions_are_refused(text):
    with pytest.raises(ValueError, match=r"Refused: .* would have to be evaluated"):
        safe.literal(text)


# YAML


def test_what_the_zoo_writes_is_read(switched_on):
    content = {"a": (1, 2), "b": collections.OrderedDict(c=[1.5, None]), "d": th.nn.ReLU, "e": "x", "f": {"g": True}}
    content["h"] = [zoo_utils.nn.Tanh, th.optim.Adam]
    back = yaml.load(yaml.dump(collections.OrderedDict(content)), Loader=yaml.UnsafeLoader)
    assert back == content and type(back) is collections.OrderedDict and type(back["a"]) is tuple


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [canary]",
        "!!python/object/new:os.mkdir [canary]",
        "!!python/object/apply:collections.OrderedDict [!!python/object/apply:os.mkdir [canary]]",
        "!!python/object/apply:collections.OrderedDict {args: [x]}",
        "!!python/object:tests.zoo.test_safe.Evil {}",
        "!!python/name:os.mkdir",
        "!!python/name:os.ReLU",
        "!!python/name:evil.ReLU",
        "!!python/module:antigravity",
        "!!python/tuple [!!python/object/apply:os.mkdir [canary]]",
        "!evil x",
    ],
)
@pytest.mark.parametrize("load", ["load", "unsafe_load"])
def test_other_objects_in_yaml_are_refused(load, text, switched_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((yaml.YAMLError, ValueError, TypeError), match=r"Refused|not enough values|expected"):
        yaml.unsafe_load(f"a: {text}") if load == "unsafe_load" else yaml.load(f"a: {text}", Loader=yaml.UnsafeLoader)
    assert not os.listdir(tmp_path) and "antigravity" not in sys.modules


# Names of classes


class Own(gym.Wrapper):
    pass


def not_called(env, **kwargs):
    raise AssertionError


WRAPPERS = [
    "gymnasium.wrappers.FlattenObservation",
    "rl_zoo3.wrappers.TimeFeatureWrapper",
    "stable_baselines3.common.atari_wrappers.AtariWrapper",
    "rl_zoo3.utils.flatten_dict_observations",
    "tests.zoo.test_safe.Own",  # its module is imported
    {"sb3_softac.robustness.ActionNoise": {"strength": 0.1}},
    [{"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 5}}, "tests.zoo.test_safe.Own"],
    None,
    Own,
]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=str)
def test_wrappers_are_found(wrapper, switched_on):
    assert (zoo_utils.get_wrapper_class({"env_wrapper": wrapper}) is None) == (wrapper is None)


BAD_WRAPPERS = {
    "a function": "tests.zoo.test_safe.not_called",
    "a function of Python": {"subprocess.Popen": {"args": ["touch", "canary"]}},
    "a module that is not known": "evil_module.Wrapper",
    "a module that looks known": "gymnasium_wrappers.Wrapper",
    "another class": "collections.OrderedDict",
    "nothing": "gymnasium.wrappers.Nothing",
    "no module": "Wrapper",
    "a number": 3,
    "a class of another kind": th.nn.ReLU,
    "videos": {"gymnasium.wrappers.RecordVideo": {"video_folder": "somewhere"}},
    "a monitor": {"stable_baselines3.common.monitor.Monitor": {"filename": "somewhere"}},
    "a path": {"tests.zoo.test_safe.Own": {"x": [{"y": "../canary"}]}},
    "the second": ["tests.zoo.test_safe.Own", "os.mkdir"],
}


@pytest.mark.parametrize("kind", BAD_WRAPPERS)
@pytest.mark.parametrize("key", ["env_wrapper", "vec_env_wrapper"])
def test_what_is_no_wrapper_is_refused(key, kind, switched_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text("import os; os.mkdir('canary')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"Refused: the files of the run .*unset {SWITCH}"):
        zoo_utils.get_wrapper_class({key: BAD_WRAPPERS[kind]}, key)
    assert os.listdir(tmp_path) == ["evil_module.py"]


def test_wrappers_of_vectorized_environments(switched_on):
    name = "stable_baselines3.common.vec_env.VecMonitor"
    assert zoo_utils.get_wrapper_class({"vec_env_wrapper": name}, "vec_env_wrapper")
    with pytest.raises(ValueError, match=r"pass filename='x' to"):
        zoo_utils.get_wrapper_class({"vec_env_wrapper": {name: {"filename": "x"}}}, "vec_env_wrapper")
    with pytest.raises(ValueError, match="which is no Wrapper"):
        zoo_utils.get_wrapper_class({"env_wrapper": name})


def test_callbacks_and_policies(switched_on):
    get = rl_zoo3.exp_manager.get_callback_list
    assert len(get({"callback": "rl_zoo3.callbacks.RawStatisticsCallback"})) == 1
    assert get({}) == get({"callback": None}) == []
    for bad in ("os.mkdir", {"stable_baselines3.common.callbacks.CheckpointCallback": {"save_freq": 1, "save_path": "x"}}):
        with pytest.raises(ValueError, match="Refused"):
            get({"callback": bad})
    assert rl_zoo3.exp_manager.get_class_by_name("stable_baselines3.common.policies.ActorCriticPolicy")
    with pytest.raises(ValueError, match="which is no BasePolicy or BaseCallback"):
        rl_zoo3.exp_manager.get_class_by_name("os.mkdir")


# Pickles


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("canary",))


def test_pickles_in_files_are_refused(switched_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Bomb()))
    with open("x.pkl", "rb") as file, pytest.raises(ValueError, match=r"Refused: .*x.pkl is a pickle"):
        pickle.load(file)
    with pytest.raises(ValueError, match=r"Refused: .*x.pkl is a pickle.*empty replay buffer, move the file away"):
        SoftAC_v1("MlpPolicy", "Pendulum-v1", buffer_size=10).load_replay_buffer("x.pkl")
    with pytest.raises(ValueError, match=r"Refused: x.pkl is a pickle.*no plain twin"):
        VecNormalize.load("x.pkl", make_vec_env("Pendulum-v1"))
    assert os.listdir(tmp_path) == ["x.pkl"]
    assert pickle.load(io.BytesIO(pickle.dumps(1))) == 1  # as processes do among themselves


def test_models_of_sb3_are_refused(switched_on, tmp_path):
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    with pytest.raises(ValueError, match=r"Refused: \[.*'policy_class'.*\] of the model would have to be unpickled"):
        PPO.load(tmp_path / "ppo", custom_objects={"learning_rate": 0.0})


# Statistics of VecNormalize

BOX, PICTURE = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (3, 8, 8), np.uint8)
NORMALIZED = {
    "a box": (BOX, {}),
    "settings": (BOX, dict(clip_obs=5.0, gamma=np.float32(0.9), norm_reward=False, epsilon=1e-4, training=False)),
    "rewards": (BOX, dict(norm_obs=False)),
    "a dictionary": (spaces.Dict(a=BOX, b=spaces.Box(0, 1, (2, 2)), c=spaces.Discrete(2)), dict(norm_obs_keys=["a", "b"])),
    "pictures": (PICTURE, {}),
}


class Sampled(gym.Env):
    def __init__(self, space):
        self.observation_space, self.action_space = space, spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


def normalized(name, steps=5):
    space, kwargs = NORMALIZED[name]
    env = VecNormalize(make_vec_env(lambda: Sampled(space), 2), **kwargs)
    env.reset()
    for _ in range(steps):
        env.step([0, 0])
    return env


@pytest.mark.parametrize("name", NORMALIZED)
def test_statistics_come_back(name, switched_on, tmp_path):
    env = normalized(name)
    statistics._save_both(VecNormalize.save, env, str(tmp_path / "vecnormalize.pkl"))
    (tmp_path / "vecnormalize.pkl").write_bytes(pickle.dumps(Bomb()))  # is not read
    loaded = VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), env.venv)
    assert loaded.observation_space == env.observation_space
    for setting in statistics.SETTINGS:
        assert getattr(loaded, setting) == getattr(env, setting), setting
    obs = env.get_original_obs()
    one, other = (part.normalize_obs(obs) for part in (env, loaded))
    assert all(np.array_equal(one[key], other[key]) for key in one) if isinstance(one, dict) else np.array_equal(one, other)
    reward = np.array([0.5, 2.0])
    assert np.array_equal(env.normalize_reward(reward), loaded.normalize_reward(reward))
    loaded.reset(), loaded.step([0, 0])


def damage(**changes):
    def change(content):
        for key, value in changes.items():
            content[key] = value

    return change


DAMAGES = {
    "another shape": damage(observations={"mean": [0.0], "var": [1.0], "count": 1}),
    "text": damage(observations={"mean": ["a"] * 3, "var": [1.0] * 3, "count": 1}),
    "a setting": damage(settings={"venv": 1}),
    "a setting of another type": lambda content: content["settings"].update(clip_obs="x"),
    "a setting more": lambda content: content["settings"].update(venv=None),
    "nothing": lambda content: content.clear(),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_statistics_are_refused(kind, tmp_path):
    env, path = normalized("a box", 1), tmp_path / "vecnormalize.pkl"
    statistics.save_plain(env, path)
    content = json.loads((tmp_path / "vecnormalize.json").read_text())
    DAMAGES[kind](content)
    (tmp_path / "vecnormalize.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"vecnormalize.json is not the normalisation of these environments"):
        statistics.load_plain(path, env.venv)


def test_the_best_model_has_a_twin_too(tmp_path):
    callback = rl_zoo3.callbacks.SaveVecNormalizeCallback(2, str(tmp_path))
    callback.model = types.SimpleNamespace(get_vec_normalize_env=lambda: env, num_timesteps=7)
    env = normalized("a box", 1)
    for calls, files in [(1, []), (2, ["vecnormalize.json", "vecnormalize.pkl"])]:
        callback.n_calls = calls
        assert callback._on_step() and sorted(os.listdir(tmp_path)) == files


def test_the_hub_gives_the_plain_twin(tmp_path, monkeypatch):
    from requests.exceptions import HTTPError

    def download(repo_id, filename):
        if filename not in there:
            raise HTTPError(filename)
        return filename

    there = ["config.yml", "vec_normalize.pkl", "vec_normalize.json"]
    assert hub._plain_statistics(download, "me/x", "config.yml") == "config.yml"
    assert hub._plain_statistics(download, "me/x", "vec_normalize.pkl") == "vec_normalize.json"
    there.remove("vec_normalize.json")
    with pytest.raises(ValueError, match=r"Refused: vec_normalize.pkl of me/x is a pickle"):
        hub._plain_statistics(download, "me/x", "vec_normalize.pkl")
    there.remove("vec_normalize.pkl")
    with pytest.raises(HTTPError):
        hub._plain_statistics(download, "me/x", "vec_normalize.pkl")


# Commands

COMMAND = ["--algo", "sql", "--env", "Pendulum-v1", "-n", "10", "--seed", "3", "--hyperparams", "gamma:0.9", "normalize:True"]


def test_a_plain_command_is_repeated():
    safe_words = safe.safe_command([*COMMAND, "-f", "/elsewhere", "--conf-file", "preset.yml", "-P"], {"preset.yml"})
    expected = {"--algo=sql", "--env=Pendulum-v1", "--n-timesteps=10", "--seed=3", "--conf-file=preset.yml", "--progress"}
    assert set(safe_words) == {*expected, *COMMAND[-3:]}


BAD_COMMANDS = [
    ["--gym-packages", "evil"],
    ["--conf-file", "evil.py"],
    ["--conf-file", "/x/preset.yml"],
    ["--conf-file", "evil"],
    ["--tensorboard-log", "/x"],
    ["-tb", "/x"],
    ["--tensorb", "/x"],
    ["-i", "evil.zip"],
    ["--storage", "/x/evil.log"],
    ["--optimization-log-path", "/x"],
    ["--env", "evil:Env-v0"],
    ["--track"],
    ["--sampler", "auto"],
]


@pytest.mark.parametrize("words", BAD_COMMANDS, ids=" ".join)
def test_commands_that_name_modules_or_places_are_refused(words):
    with pytest.raises(ValueError, match="Refused: the command of the run"):
        safe.safe_command([*COMMAND, *words], {"preset.yml"})


def test_resume_does_not_go_where_the_file_says(tmp_path, monkeypatch):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    command = {"arguments": COMMAND, "directory": str(tmp_path), "run": "run", "modules": [str(tmp_path)], "every": 5}
    (tmp_path / "run/checkpoints/command.json").write_text(json.dumps(command))
    monkeypatch.setenv(SWITCH, "1")
    for name in (resume.EVERY, resume.RUN_FOLDER):
        monkeypatch.setenv(name, "")
    before = os.getcwd(), list(sys.path)
    assert "--algo=sql" in resume.repeat_command([str(tmp_path / "run")])
    assert (os.getcwd(), sys.path) == before


# The drill: each tool, with an exploit in each file of a run


def rewrite_yaml(path, change):
    content = yaml.unsafe_load(path.read_text())
    change(content)
    path.write_text(yaml.dump(content))


def put_object(path):
    path.write_text("a: !!python/object/apply:os.mkdir [canary]\n" + path.read_text().replace("!!python", "b: !!python", 1))


def pickled_attribute(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    data["gamma"] = {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(Bomb())).decode()}
    members["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def statistics_without_a_twin(path):
    path.write_bytes(pickle.dumps(Bomb()))
    path.with_suffix(".json").unlink()


def command_that_imports(path):
    command = json.loads(path.read_text())
    command["arguments"] += ["--gym-packages", "evil_module"]
    command |= {"directory": str(path.parent), "modules": [str(path.parent)]}
    path.write_text(json.dumps(command))
    (path.parent / "evil_module.py").write_text("import os; os.mkdir('canary')")


def command_that_evaluates(path):
    command = json.loads(path.read_text())
    command["arguments"] += ["--env-kwargs", "g:__import__('os').mkdir('canary')"]
    path.write_text(json.dumps(command))


POPEN = {"subprocess.Popen": {"stdin": None}}
CONFIG, ARGS = "Pendulum-v1/config.yml", "Pendulum-v1/args.yml"
EVALUATED = "dict(norm_obs=__import__('os').mkdir('canary'))"
EXPLOITS = {
    "config": (CONFIG, put_object),
    "normalize": (CONFIG, lambda path: rewrite_yaml(path, lambda content: content.update(normalize=EVALUATED))),
    "env_wrapper": (CONFIG, lambda path: rewrite_yaml(path, lambda content: content.update(env_wrapper="os.mkdir"))),
    "vec_env_wrapper": (CONFIG, lambda path: rewrite_yaml(path, lambda content: content.update(vec_env_wrapper=POPEN))),
    "args": (ARGS, put_object),
    "statistics": ("Pendulum-v1/vecnormalize.pkl", statistics_without_a_twin),
    "model": ("Pendulum-v1.zip", pickled_attribute),
    "replay buffer": ("replay_buffer.pkl", lambda path: path.write_bytes(pickle.dumps(Bomb()))),
    "imports": ("checkpoints/command.json", command_that_imports),
    "evaluates": ("checkpoints/command.json", command_that_evaluates),
}
READS = ("config", "normalize", "env_wrapper", "vec_env_wrapper", "statistics", "model")
RUN = "logs/softac_v1/Pendulum-v1_1"
SHORT = ("-f", "logs", "-n", 20)
TOOLS = {
    "enjoy": ((*PENDULUM, *SHORT, "--no-render"), (*READS, "args")),
    "record_video": ((*PENDULUM, *SHORT), (*READS, "args")),
    "record_training": ((*PENDULUM, *SHORT), (*READS, "args")),
    "push_to_hub": ((*PENDULUM, *SHORT, "--no-render", "-orga", "me"), (*READS, "args")),
    "robustness": (("--algo", "softac_v1", "--env", "Pendulum-v1", "--episodes", 1), (*READS, "args")),
    "benchmark": (("--log-dir", "logs", "--no-hub", "-n", 20), ("args",)),
    "train": ((*PENDULUM, "-n", 20, "-i", f"{RUN}/Pendulum-v1.zip"), ("statistics", "model", "replay buffer")),
    "resume": ((RUN,), ("imports", "evaluates")),
}
CASES = [(tool, exploit) for tool, (_, exploits) in TOOLS.items() for exploit in exploits]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run that has all the files that a run can have."""
    folder = tmp_path_factory.mktemp("trained")
    small = ("batch_size:16", "buffer_size:500", "learning_starts:10", "normalize:True")
    arguments = (*PENDULUM, "-n", 40, "--eval-freq", 30, "--eval-episodes", 1, "--seed", 1, "--save-replay-buffer")
    hyperparams = ("--hyperparams", "policy_kwargs:dict(net_arch=[8], activation_fn=nn.ReLU)", *small)
    run_as_typed(
        folder, "sb3_softac.zoo", "train", *arguments, *hyperparams, SB3_SOFTAC_CHECKPOINT_EVERY="20", **{SWITCH: "1"}
    )
    return folder


@pytest.mark.drill
@pytest.mark.parametrize(("tool", "exploit"), CASES, ids=["-".join(case) for case in CASES])
def test_the_drill(tool, exploit, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    path, change = EXPLOITS[exploit]
    change(tmp_path / "copy" / RUN / path)
    arguments, _ = TOOLS[tool]
    # benchmark calls enjoy and reports that it has failed
    output = run_as_typed(tmp_path / "copy", "sb3_softac.zoo", tool, *arguments, expect=None, **{SWITCH: "1"})
    assert not list(tmp_path.rglob("canary"))
    assert "Refused" in output


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["enjoy", "record_video", "robustness", "resume", "benchmark"])
def test_ones_own_runs_are_read(tool, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / RUN / "Pendulum-v1/vecnormalize.pkl").write_bytes(pickle.dumps(Bomb()))  # its twin is read
    run_as_typed(tmp_path / "copy", "sb3_softac.zoo", tool, *TOOLS[tool][0], **{SWITCH: "1"})
    assert not list(tmp_path.rglob("canary"))


def test_the_zoo_of_this_version_is_what_is_made_safe():
    names = {name for name in safe.CHECKED if not hasattr(importlib.import_module("rl_zoo3.utils"), name)}
    assert not names and callable(VecNormalize.load) and callable(save_util.json_to_data)
