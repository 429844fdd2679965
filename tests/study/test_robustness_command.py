"""``python -m sb3_softac.zoo robustness`` on folders as RL Zoo leaves them, good and bad."""

import csv
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3 import PPO

from sb3_softac.study import plots, robustness_command
from sb3_softac.study.perturbed_evaluation import Condition, evaluate_run, read_rows
from sb3_softac.study.robustness_command import parse, sources, sweeps_of_command
from tests.study.small import ENVIRONMENT

PENDULUM = "Pendulum-v1"


@pytest.fixture(scope="session")
def model():
    return PPO("MlpPolicy", PENDULUM, n_steps=2, batch_size=2, policy_kwargs={"net_arch": [4]}, device="cpu")


@pytest.fixture
def save(model, tmp_path):
    """Writes a run as RL Zoo leaves it; returns its model file."""

    def save_run(number=1, env=PENDULUM, model=model, **arguments):
        folder = tmp_path / "logs" / "ppo" / f"{env}_{number}"
        (folder / env).mkdir(parents=True)
        (folder / env / "config.yml").write_text("{policy: MlpPolicy}")
        (folder / env / "args.yml").write_text(yaml.safe_dump({"algo": "ppo"} | arguments))
        model.save(folder / f"{env}.zip")
        return folder / f"{env}.zip"

    return save_run


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the command; returns its exit code or message, what it printed, and its messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "save", lambda figure, path: "")  # pictures take long, and are looked at elsewhere

    def call(*arguments, env=PENDULUM, episodes=1):
        words = ["robustness", "--algo", "ppo", "--env", env, "-n", str(episodes), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            robustness_command.main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return call


def table(folder):
    with open(folder / "robustness" / f"{PENDULUM}_robustness.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_runs_are_found_where_the_zoo_puts_them(tmp_path):
    for name in ("sac/Pendulum-v1_1", "sac/Pendulum-v1_12", "sac/Pendulum-v10_1", "td3/Pendulum-v1_1", "ppo/Pendulum-v1_1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "Pendulum-v1.zip").touch()
    (tmp_path / "td3/Pendulum-v1_1/Pendulum-v1").mkdir()
    (tmp_path / "td3/Pendulum-v1_1/Pendulum-v1/args.yml").write_text("algo: td3")
    (tmp_path / "sac/Pendulum-v1_best").mkdir()
    found = sources(parse(["--algo", "sac", "td3", "--env", "Pendulum-v1", "-f", str(tmp_path)]))
    assert [(source.name, str(source.folder.relative_to(tmp_path))) for source in found] == [
        ("SAC", "sac/Pendulum-v1_1"),
        ("SAC", "sac/Pendulum-v1_12"),
        ("TD3", "td3/Pendulum-v1_1"),
    ]


def test_folders_without_a_model_are_skipped_and_named(save, tmp_path, command):
    save(2)
    save(f"10_{'0' * 8}-1111-2222-3333-{'4' * 12}")  # with --uuid
    (tmp_path / "logs" / "ppo" / f"{PENDULUM}_1").mkdir()  # of an optimization
    save(3).unlink()  # killed
    code, _, err = command("-p", "action_noise", "0.5", "--algo", "ppo", "ppo")
    assert code == 0 and table(tmp_path)[0]["n"] == "2"
    assert [line for line in err.splitlines() if "skipped" in line] == [
        f"skipped: logs/ppo/{PENDULUM}_{k} has no model {PENDULUM}.zip, which RL Zoo writes when a training ends"
        for k in (1, 3)
    ]


def test_a_broken_model_does_not_stop_the_others(save, command):
    broken, good = save(1), save(2)
    broken.write_bytes(broken.read_bytes()[:500])
    code, out, err = command("-p", "action_noise", "0.5")
    assert code == 1 and f"failed: logs/ppo/{PENDULUM}_1: " in err and "robustness.csv" in out
    good.unlink()
    assert command("-p", "action_noise", "0.5")[0].startswith("error: No run could be evaluated: logs/ppo")
    broken.unlink()
    assert command()[0] == f"error: logs/ppo/{PENDULUM}_2 has no model {PENDULUM}.zip, and no other folder has one"


MODULE = """
import gymnasium as gym
gym.register("Mine-v0", entry_point="gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=20)
"""


@pytest.mark.parametrize(
    ("env", "arguments", "kept"),
    [
        ("mine_of_module:Mine-v0", (), {}),
        ("Mine-v0", ("--gym-packages", "mine_of_command"), {}),
        ("Mine-v0", (), {"gym_packages": ["mine_of_training"]}),
    ],
)
def test_an_environment_of_the_users_own(save, tmp_path, command, monkeypatch, env, arguments, kept):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("module", "command", "training"):
        (tmp_path / f"mine_of_{name}.py").write_text(MODULE)
    save(env="Mine-v0", **kept)
    monkeypatch.setitem(gym.registry, "Mine-v0", None)  # taken away at the end
    del gym.registry["Mine-v0"]
    code, _, err = command("-p", "action_noise", "0.5", *arguments, env=env)
    assert code == 0, err
    del gym.registry["Mine-v0"]
    code, _, _ = command("-p", "action_noise", "0.5", "--gym-packages", "mine_of_nobody", env=env)
    assert code.startswith("error: mine_of_nobody cannot be imported: ModuleNotFoundError: No module named 'mine_of_nobody'")


def test_calls_add_to_the_tables(save, model, tmp_path, command):
    """Of other perturbations, strengths, numbers of episodes and runs; what is known is not evaluated again."""
    save(1)
    command("-p", "action_noise", "0.5")
    command("-p", "observation_noise", "0.1", "-p", "action_noise", "1.0")
    command("-p", "parameter", "2", "name=g", episodes=2)
    (file,) = tmp_path.glob(f"robustness/{PENDULUM}_PPO_*.csv")
    assert {(row.perturbation, row.strength, row.episodes) for row in read_rows(file)} == {
        *(("none", 0.0, 1), ("action_noise", 0.5, 1), ("action_noise", 1.0, 1), ("observation_noise", 0.1, 1)),
        *(("none", 0.0, 2), ("parameter", 2.0, 2)),
    }
    assert [(row["perturbation"], row["strength"], row["episodes"]) for row in table(tmp_path)] == [
        *(("action_noise", strength, "1") for strength in ("0", "0.5", "1")),
        *(("observation_noise", strength, "1") for strength in ("0", "0.1")),
        *(("parameter g", strength, "2") for strength in ("1", "2")),
    ]
    before = file.read_text()
    with th.no_grad():
        model.policy.action_net.bias += 0.1
    command("-p", "action_noise", "0.5", "--run", save(2).parent)
    assert file.read_text() == before  # of another run
    command("-p", "action_noise", "0.5")
    assert len(list(tmp_path.glob(f"robustness/{PENDULUM}_PPO_*.csv"))) == 2
    assert table(tmp_path)[0]["n"] == "2"


def test_runs_that_are_not_seeds_of_one_training_are_named(save, command):
    for number, seed in enumerate((0, 1, 1), 1):
        save(number, seed=seed)
    message = command("-p", "action_noise", "1")[2]
    assert re.findall("warning: .*", message) == [
        "warning: logs/ppo/Pendulum-v1_3 and logs/ppo/Pendulum-v1_2 count as seeds of PPO, but have the same seed"
    ]
    save(4, seed=2, n_timesteps=500)
    (save(5, seed=3).with_suffix("") / "config.yml").write_text("{policy: MlpPolicy, gamma: 0.9}")
    save(6, seed=4, env_kwargs={"g": 5.0})
    save(7, seed=5, trained_agent="earlier.zip")
    found = re.findall("warning: .*", command("-p", "action_noise", "1")[2])
    assert [line.split(" and ")[0][-1] for line in found] == ["3", "4", "5", "6", "7"] and found[1].endswith(
        "their settings differ"
    )


def test_a_foreign_table_is_not_overwritten(save, tmp_path, command):
    save()
    (tmp_path / "robustness").mkdir()
    file = tmp_path / "robustness" / f"{PENDULUM}_PPO_1.csv"
    file.write_text("a,b\n1,2\n")
    assert "has no returns under perturbations" in command("-p", "action_noise", "0.5")[0]
    assert file.read_text() == "a,b\n1,2\n"


def test_it_prints_the_numbers(save, tmp_path, command):
    save()
    _, out, _ = command("-p", "action_noise", "1e-1", "0.5")
    rows = {row["strength"]: row for row in table(tmp_path)}
    assert set(rows) == {"0", "0.1", "0.5"}
    lines = [line.split() for line in out.splitlines() if "action_noise" in line]
    assert lines == [["action_noise", strength, row["IQM"]] for strength, row in rows.items()]
    assert out.splitlines()[-2:] == [f"robustness/{PENDULUM}_robustness.{end}" for end in ("csv", "png")]


def test_numbers_of_the_command():
    (noise,) = sweeps_of_command([["action_noise", "1e-1", "5E-1", "+.25", "1"]])
    assert noise.strengths == (0.1, 0.5, 0.25, 1.0)
    (push,) = sweeps_of_command([["push", "1e2", "steps=3", "every=1e2", "body=on"]])
    assert push.options == {"body": "on", "every": 100.0, "steps": 3} and push.name == "push body=on every=100.0 steps=3"
    (mass,) = sweeps_of_command([["mass"]])
    assert mass.strengths == (0.5, 0.75, 1.25, 1.5, 2.0)


REFUSED = [
    (("--algo", "softac"), "RL Zoo has no algorithm 'softac', did you mean 'softac_v1'"),
    (("--env", "Pendulm-v1"), "Unknown environment 'Pendulm-v1', did you mean 'Pendulum-v1'? (if a module"),
    (("--env", "Unknown-v0"), "if a module of your own registers it, give the module with --gym-packages"),
    (("--env", "a:b:Unknown-v0"), "more than one colon"),
    (("-n", "0"), "--episodes must be at least 1"),
    (("--algo", "dqn"), "No run of dqn on Pendulum-v1 in logs"),
    (("--algo", "ppo", "dqn"), "No run of dqn on Pendulum-v1 has a model: train it, or leave it out of --algo"),
    (("--algo", "sac", "--run", "logs/ppo/Pendulum-v1_1"), "is a run of ppo, not of sac"),
    (("--run", "nowhere"), "nowhere has no model Pendulum-v1.zip"),
    (("-p", "push", "10"), "Push needs a MuJoCo environment"),
    (("-p", "pushh", "10"), "unknown perturbation 'pushh', did you mean 'push'"),
    (("-p", "action_noise", "much"), "strengths must be a list of distinct numbers"),
    (("-p", "action_noise", "0.1", "1e-1"), "strengths must be a list of distinct numbers"),
    (("-p", "action_noise", "0.1", "-p", "action_noise", "0.2"), "--perturbation action_noise is given twice"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refused(save, command, arguments, message):
    save()
    assert message in command(*arguments)[0]


def test_the_run_of_a_study(trained, tmp_path, command):
    """The same numbers as by the study."""
    (run,) = trained.runs
    arguments = ("--algo", "softac_v1", "--run", trained.zoo_folder_of(run), "-o", "made")
    perturbations = ("-p", "observation_noise", "0.3", "-p", "parameter", "0.5", "2.0", "name=g")
    assert command(*arguments, *perturbations, episodes=3)[0] == 0
    evaluate_run(trained, run)
    assert read_rows(tmp_path / "made" / f"{PENDULUM}_SoftAC_v1_1.csv") == read_rows(trained.robustness_of(run))
    trained.robustness_of(run).unlink()


def test_a_perturbation_that_is_named_where_none_applies_by_default(save, tmp_path, command, boards):
    env = boards[0]
    save(env="boards-masked-v0", model=PPO("MlpPolicy", gym.make(env), n_steps=2, batch_size=2, device="cpu"))
    assert f"none of the default perturbations applies to {env}" in command(env=env)[0]
    code, out, _ = command("-p", "parameter", "2", "name=wage", env=env, episodes=2)
    assert code == 0 and "robustness/boards_masked-v0_robustness.csv" in out  # with its namespace
    found = read_rows(tmp_path / "robustness" / "boards_masked-v0_PPO_1.csv")
    doubled = found[Condition("parameter", '{"name": "wage"}', 2.0, 2)]["return"]
    assert float(doubled) == 2 * float(found[Condition("none", "{}", 0.0, 2)]["return"])


@pytest.mark.slow
def test_models_of_the_zoo(tmp_path):
    """SB3's algorithms, one with normalized observations, and ours, as the Zoo's training leaves them."""
    small = ("--hyperparams", "policy_kwargs:dict(net_arch=[8])", "n_envs:1")
    few_steps = ("--env", PENDULUM, "-n", "300", "--eval-freq", "-1", "--seed", "1")
    zoo = [sys.executable, "-m", "sb3_softac.zoo"]
    commands = [
        [*zoo, "train", "--algo", algo, *few_steps, *small, *more]
        for algo, more in (
            ("td3", ("buffer_size:500", "noise_std:0.1", "learning_starts:50")),
            ("ppo", ("n_steps:64", "normalize:True")),
            ("softac_v1", ("batch_size:16", "buffer_size:500")),
        )
    ]
    for arguments in (*commands, [*zoo, "robustness", "--algo", "td3", "ppo", "softac_v1", "--env", PENDULUM, "-n", "2"]):
        done = subprocess.run(arguments, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    rows = table(tmp_path)
    assert {row["algorithm"] for row in rows} == {"TD3", "PPO", "SoftAC_v1"}
    assert len({row["perturbation"] for row in rows}) == 7 and all(np.isfinite(float(row["IQM"])) for row in rows)
    assert {path.name for path in (tmp_path / "robustness").glob("*_robustness.*")} == {
        f"{PENDULUM}_robustness.{suffix}" for suffix in ("png", "svg", "csv")
    }
