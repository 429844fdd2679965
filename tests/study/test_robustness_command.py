"""``python -m sb3_softac.zoo robustness`` on folders as RL Zoo leaves them, good and bad."""

import csv
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from stable_baselines3 import PPO

from sb3_softac.study import StudyError, perturbed_evaluation, plots, read_study, robustness_command
from sb3_softac.study.__main__ import main as study_main
from sb3_softac.study.perturbed_evaluation import Condition, read_rows, sweeps_of
from sb3_softac.study.robustness_command import sweeps_of_command
from sb3_softac.study.validation import check_names
from sb3_softac.zoo.trained import load_trained
from tests.study.test_run import declare, few

PENDULUM = "Pendulum-v1"


class Board(gym.Env):
    """Nothing of it can be perturbed by default: masked actions, observations that are no Box."""

    action_space = spaces.Discrete(2)
    spaces_by_kind = {
        "masked": spaces.Discrete(3),
        "dict": spaces.Dict({"a": spaces.Box(-1.0, 1.0, (1,), np.float32)}),
        "multi": spaces.MultiDiscrete([2, 3]),
    }
    wage = 1.0

    def __init__(self, kind="masked"):
        self.observation_space = self.spaces_by_kind[kind]

    def action_masks(self):
        return np.array([True, True])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action) * self.wage, self.np_random.random() < 0.3, False, {}


