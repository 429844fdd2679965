"""The registration inside one process: what the Zoo knows of us, and what it does when we fail."""

import argparse
import inspect
import sys
import types

import gymnasium as gym
import optuna
import pytest
import yaml

import _sb3_softac_autoload as autoload
import sb3_softac
from sb3_softac.zoo import algorithms, register, registration
from tests.toys import ENVIRONMENTS

rl_zoo3 = pytest.importorskip("rl_zoo3")  # imported here so that the hook, if it is installed, has done its work
exp_manager = __import__("rl_zoo3.exp_manager", fromlist=["ExperimentManager"])
hyperparams_opt = __import__("rl_zoo3.hyperparams_opt", fromlist=["HYPERPARAMS_SAMPLER"])

ALGOS = sorted(algorithms.ALGORITHMS)
ENVS = {algorithm.__name__.lower(): env for algorithm, env in ENVIRONMENTS.items()}
ZOO_KEYS = {"n_timesteps", "policy", "n_envs", "normalize", "env_wrapper", "frame_stack", "callback"}


def entries(algo):
    return yaml.safe_load(algorithms.hyperparameter_file(algo).read_text())


def test_the_installed_hook_registered_everything_without_our_help():
    assert any(type(finder).__name__ == "ZooFinder" for finder in sys.meta_path), "install the package: pip install -e ."
    for algo in ALGOS:
        assert rl_zoo3.ALGOS[algo] is getattr(sb3_softac, algorithms.ALGORITHMS[algo])
        assert rl_zoo3.ALGOS[algo].__name__.lower() == algo  # the Zoo's hub tools rely on it
        assert algo in hyperparams_opt.HYPERPARAMS_SAMPLER and algo in hyperparams_opt.HYPERPARAMS_CONVERTER
    assert rl_zoo3.ALGOS is rl_zoo3.utils.ALGOS is exp_manager.ALGOS
    assert exp_manager.HYPERPARAMS_SAMPLER is hyperparams_opt.HYPERPARAMS_SAMPLER


def test_registering_again_changes_nothing():
    def patched():
        manager = exp_manager.ExperimentManager
        return manager.__init__, manager.create_envs, rl_zoo3.utils.create_test_env, rl_zoo3.create_test_env

    before = patched()
    assert before[2] is before[3]
    register()
    assert patched() == before


def test_entries_of_the_zoo_itself_win_and_a_broken_algorithm_does_not_affect_the_others(monkeypatch):
    monkeypatch.setattr(registration, "ALGORITHMS", {"nothing": "Nothing", **algorithms.ALGORITHMS})
    monkeypatch.setattr(rl_zoo3.utils, "ALGOS", {"softac_v1": "native"})
    with pytest.warns(UserWarning, match="could not register nothing with RL Zoo"):
        registration.add_to("rl_zoo3.utils")
    assert sorted(rl_zoo3.utils.ALGOS) == ALGOS and rl_zoo3.utils.ALGOS["softac_v1"] == "native"


def test_default_configuration_is_ours_and_conf_file_wins():
    def config(algo, **kwargs):
        manager = exp_manager.ExperimentManager(argparse.Namespace(), algo, "Pendulum-v1", "logs", **kwargs)
        return manager.config

    assert config("softac_v1") == str(algorithms.hyperparameter_file("softac_v1"))
    assert config("softac_v1", config="mine.yml") == "mine.yml"
    assert config("sac").endswith("sac.yml") and "rl_zoo3" in config("sac")
    assert list(inspect.signature(exp_manager.ExperimentManager.__init__).parameters)[:3] == ["self", "args", "algo"]


@pytest.mark.parametrize("algo", ALGOS)
def test_yaml_entries(algo):
    arguments = inspect.signature(rl_zoo3.ALGOS[algo].__init__).parameters
    assert "default" in entries(algo)
    for env_id, entry in entries(algo).items():
        assert entry.keys() <= arguments.keys() | ZOO_KEYS, env_id
        assert env_id in ("default", "atari") or env_id in gym.registry or env_id.startswith("MiniGrid-"), env_id


