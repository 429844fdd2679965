"""With SB3_SOFTAC_SAFE_LOAD nothing in a run's folder runs code, whatever tool of the Zoo reads it."""

import argparse
import collections
import io
import json
import os
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import huggingface_hub
import huggingface_sb3
import pytest
import torch as th
import yaml
from requests.exceptions import HTTPError
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SoftAC_v1
from sb3_softac.zoo import register, safe
from tests.algorithm.test_model_files import pickled, put, rewrite
from tests.zoo.commands import PENDULUM, run_as_typed

register()
import rl_zoo3.exp_manager  # noqa: E402  (registered first)
import rl_zoo3.utils as zoo_utils  # noqa: E402

SWITCH = "SB3_SOFTAC_SAFE_LOAD"


@pytest.fixture
def switched_on(monkeypatch, undo_patches):
    """What a process that starts with the switch has."""
    monkeypatch.setenv(SWITCH, "1")
    safe.make_safe()
    safe.make_experiments_safe()


# Expressions


@pytest.mark.parametrize(
    "text",
    [
        "dict(net_arch=[64, 64], log_std_init=-3.67, use_expln=True)",
        "{'norm_obs': True, 'norm_reward': False}",
        "dict(net_arch=dict(pi=[8], qf=[8]), optimizer_kwargs=dict(eps=1e-5), gamma=-0.5)",
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


def test_the_zoo_evaluates_nothing(switched_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = "__import__('os').mkdir('canary')"
    (tmp_path / "config.yml").write_text(f'normalize: "{evil}"')
    option = zoo_utils.StoreDict(["--env-kwargs"], "env_kwargs")
    preprocess = rl_zoo3.exp_manager.ExperimentManager._preprocess_normalization
    for evaluate in (
        lambda: zoo_utils.get_saved_hyperparams("."),
        lambda: option(None, argparse.Namespace(), [f"g:{evil}"]),
        lambda: preprocess(argparse.Namespace(), {"normalize": evil}),
    ):
        with pytest.raises(ValueError, match=r"Refused: .* would have to be evaluated"):
            evaluate()
    assert os.listdir(tmp_path) == ["config.yml"]


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
    with pytest.raises(ValueError, match=r"pass {'filename': 'x'} to"):
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
    (tmp_path / "replay_buffer.pkl").write_bytes(pickle.dumps(Bomb()))
    with open("replay_buffer.pkl", "rb") as file, pytest.raises(ValueError, match=r"Refused: .*replay_buffer.pkl is a pickle"):
        pickle.load(file)
    with pytest.raises(ValueError, match=r"Refused: .*replay_buffer.pkl is a pickle.*empty replay buffer, move the file away"):
        SoftAC_v1("MlpPolicy", "Pendulum-v1", buffer_size=10).load_replay_buffer("replay_buffer.pkl")
    with pytest.raises(ValueError, match=r"Refused: replay_buffer.pkl is a pickle.*no plain twin"):
        VecNormalize.load("replay_buffer.pkl", make_vec_env("Pendulum-v1"))
    assert os.listdir(tmp_path) == ["replay_buffer.pkl"]


def test_pickles_in_named_pipes_are_refused_and_processes_still_talk(switched_on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("named")
    end = os.open("named", os.O_RDWR)  # so that opening it to read does not wait
    os.write(end, pickle.dumps(Bomb()))
    with open("named", "rb") as file, pytest.raises(ValueError, match="Refused: named is a pickle"):
        pickle.load(file)
    os.close(end)
    assert os.listdir(tmp_path) == ["named"]
    reader, writer = os.pipe()
    with open(writer, "wb") as file:
        pickle.dump(1, file)
    with open(reader, "rb") as file:
        assert pickle.load(file) == 1
    assert pickle.load(io.BytesIO(pickle.dumps(2))) == 2


def test_models_of_sb3_are_refused(switched_on, tmp_path):
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "ppo")
    with pytest.raises(ValueError, match=r"Refused: \[.*'policy_class'.*\] of the model would have to be unpickled"):
        PPO.load(tmp_path / "ppo", custom_objects={"learning_rate": 0.0})


def test_the_hub_gives_the_plain_twin(switched_on, monkeypatch):
    def download(repo_id, filename, **kwargs):
        if filename not in there:
            raise HTTPError(filename)
        return filename

    def load(filename):
        return huggingface_sb3.load_from_hub("me/x", filename)

    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    there = ["config.yml", "vec_normalize.pkl", "vec_normalize.json"]
    assert load("config.yml") == "config.yml" and load("vec_normalize.pkl") == "vec_normalize.json"
    there.remove("vec_normalize.json")
    with pytest.raises(ValueError, match=r"Refused: vec_normalize.pkl of me/x is a pickle"):
        load("vec_normalize.pkl")
    there.remove("vec_normalize.pkl")
    with pytest.raises(HTTPError):
        load("vec_normalize.pkl")


# The drill: each tool, with an exploit in each file of a run


def rewrite_yaml(path, change):
    content = yaml.unsafe_load(path.read_text())
    change(content)
    path.write_text(yaml.dump(content))


def put_object(path):
    path.write_text("a: !!python/object/apply:os.mkdir [canary]\n" + path.read_text().replace("!!python", "b: !!python", 1))


def weights_that_are_a_pickle(members):
    members.update({name: pickle.dumps(Bomb()) for name in members if name.endswith(".pth")})


def statistics_without_a_twin(path):
    path.write_bytes(pickle.dumps(Bomb()))
    path.with_suffix(".json").unlink()


def module_in_the_run(path):
    (path.parents[1] / "evil_module.py").write_text("import os; os.mkdir('canary')")
    name = ".".join((*Path(RUN).parts, "evil_module", "Wrapper"))
    rewrite_yaml(path, lambda content: content.update(env_wrapper=name))


def command_with(*words, **others):
    def change(path):
        command = json.loads(path.read_text())
        command["arguments"] += words
        command |= {"directory": str(path.parent), "modules": [str(path.parent)], **others}
        path.write_text(json.dumps(command))
        (path.parent / "evil_module.py").write_text("import os; os.mkdir('canary')")

    return change


def updated(**values):
    return lambda path: rewrite_yaml(path, lambda content: content.update(values))


EVIL = "__import__('os').mkdir('canary')"
CONFIG, ARGS, COMMAND = "Pendulum-v1/config.yml", "Pendulum-v1/args.yml", "checkpoints/command.json"
EXPLOITS = {
    "config": (CONFIG, put_object),
    "normalize": (CONFIG, updated(normalize=f"dict(norm_obs={EVIL})")),
    "env_wrapper": (CONFIG, updated(env_wrapper="os.mkdir")),
    "vec_env_wrapper": (CONFIG, updated(vec_env_wrapper={"subprocess.Popen": {"stdin": None}})),
    "module in the run": (CONFIG, module_in_the_run),
    "args": (ARGS, put_object),
    "statistics": ("Pendulum-v1/vecnormalize.pkl", statistics_without_a_twin),
    "model": ("Pendulum-v1.zip", partial(rewrite, change=lambda members: put(members, "gamma", pickled(Bomb())))),
    "weights": ("Pendulum-v1.zip", partial(rewrite, change=weights_that_are_a_pickle)),
    "replay buffer": ("replay_buffer.pkl", lambda path: path.write_bytes(pickle.dumps(Bomb()))),
    "imports": (COMMAND, command_with("--gym-packages", "evil_module")),
    "evaluates": (COMMAND, command_with("--env-kwargs", f"g:{EVIL}")),
    "evaluates twice": (COMMAND, command_with("--hyperparams", f'policy_kwargs:"{EVIL}"')),
    "monitor": (COMMAND, command_with("--hyperparams", f'monitor_kwargs:"{EVIL}"')),
    "callback": (COMMAND, command_with("--hyperparams", "callback:'evil_module.Callback'")),
    "policy": (COMMAND, command_with("--hyperparams", "policy:'evil_module.Policy'")),
    "wrapper": (COMMAND, command_with("--hyperparams", "env_wrapper:{'os.mkdir': {}}")),
}
READS = ("config", "normalize", "env_wrapper", "vec_env_wrapper", "module in the run", "statistics", "model", "weights")
TOOLS = {  # their arguments, and the exploits that they meet
    "enjoy": ((*PENDULUM, "-f", "{logs}", "-n", 20, "--no-render"), (*READS, "args")),
    "record_video": ((*PENDULUM, "-f", "{logs}", "-n", 20), (*READS, "args")),
    "record_training": ((*PENDULUM, "-f", "{logs}", "-n", 20, "-o", "videos"), (*READS, "args")),
    "push_to_hub": ((*PENDULUM, "-f", "{logs}", "-n", 20, "--no-render", "-orga", "me"), (*READS, "args")),
    "robustness": ((*PENDULUM, "-f", "{logs}", "--episodes", 1, "-p", "action_noise", 0.1), (*READS, "args")),
    "benchmark": (("--log-dir", "{logs}", "--no-hub", "-n", 210), ("args",)),
    "train": ((*PENDULUM, "-n", 20, "-i", "{run}/Pendulum-v1.zip"), ("statistics", "model", "weights", "replay buffer")),
    "resume": (("{run}", "-n", 60), tuple(name for name, (path, _) in EXPLOITS.items() if path == COMMAND)),
}
CASES = [("sb3_softac.zoo", tool, exploit) for tool, (_, exploits) in TOOLS.items() for exploit in exploits]
CASES += [("rl_zoo3", "enjoy", exploit) for exploit in (*READS, "args")]
RUN = "logs/softac_v1/Pendulum-v1_1"
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "none", "MUJOCO_GL": "egl"}


def use(entrance, tool, folder, logs, expect=0):
    arguments = [str(word).format(logs=logs, run=f"{logs}/softac_v1/Pendulum-v1_1") for word in TOOLS[tool][0]]
    command = (entrance, tool) if entrance == "sb3_softac.zoo" else (f"{entrance}.{tool}",)
    return run_as_typed(folder, *command, *arguments, expect=expect, **{SWITCH: "1"}, **NOWHERE)


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
@pytest.mark.parametrize(("entrance", "tool", "exploit"), CASES, ids=["-".join(case) for case in CASES])
def test_the_drill(entrance, tool, exploit, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    path, change = EXPLOITS[exploit]
    change(tmp_path / "copy" / RUN / path)
    # benchmark calls enjoy and reports that it has failed
    output = use(entrance, tool, tmp_path / "copy", "logs", expect=None)
    assert not list(tmp_path.rglob("canary"))
    assert "Refused" in output


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_ones_own_runs_are_read_wherever_they_are(tool, trained, tmp_path):
    """The folder has been moved, and the tool is started in another one."""
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(trained / "logs", tmp_path / "moved")
    run = tmp_path / "moved/softac_v1/Pendulum-v1_1"
    (run / "Pendulum-v1/vecnormalize.pkl").write_bytes(pickle.dumps(Bomb()))  # its twin is read
    if tool == "train":
        (run / "replay_buffer.pkl").unlink()
    offline = tool == "push_to_hub"
    output = use("sb3_softac.zoo", tool, tmp_path / "elsewhere", "../moved", expect=offline)
    assert not list(tmp_path.rglob("canary")) and "Refused" not in output
    assert not offline or ("Uploading to me/softac_v1-Pendulum-v1" in output and "Connect" in output)