@pytest.fixture(autouse=True)
def registered():
    """Environments with a namespace, and one that nothing perturbs."""
    added = ["Own/Pendulum-v1", *(f"{kind}-v0" for kind in Board.spaces_by_kind)]
    gym.register(added[0], entry_point="gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=20)
    for kind, name in zip(Board.spaces_by_kind, added[1:], strict=True):
        gym.register(name, entry_point=Board, max_episode_steps=9, kwargs={"kind": kind})
    yield
    for name in added:
        del gym.registry[name]


@pytest.fixture(scope="module")
def model():
    return PPO("MlpPolicy", PENDULUM, n_steps=2, batch_size=2, policy_kwargs={"net_arch": [4]}, device="cpu")


def save(model, folder, env=PENDULUM, **arguments):
    """A run as RL Zoo leaves it."""
    (folder / env).mkdir(parents=True)
    (folder / env / "config.yml").write_text("{policy: MlpPolicy}")
    (folder / env / "args.yml").write_text(yaml.safe_dump({"algo": "ppo"} | arguments))
    model.save(folder / f"{env}.zip")


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
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


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_folders_without_a_model_are_skipped_and_named(model, tmp_path, typed):
    folder = tmp_path / "logs" / "ppo"
    save(model, folder / f"{PENDULUM}_2")
    save(model, folder / f"{PENDULUM}_10_{'0' * 8}-1111-2222-3333-{'4' * 12}")  # with --uuid
    (folder / f"{PENDULUM}_1").mkdir()  # of an optimization
    save(model, folder / f"{PENDULUM}_3")
    (folder / f"{PENDULUM}_3" / f"{PENDULUM}.zip").unlink()  # killed
    code, _, err = typed("-p", "action_noise", "0.5", "--algo", "ppo", "ppo")
    assert code == 0
    assert [line for line in err.splitlines() if "skipped" in line] == [
        f"skipped: logs/ppo/{PENDULUM}_{k} has no model {PENDULUM}.zip, which RL Zoo writes when a training ends"
        for k in (1, 3)
    ]
    (row, *_) = table(tmp_path / "robustness" / f"{PENDULUM}_robustness.csv")
    assert row["n"] == "2"


def test_a_broken_model_does_not_stop_the_others(model, tmp_path, typed):
    for number in (1, 2):
        save(model, tmp_path / "logs" / "ppo" / f"{PENDULUM}_{number}")
    broken = tmp_path / "logs" / "ppo" / f"{PENDULUM}_1" / f"{PENDULUM}.zip"
    broken.write_bytes(broken.read_bytes()[:500])
    code, out, err = typed("-p", "action_noise", "0.5")
    assert code == 1 and f"failed: logs/ppo/{PENDULUM}_1: " in err and "robustness.csv" in out
    (tmp_path / "logs" / "ppo" / f"{PENDULUM}_2" / f"{PENDULUM}.zip").unlink()
    code, _, _ = typed("-p", "action_noise", "0.5")
    assert code.startswith("error: No run could be evaluated: logs/ppo")


def test_a_killed_process_is_named(monkeypatch, tmp_path):
    class Pool:
        def __init__(self, *_):
            pass

        __enter__ = __exit__ = lambda self, *_: self

        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

    monkeypatch.setattr(perturbed_evaluation, "ProcessPoolExecutor", Pool)
    study = read_study(declare(tmp_path, few() + "robustness: {}"))
    reasons = set(perturbed_evaluation.evaluate_runs(study, list(study.runs), 2).values())
    assert reasons == {"a process was killed, perhaps for lack of memory: try again with fewer --jobs"}


def test_nothing_has_a_model(tmp_path, typed):
    (tmp_path / "logs" / "ppo" / f"{PENDULUM}_1").mkdir(parents=True)
    assert typed()[0] == f"error: logs/ppo/{PENDULUM}_1 has no model {PENDULUM}.zip, nor has any other folder"


def test_a_namespace(model, tmp_path, typed):
    save(model, tmp_path / "logs" / "ppo" / "Own-Pendulum-v1_1", "Own-Pendulum-v1")
    code, out, _ = typed("-p", "action_noise", "0.5", env="Own/Pendulum-v1")
    assert code == 0 and "robustness/Own_Pendulum-v1_robustness.csv" in out
    assert load_trained(tmp_path / "logs" / "ppo" / "Own-Pendulum-v1_1", "ppo", "Own/Pendulum-v1").env == "Own/Pendulum-v1"


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
def test_an_environment_of_the_users_own(model, tmp_path, typed, monkeypatch, env, arguments, kept):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("module", "command", "training"):
        (tmp_path / f"mine_of_{name}.py").write_text(MODULE)
    save(model, tmp_path / "logs" / "ppo" / "Mine-v0_1", "Mine-v0", **kept)
    monkeypatch.setitem(gym.registry, "Mine-v0", None)  # taken away at the end
    del gym.registry["Mine-v0"]
    code, _, err = typed("-p", "action_noise", "0.5", *arguments, env=env)
    assert code == 0, err
    del gym.registry["Mine-v0"]
    code, _, _ = typed("-p", "action_noise", "0.5", "--gym-packages", "mine_of_nobody", env=env)
    assert code.startswith("error: mine_of_nobody cannot be imported: ModuleNotFoundError: No module named 'mine_of_nobody'")


def test_an_unknown_environment(tmp_path, typed):
    assert "If a module of your own registers it, give the module with --gym-packages" in typed(env="Unknown-v0")[0]
    assert "more than one colon" in typed(env="a:b:Unknown-v0")[0]


def test_calls_add_to_the_tables(model, tmp_path, typed):
    """Of other perturbations, strengths, numbers of episodes and runs; what is known is not done again."""
    first, second = (tmp_path / "logs" / "ppo" / f"{PENDULUM}_{number}" for number in (1, 2))
    save(model, first)
    typed("-p", "action_noise", "0.5")
    typed("-p", "observation_noise", "0.1", "-p", "action_noise", "1.0")
    typed("-p", "parameter", "2", "name=g", episodes=2)
    (file,) = tmp_path.glob(f"robustness/{PENDULUM}_PPO_*.csv")
    assert {(cell.perturbation, cell.strength, cell.episodes) for cell in read_rows(file)} == {
        *(("none", 0.0, 1), ("action_noise", 0.5, 1), ("action_noise", 1.0, 1), ("observation_noise", 0.1, 1)),
        *(("none", 0.0, 2), ("parameter", 2.0, 2)),
    }
    rows = table(tmp_path / "robustness" / f"{PENDULUM}_robustness.csv")
    assert [(row["perturbation"], row["strength"], row["episodes"]) for row in rows] == [
        *(("action_noise", strength, "1") for strength in ("0", "0.5", "1")),
        *(("observation_noise", strength, "1") for strength in ("0", "0.1")),
        *(("parameter g", strength, "2") for strength in ("1", "2")),
    ]
    before = file.read_text()
    model.policy.action_net.bias.data += 0.1
    save(model, second)
    typed("-p", "action_noise", "0.5", "--run", second)
    assert file.read_text() == before  # of another run
    typed("-p", "action_noise", "0.5")
    assert len(list(tmp_path.glob(f"robustness/{PENDULUM}_PPO_*.csv"))) == 2
    (row, *_) = table(tmp_path / "robustness" / f"{PENDULUM}_robustness.csv")
    assert row["n"] == "2"


def test_a_foreign_table_is_not_overwritten(model, tmp_path, typed):
    save(model, tmp_path / "logs" / "ppo" / f"{PENDULUM}_1")
    (tmp_path / "robustness").mkdir()
    file = tmp_path / "robustness" / f"{PENDULUM}_PPO_1.csv"
    file.write_text("a,b\n1,2\n")
    assert "has no returns under perturbations" in typed("-p", "action_noise", "0.5")[0] + typed()[2]
    assert file.read_text() == "a,b\n1,2\n"


def test_it_prints_the_numbers(model, tmp_path, typed):
    save(model, tmp_path / "logs" / "ppo" / f"{PENDULUM}_1")
    _, out, _ = typed("-p", "action_noise", "1e-1", "0.5")
    rows = {row["strength"]: row for row in table(tmp_path / "robustness" / f"{PENDULUM}_robustness.csv")}
    assert set(rows) == {"0", "0.1", "0.5"}
    lines = [line.split() for line in out.splitlines() if "action_noise" in line]
    assert lines == [["action_noise", strength, row["IQM"]] for strength, row in rows.items()]
    assert out.splitlines()[-2:] == [f"robustness/{PENDULUM}_robustness.{end}" for end in ("csv", "png")]


def test_numbers_of_the_command():
    (noise,) = sweeps_of_command([["action_noise", "1e-1", "5E-1", "+.25", "1"]])
    assert noise.strengths == (0.1, 0.5, 0.25, 1.0)
    (push,) = sweeps_of_command([["push", "1e2", "steps=3", "every=1e2", "body=on"]])
    assert push.options == {"body": "on", "every": 100.0, "steps": 3} and push.name == "push on 100.0 3"
    with pytest.raises(StudyError, match=r"strengths must be a list of distinct numbers .* got \['0.1', '1e-1'\]"):
        sweeps_of_command([["action_noise", "0.1", "1e-1"]])


@pytest.mark.parametrize("word", ["1e-1", "'1e-1'", "1.0e-1", "0.1"])
def test_numbers_of_a_study(tmp_path, word):
    study = read_study(declare(tmp_path, few() + f"robustness: {{perturbations: {{action_noise: [{word}, 2]}}}}"))
    assert sweeps_of(study, PENDULUM)[0].strengths == (0.1, 2.0)


@pytest.mark.parametrize(
    ("robustness", "message"),
    [
        ("{perturbations: {x: {perturbation: [push], strengths: [1]}}}", "unknown perturbation ['push']"),
        ("{perturbations: {action_noise: ['nan']}}", "got nan"),
        ("{perturbations: {action_noise: [1e-1, true]}}", "strengths must be a list of distinct numbers"),
        (f"{{perturbations: {{action_noise: ['{'9' * 400}']}}}}", "got inf"),
        ("{perturbations: {parameter: {name: [g], strengths: [2]}}}", "has no parameter ['g']"),
        ("{perturbations: {parameter: {name: screen_dim, strengths: [2]}}}", "it made no difference in a trial of 1000 steps"),
    ],
)
def test_odd_declarations(tmp_path, capsys, robustness, message):
    path = declare(tmp_path, few() + f"robustness: {robustness}")
    assert study_main(["run", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_an_environment_that_cannot_be_created(tmp_path, capsys):
    text = few(a=("  Pendulum-v1:", "  Pendulum-v1: {env_kwargs: {weight: 2}}"))
    assert study_main(["run", str(declare(tmp_path, text + "robustness: {}"))]) == 2
    assert "Pendulum-v1 cannot be created: TypeError" in capsys.readouterr().err


@pytest.mark.parametrize("kind", Board.spaces_by_kind)
def test_where_no_perturbation_applies(tmp_path, capsys, kind):
    """A study says so before it trains."""
    text = few(a=("  Pendulum-v1:", f"  {kind}-v0:"))
    path = declare(tmp_path, text.replace("softac_v1", "discretesac") + "robustness: {}")
    assert study_main(["run", str(path)]) == 2
    assert f"none of the default perturbations applies to {kind}-v0. Name one" in capsys.readouterr().err


def test_a_perturbation_that_is_named_where_none_applies_by_default(tmp_path, typed):
    folder = tmp_path / "logs" / "ppo" / "masked-v0_1"
    model = PPO("MlpPolicy", gym.make("masked-v0"), n_steps=2, batch_size=2, device="cpu")
    save(model, folder, "masked-v0")
    assert "none of the default perturbations applies to masked-v0" in typed(env="masked-v0")[0]
    code, _, _ = typed("-p", "parameter", "2", "name=wage", env="masked-v0", episodes=2)
    assert code == 0
    found = read_rows(tmp_path / "robustness" / "masked-v0_PPO_1.csv")
    doubled = found[Condition("parameter", '{"name": "wage"}', 2.0, 2)]["return"]
    assert float(doubled) == 2 * float(found[Condition("none", "{}", 0.0, 2)]["return"])


def test_an_environment_that_only_the_zoo_registers(tmp_path, monkeypatch):
    """Wherever it is asked for first, as in a report."""
    for name in [name for name in gym.registry if "NoVel" in name]:
        monkeypatch.delitem(gym.registry, name)
    monkeypatch.delitem(sys.modules, "rl_zoo3.import_envs", raising=False)
    path = declare(tmp_path, few(a=("  Pendulum-v1:", "  PendulumNoVel-v1:")) + "robustness: {}")
    names = [line.name for line in sweeps_of(read_study(path), "PendulumNoVel-v1")]
    assert "parameter g" in names
    check_names(read_study(path))