def test_temperatures_of_the_paper():
    softac = entries("softac_v1")
    tasks = (
        "Ant HalfCheetah Hopper Humanoid HumanoidStandup InvertedDoublePendulum InvertedPendulum "
        "Pusher Reacher Swimmer Walker2d"
    ).split()
    special = {"Humanoid": 0.05, "HumanoidStandup": 0.01, "Swimmer": 0.04}
    for task in tasks:
        for version in ("v4", "v5"):
            entry = softac[f"{task}-{version}"]
            assert entry["ent_coef"] == special.get(task, 0.2)
            assert entry["learning_starts"] == 1000
            assert entry["random_steps"] == (10_000 if task in ("Ant", "HalfCheetah") else 1000)
    for env_id in ("LunarLanderContinuous-v3", "BipedalWalker-v3", "BipedalWalkerHardcore-v3", "MountainCarContinuous-v0"):
        assert env_id in softac


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("her", [False, True])
def test_sampled_and_converted_hyperparameters_agree_and_are_accepted(algo, her):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    arguments = inspect.signature(rl_zoo3.ALGOS[algo].__init__).parameters
    for _ in range(20):
        trial = study.ask()
        sampled = hyperparams_opt.HYPERPARAMS_SAMPLER[algo](
            trial, 1, 1, {"using_her_replay_buffer": her, "her_kwargs": {"n_sampled_goal": 4}}
        )
        assert sampled == hyperparams_opt.HYPERPARAMS_CONVERTER[algo](trial.params)
        assert sampled.keys() <= arguments.keys()
        assert her == ("replay_buffer_kwargs" in sampled)
        sampled.pop("replay_buffer_kwargs", None)
        sampled["policy_kwargs"]["net_arch"] = [8]
        rl_zoo3.ALGOS[algo]("MlpPolicy", ENVS[algo], buffer_size=10, **sampled)


def test_search_spaces():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    no_her = {"using_her_replay_buffer": False, "her_kwargs": {}}

    def sampled(algo):
        return [hyperparams_opt.HYPERPARAMS_SAMPLER[algo](study.ask(), 1, 1, no_her) for _ in range(30)]

    softac = sampled("softac_v1")
    assert {type(params["ent_coef"]) for params in softac} == {float, str}  # fixed and learned temperatures
    assert all(params["gradient_steps"] == params["train_freq"] for params in softac)
    ratios = [float(params["target_entropy"].removeprefix("ratio_")) for params in sampled("discretesac")]
    assert min(ratios) < 0.3 < 0.8 < max(ratios) <= 0.98


def test_a_failing_registration_warns_once_and_stops_watching(monkeypatch):
    monkeypatch.setattr(autoload.ZooFinder, "switched_off", False)
    monkeypatch.setattr(registration, "add_to", lambda module: 1 / 0)
    module = types.ModuleType("rl_zoo3.utils")
    with pytest.warns(UserWarning, match="could not register with RL Zoo.*ZeroDivisionError"):
        autoload.register(module)
    assert autoload.ZooFinder().find_spec("rl_zoo3.exp_manager", rl_zoo3.__path__) is None


def test_a_failing_registration_ends_a_program_that_is_to_be_safe(monkeypatch):
    monkeypatch.setattr(registration, "add_to", lambda module: 1 / 0)
    monkeypatch.setenv("SB3_SOFTAC_SAFE_LOAD", "1")
    with pytest.raises(SystemExit, match="SB3_SOFTAC_SAFE_LOAD is set, but sb3_softac could not make RL Zoo safe"):
        autoload.register(types.ModuleType("rl_zoo3.utils"))


def test_switched_off_and_safe_is_said(monkeypatch, capsys):
    """Python's own start-up: with both variables the hook is there, and warns."""
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.setattr(autoload.ZooFinder, "switched_off", False)
    monkeypatch.setattr(registration, "add_to", lambda module: 1 / 0)
    monkeypatch.setenv("SB3_SOFTAC_NO_ZOO", "1")
    autoload.install()
    assert sys.meta_path == []
    monkeypatch.setenv("SB3_SOFTAC_SAFE_LOAD", "1")
    autoload.install()
    (finder,) = sys.meta_path
    autoload.register(types.ModuleType("rl_zoo3.utils"))
    assert "SB3_SOFTAC_SAFE_LOAD does not protect it" in capsys.readouterr().err
    assert finder.find_spec("rl_zoo3.exp_manager") is None


def test_two_hooks_of_this_kind_do_not_chase_each_other(monkeypatch):
    monkeypatch.setattr(autoload.ZooFinder, "switched_off", False)
    finders = [autoload.ZooFinder(), autoload.ZooFinder()]
    monkeypatch.setattr(sys, "meta_path", [*finders, *(f for f in sys.meta_path if type(f) is not autoload.ZooFinder)])
    spec = finders[0].find_spec("rl_zoo3.utils", rl_zoo3.__path__)
    assert spec.name == "rl_zoo3.utils" and spec.loader.is_package("rl_zoo3.utils") is False
    assert finders[0].find_spec("rl_zoo3.nothing") is None


def test_finders_of_the_old_kind_are_skipped(monkeypatch):
    finder = autoload.ZooFinder()
    monkeypatch.setattr(sys, "meta_path", [finder, object()])
    assert finder.find_spec("rl_zoo3.utils") is None
