"""Environments and hyperparameter files of the user: found, imported once, and their errors located."""

import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_softac.robustness import ObservationNoise
from sb3_softac.study import StudyError, read_study, user_code
from sb3_softac.study.__main__ import main
from sb3_softac.study.results import read_results
from sb3_softac.study.training import RunManager, work
from sb3_softac.study.user_code import freeze, import_user_code, with_defaults
from sb3_softac.study.validation import check_names, check_unchanged
from sb3_softac.zoo.trained import Trained, load_trained
from tests.study import small

ENV = """
import gymnasium as gym
gym.register("Mine-v0", entry_point="gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=20)
"""
CONFIG = ENV + '\nhyperparams = {"Mine-v0": dict(policy="MlpPolicy", gamma=0.5)}\n'
SETTINGS = {
    "n_timesteps": 60,
    "hyperparams": dict(
        policy="MlpPolicy", learning_starts=10, batch_size=4, buffer_size=100, policy_kwargs={"net_arch": [4]}
    ),
    "evaluation": {"every": 30, "episodes": 1},
}
WAYS = {
    "gym_packages": {"gym_packages": ["my_envs"]},
    "module:id": {"env": "my_envs:Mine-v0"},
    "a file in Python": {"config": "own.py"},
    "a module": {"config": "my_config"},
}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What the tests import and register is gone afterwards."""
    before, modules = dict(gym.registry), set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    user_code._run_once.cache_clear()
    yield
    gym.registry.clear()
    gym.registry.update(before)
    for name in sys.modules.keys() - modules:
        if name.startswith(("my_", "broken")):
            del sys.modules[name]


def declare(folder, env="Mine-v0", config=None, **changes):
    """The file of a study with an environment or hyperparameters of its own, and files for both beside it."""
    algorithm = {"config": config} if config else None
    path = small.declare(folder, algorithms={"softac_v1": algorithm}, environments=[env], **SETTINGS | changes)
    for name, text in {"my_envs.py": ENV, "own.py": CONFIG, "my_config.py": CONFIG, "own.yml": "a: {}"}.items():
        (folder / name).write_text(text)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_environments_of_ones_own(tmp_path, monkeypatch, way):
    """From another working directory."""
    path = declare(tmp_path / "study", **WAYS[way])
    monkeypatch.chdir(tmp_path)
    study = read_study(path)
    check_names(study)
    (run,) = freeze(study).runs
    assert run.env_id == "Mine-v0" and run.defaults["policy"] == "MlpPolicy"
    if way in ("module:id", "a file in Python"):
        work(study, run)
        results, _, missing = read_results(study)
        assert not missing and results[0].timesteps.tolist() == [30, 60]
        assert (study.zoo_folder_of(run) / "Mine-v0.zip").exists()  # the name by which RL Zoo's tools find it


def test_a_module_in_the_working_directory(tmp_path, monkeypatch):
    path = declare(tmp_path / "study", gym_packages=["my_envs"])
    (tmp_path / "here").mkdir()
    (tmp_path / "study" / "my_envs.py").rename(tmp_path / "here" / "my_envs.py")
    monkeypatch.chdir(tmp_path / "here")
    check_names(read_study(path))
    monkeypatch.chdir(tmp_path)


def test_a_config_in_python_runs_once(tmp_path):
    path = declare(tmp_path, config="own.py")
    (tmp_path / "own.py").write_text(CONFIG + "\nwith open(__file__ + '.runs', 'a') as file: file.write('x')\n")
    study = read_study(path)
    for _ in range(2):
        check_names(study)
        import_user_code(study)
    assert (tmp_path / "own.py.runs").read_text() == "x"


CODE = CONFIG.replace("gamma=0.5", "policy_kwargs=dict(own=Own, module=my_envs.Own, function=lambda: 1)")
OWN = "\nimport torch\n\nclass Own(torch.nn.Tanh):\n    pass\n"


def test_code_in_a_config_reaches_other_processes(tmp_path):
    """They import what is in a module; what is in the file itself is sent as it was."""
    path = declare(tmp_path, config="own.py")
    (tmp_path / "own.py").write_text(OWN + "import my_envs\n" + CODE)
    (tmp_path / "my_envs.py").write_text(OWN)
    study = read_study(path)
    check_names(study)
    sent = pickle.dumps((freeze(study), freeze(study).runs[0]))
    (tmp_path / "own.py").write_text("")
    user_code._run_once.cache_clear()
    sys.path.remove(str(tmp_path))
    del sys.modules["my_envs"]
    study, run = pickle.loads(sent)
    import_user_code(study)
    own, module, function = with_defaults(study, run).defaults["policy_kwargs"].values()
    assert own.__base__ is th.nn.Tanh and module is sys.modules["my_envs"].Own and function() == 1


def test_a_preset_by_its_name(tmp_path):
    study = read_study(declare(tmp_path, env="Pendulum-v1", config="softac_v1_icml.yml"))
    check_names(study)
    assert "reparameterize" not in freeze(study).runs[0].defaults
    (tmp_path / "softac_v1_icml.yml").write_text(
        "default: {policy: MlpPolicy, gamma: 0.25}"
    )  # a file of one's own comes first
    assert freeze(study).runs[0].defaults["gamma"] == 0.25


PENDULUM = {"env": "Pendulum-v1", "config": "own.yml"}
WRONG = [  # arguments of declare, files, message
    ({"gym_packages": ["my_envs_2"]}, {}, "my_envs_2'"),
    ({"gym_packages": ["broken"]}, {"broken.py": "\nimport numpy\nimport my_nothing\n"}, "broken.py, line 3"),
    ({"config": "../none"}, {}, "../none is neither a file (.yml, .yaml or .py) nor the name of a module"),
    ({"config": "own.py"}, {"own.py": "\n1 / 0\n"}, "own.py, line 2"),
    ({"config": "own.py"}, {"own.py": "a b"}, "SyntaxError"),
    ({"config": "own.py"}, {"own.py": ENV}, "own.py has no `hyperparams`"),
    ({"config": "own.py"}, {"own.py": ENV + "hyperparams = 3"}, "must have a table"),
    (PENDULUM, {}, "has no hyperparameters for Pendulum-v1"),
    (PENDULUM, {"own.yml": "default: 3"}, "default must be a table"),
    (PENDULUM, {"own.yml": "a: ["}, "own.yml cannot be read"),
    (PENDULUM, {"own.yml": "default:\n  gamma: 0.5\n  gamma: 0.9"}, "line 3: the key 'gamma' is already on line 2"),
    (PENDULUM, {"own.yml": "default: {gama: 3}"}, "own.yml: softac_v1 has no hyperparameter 'gama', did you mean 'gamma'"),
    ({}, {}, "under `gym_packages`"),
]


@pytest.mark.parametrize(("arguments", "files", "message"), WRONG)
def test_what_is_wrong_and_where(tmp_path, arguments, files, message):
    path = declare(tmp_path, **arguments)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(StudyError) as caught:
        check_names(read_study(path))
    assert message in str(caught.value)
    assert ("Traceback" in str(caught.value)) == ("py, line" in message)
    assert main(["run", str(path)]) == 2


def test_the_environments_of_training_and_evaluation_are_the_same(tmp_path):
    """RL Zoo gives ``env_kwargs`` of a file to the one for training only."""
    path = declare(tmp_path, config="own.py")
    (tmp_path / "own.py").write_text(CONFIG.replace("gamma=0.5", "env_kwargs=dict(g=2.0)"))
    study = read_study(path)
    check_names(study)
    (run,) = freeze(study).runs
    manager = RunManager(study, run)
    model, _ = manager.setup_experiment()
    for env in (model.env, manager.evaluations["deterministic"].eval_env):
        env.close()
    assert manager.eval_env_kwargs == manager.env_kwargs == {"g": 2.0}


FILES = {
    "own.yml": "default: {policy: MlpPolicy, gamma: 0.5, policy_kwargs: {net_arch: [4]}}",
    "own.py": "hyperparams = {'default': dict(policy='MlpPolicy', gamma=0.5, policy_kwargs=dict(net_arch=[4]))}",
    "code.py": "import torch\nhyperparams = {'default': dict(policy='MlpPolicy', gamma=0.5, policy_kwargs=dict("
    "net_arch=[4], activation_fn=torch.nn.Tanh))}",
}


@pytest.mark.parametrize("name", FILES)
def test_hyperparameter_files_are_read_once(tmp_path, name):
    """A file that changes while the study runs changes no run; afterwards the change is noticed."""
    few_steps = {key: value for key, value in SETTINGS["hyperparams"].items() if key != "policy_kwargs"}
    path = declare(tmp_path, env="Pendulum-v1", config=name, hyperparams=few_steps)
    (tmp_path / name).write_text(content := FILES[name])
    study = read_study(path)
    check_names(study)
    study = freeze(study)
    (tmp_path / name).write_text(content.replace("0.5", "0.75"))
    user_code._run_once.cache_clear()
    work(study, study.runs[0])
    with np.load(study.result_of(study.runs[0])) as data:
        assert '"gamma": 0.5' in str(data["declaration"])
    later = read_study(path)
    check_unchanged(later)
    check_names(later)
    with pytest.raises(StudyError, match=r"defaults: gamma: 0\.5 -> 0\.75"):
        check_unchanged(freeze(later))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_from_the_command_line(tmp_path, request, engine):
    """All processes find the modules; a run that fails stops no other, and its traceback is kept."""
    environment = request.getfixturevalue("ray_environment") if engine == "ray" else small.ENVIRONMENT
    path = declare(
        tmp_path / "study",
        hyperparams={**SETTINGS["hyperparams"], "env_wrapper": "my_wrappers.Same"},
        gym_packages=["my_envs"],
        grid={"gamma": [0.9, 2.0]},
        robustness={"perturbations": {"action_noise": [0.5]}, "episodes": 1},
    )
    (path.parent / "my_wrappers.py").write_text("import gymnasium as gym\n\n\nclass Same(gym.Wrapper):\n    pass\n")
    for code, command in ((1, ["run", "--engine", engine]), (0, ["robustness"]), (0, ["report"])):
        arguments = [sys.executable, "-m", "sb3_softac.study", command[0], str(path), *command[1:]]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("failed: softac_v1/Mine-v0/gamma=2.0/0: Refused: gamma must" in done.stderr) == (code == 1), done.stderr
    study = read_study(path)
    results, _, _ = read_results(study)
    assert [result.run.varied for result in results] == [{"gamma": 0.9}]
    assert "Traceback" in study.failure_of(study.runs[1]).read_text()
    report = path.with_suffix("") / "report"
    assert "gamma=2.0/0" in (report / "index.html").read_text()
    assert "action_noise" in (report / "Mine-v0_robustness.csv").read_text()


def test_classes_of_wrappers(tmp_path):
    """RL Zoo takes them in Python files, also as keys."""
    path = declare(tmp_path, env="Pendulum-v1", config="wrapped.py")
    wrapped = "[{gym.wrappers.RescaleAction: dict(min_action=-1, max_action=1)}, gym.wrappers.FlattenObservation]"
    entry = f'{{"Pendulum-v1": dict(policy="MlpPolicy", env_wrapper={wrapped})}}'
    (tmp_path / "wrapped.py").write_text(f"import gymnasium as gym\nhyperparams = {entry}")
    study = read_study(path)
    check_names(study)
    study = freeze(study)
    work(study, study.runs[0])
    assert read_results(study)[0] and "RescaleAction" in study.declaration_of(study.runs[0]).read_text()
    trained = load_trained(study.zoo_folder_of(study.runs[0]), "softac_v1", "Pendulum-v1")
    envs = trained.make_envs(1, 0, {ObservationNoise: {"strength": 0.3}})
    assert envs.env_is_wrapped(gym.wrappers.RescaleAction) == envs.env_is_wrapped(ObservationNoise) == [True]


def test_none_for_what_rl_zoo_need_not_wrap():
    hyperparams = {"frame_stack": None, "vec_env_wrapper": None, "normalize": False}
    assert Trained(None, "Pendulum-v1", {}, hyperparams, "").make_envs(1, 0).num_envs == 1
