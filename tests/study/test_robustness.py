"""Trained models under perturbations: the declaration, the numbers, the report and the command."""

import csv
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac.robustness import ObservationNoise, Parameter
from sb3_softac.study import StudyError, perturbed_evaluation, read_study
from sb3_softac.study.__main__ import main
from sb3_softac.study.perturbed_evaluation import (
    MAX_ENVS,
    SEED,
    Condition,
    curves,
    default_sweeps,
    evaluate_run,
    read_rows,
    summary,
    sweeps_of,
    write_table,
)
from sb3_softac.study.plots import return_against_strength
from sb3_softac.study.report import write_report
from sb3_softac.study.robustness_command import parse, sources, sweeps_of_command
from sb3_softac.study.training import work
from sb3_softac.study.validation import check_names
from sb3_softac.zoo.trained import load_trained
from tests.study.test_run import ENVIRONMENT, declare, few

DECLARED = """
robustness:
  episodes: 3
  perturbations:
    observation_noise: [0.3]
    half gravity: {perturbation: parameter, name: g, strengths: [0.5, 2.0]}
"""
NOISE = Condition("observation_noise", "{}", 0.3, 3)


def declared(folder, **changes):
    return read_study(declare(folder, few() + DECLARED if not changes else few(**changes) + DECLARED))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of one small run, trained."""
    study = declared(tmp_path_factory.mktemp("robust"))
    work(study, study.runs[0])
    return study


def read(folder, section):
    return read_study(declare(folder, few() + section))


def test_what_is_declared(tmp_path):
    study = declared(tmp_path)
    first, second = sweeps_of(study, "Pendulum-v1")
    assert (first.name, first.perturbation, first.options, first.strengths) == (
        *("observation_noise", "observation_noise"),
        *({}, (0.3,)),
    )
    assert (second.name, second.perturbation, second.options) == ("half gravity", "parameter", {"name": "g"})
    assert first.axis == (0.0, 0.3) and second.axis == (0.5, 1.0, 2.0)
    assert study.robustness["Pendulum-v1"].episodes == 3
    check_names(study)
    assert not read(tmp_path, "").robustness


def test_nothing_said_means_all_that_apply(tmp_path):
    study = read(tmp_path, "robustness: {episodes: 7}")
    assert study.robustness["Pendulum-v1"].episodes == 7
    assert sweeps_of(study, "Pendulum-v1") == default_sweeps("Pendulum-v1", {})
    check_names(study)
    names = {env: [line.name for line in default_sweeps(env, {})] for env in ("Pendulum-v1", "CartPole-v1", "Hopper-v4")}
    signals = ["action_noise", "observation_noise", "dropped_actions", "delayed_actions"]
    assert names["Pendulum-v1"] == [*signals, "parameter g", "parameter m", "parameter l"]
    assert names["CartPole-v1"][:3] == ["observation_noise", "dropped_actions", "parameter gravity"]
    assert names["Hopper-v4"] == [*signals, "push", "mass", "friction", "gravity", "damping"]
    assert [line.name for line in default_sweeps("MultiGoal-v0", {})] == [*signals, "moved_goals", "obstacle"]


def test_an_environment_may_say_it_otherwise(tmp_path):
    text = few(a=("  Pendulum-v1:", "  Pendulum-v1: {robustness: {episodes: 5}}\n  Hopper-v4:"))
    study = read_study(
        declare(tmp_path, text + DECLARED.replace("half gravity: {perturbation: parameter, name: g,", "push: {"))
    )
    assert {env: said.episodes for env, said in study.robustness.items()} == {"Pendulum-v1": 5, "Hopper-v4": 3}
    only = read_study(declare(tmp_path, text))
    assert list(only.robustness) == ["Pendulum-v1"]


BAD = {
    "{episode: 3}": "unknown key 'episode', did you mean 'episodes'",
    "{episodes: 0}": "robustness: episodes must be a whole number of at least 1",
    "{perturbations: [push]}": "perturbations must be a table of `key: value`",
    "{perturbations: {}}": "robustness: perturbations is empty: leave it out",
    "{perturbations: {action_nois: [0.1]}}": "unknown perturbation 'action_nois', did you mean 'action_noise'",
    "{perturbations: {mine: {perturbation: dropped, strengths: [1]}}}": "unknown perturbation 'dropped', did you mean",
    "{perturbations: {action_noise: []}}": "strengths must be a list of distinct numbers",
    "{perturbations: {action_noise: 0.1}}": "strengths must be a list of distinct numbers",
    "{perturbations: {action_noise: [0.1, 0.1]}}": "strengths must be a list of distinct numbers",
    "{perturbations: {action_noise: [0.1, high]}}": "strengths must be a list of distinct numbers",
    "{perturbations: {push: {stregths: [1]}}}": "push: unknown key 'stregths', did you mean 'strengths'",
    "{perturbations: {push: {strengths: [1], boddy: torso}}}": "push: unknown key 'boddy', did you mean 'body'",
    "{perturbations: {parameter: [0.5]}}": "parameter needs 'name'",
}


@pytest.mark.parametrize("section", BAD)
def test_refused(tmp_path, section):
    with pytest.raises(StudyError, match=r"small\.yml.*robustness") as caught:
        read(tmp_path, f"robustness: {section}")
    assert BAD[section] in str(caught.value)


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        ("push: [10]", "push for Pendulum-v1: Push needs a MuJoCo environment"),
        (
            "action_noise: [0.1, -0.1]",
            "action_noise for Pendulum-v1: The strength of ActionNoise must be a number of at least 0",
        ),
        ("parameter: {name: gravity, strengths: [2]}", "no parameter 'gravity'; it has g, m, l"),
        ("delayed_actions: [0.5]", "whole number"),
    ],
)
def test_refused_before_anything_is_trained(tmp_path, capsys, perturbation, message):
    path = declare(tmp_path, few() + f"robustness: {{perturbations: {{{perturbation}}}}}")
    assert main(["run", str(path)]) == 2
    assert message in capsys.readouterr().err


def by_hand(model, wrap, episodes):
    """The same by a loop, one environment after the other."""
    returns = []
    for episode in range(episodes):
        env = wrap(gym.make("Pendulum-v1"))
        obs, _ = env.reset(seed=SEED + episode)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
            total, over = total + reward, terminated or truncated
        returns.append(total)
    return np.mean(returns)


def test_numbers(trained, monkeypatch):
    (run,) = trained.runs
    file = trained.robustness_of(run)
    evaluate_run(trained, run)
    rows = read_rows(file)
    assert len(rows) == 4  # unperturbed once, and three strengths
    model = load_trained(trained.folder_of(run) / "zoo", run.algo, run.env).model
    found = {cell: float(row["return"]) for cell, row in rows.items()}
    assert found[Condition("none", "{}", 0.0, 3)] == pytest.approx(by_hand(model, lambda env: env, 3), rel=1e-4)
    assert found[NOISE] == pytest.approx(by_hand(model, lambda env: ObservationNoise(env, 0.3), 3), rel=1e-4)
    heavy = found[Condition("parameter", '{"name": "g"}', 2.0, 3)]
    assert heavy == pytest.approx(by_hand(model, lambda env: Parameter(env, 2.0, "g"), 3), rel=1e-4)
    assert len(set(found.values())) == 4
    # What is known is not done again; what is new, is
    monkeypatch.setattr(perturbed_evaluation, "returns_of", lambda trained, line, strength, episodes: [strength] * episodes)
    before = file.read_text()
    evaluate_run(trained, run)
    assert file.read_text() == before
    lines = sweeps_of(trained, run.env)
    more = (lines[0].__class__("noise", "observation_noise", {}, (0.3, 7.0)),)
    again = perturbed_evaluation.evaluate(
        trained.folder_of(run) / "zoo", run.algo, run.env, {}, more, 3, file.with_name("more.csv")
    )
    assert again[Condition("observation_noise", "{}", 7.0, 3)] == 7.0
    file.write_text(re.sub(r",\w+$", ",another", before, flags=re.MULTILINE).replace(",another", ",model", 1))
    evaluate_run(trained, run)  # of another model
    assert float(read_rows(file)[NOISE]["return"]) == 0.3
    file.unlink()


def test_many_episodes(trained):
    """More than there are environments at a time."""
    (run,) = trained.runs
    model = load_trained(trained.folder_of(run) / "zoo", run.algo, run.env)
    line = sweeps_of(trained, run.env)[0]
    assert len(perturbed_evaluation.returns_of(model, line, 0.3, MAX_ENVS + 2)) == MAX_ENVS + 2


def test_wrappers_and_statistics_of_the_training(tmp_path):
    """The agent's wrappers are outside of the perturbation; what it sees is normalized as at the end of its training."""
    study = declared(
        tmp_path,
        a=(
            "hyperparams:\n",
            "hyperparams:\n  normalize: true\n  env_wrapper: {rl_zoo3.wrappers.HistoryWrapper: {horizon: 2}}\n",
        ),
    )
    (run,) = study.runs
    work(study, run)
    folder = study.folder_of(run) / "zoo"
    trained = load_trained(folder, run.algo, run.env)
    envs = trained.make_envs(2, 0, {ObservationNoise: {"strength": 0.3}})
    assert isinstance(envs, VecNormalize) and not envs.training and not envs.norm_reward
    statistics = VecNormalize.load(str(folder / run.env / "vecnormalize.pkl"), envs.venv)
    assert np.array_equal(envs.obs_rms.mean, statistics.obs_rms.mean) and abs(envs.obs_rms.mean).max() > 0
    wrappers, env = [], envs.venv.envs[0]
    while isinstance(env, gym.Wrapper):
        wrappers.append(type(env).__name__)
        env = env.env
    assert wrappers[:3] == ["HistoryWrapper", "ObservationNoise", "Monitor"]
    assert trained.hyperparams["env_wrapper"] == {"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 2}}  # untouched
    evaluate_run(study, run)
    assert len(read_rows(study.robustness_of(run))) == 4


def test_a_perturbation_of_the_training_is_left_out(tmp_path):
    text = "hyperparams:\n"
    wrappers = "  env_wrapper: [{sb3_softac.robustness.ActionNoise: {strength: 0.5}}, rl_zoo3.wrappers.FrameSkip]\n"
    study = declared(tmp_path, a=(text, text + wrappers))
    (run,) = study.runs
    work(study, run)
    envs = load_trained(study.folder_of(run) / "zoo", run.algo, run.env).make_envs(1, 0)
    assert type(envs.envs[0]).__name__ == "FrameSkip" and "ActionNoise" not in str(envs.envs[0])


def test_no_model(tmp_path, trained):
    with pytest.raises(FileNotFoundError, match=r"has no model Pendulum-v1\.zip"):
        load_trained(tmp_path, "sac", "Pendulum-v1")
    (tmp_path / "Pendulum-v1.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"no folder Pendulum-v1 with the hyperparameters"):
        load_trained(tmp_path, "sac", "Pendulum-v1")


def test_summary_hand_computed(tmp_path):
    _, sweep = sweeps_of(declared(tmp_path), "Pendulum-v1")
    plain, half, double = (
        Condition("none", "{}", 0.0, 3),
        *(Condition("parameter", '{"name": "g"}', strength, 3) for strength in (0.5, 2.0)),
    )
    runs = [{plain: -100.0 - k, half: -50.0 - k, double: -400.0 - k} for k in range(5)]
    assert curves(sweep, 3, runs[:2]).tolist() == [[-50, -100, -400], [-51, -101, -401]]  # by strength, unperturbed at 1
    rows = summary({"sac": runs}, sweep, 3)
    assert [(row["strength"], row["IQM"], row["n"]) for row in rows] == [
        ("0.5", "-52", "5"),
        ("1", "-102", "5"),
        ("2", "-402", "5"),
    ]
    assert rows[0]["perturbation"] == "half gravity" and rows[0]["unit"] == "factor"
    assert rows[0]["95 % interval"] == "-"  # five seeds are too few
    assert rows[2]["all seeds"] == "-404, -403, -402, -401, -400"


def test_every_seed_is_in_the_picture():
    returns = np.arange(6.0).reshape(2, 3)
    figure = return_against_strength(
        {
            "mass": ("factor", (0.5, 1, 2), {"sac": returns, "td3": returns + 9}),
            "push": ("force in N", (0, 1, 2), {"sac": returns + 20, "td3": returns}),
        }
    )
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == ["mass", "push"]
    assert [panel.get_xlabel() for panel in panels] == ["factor", "force in N"]
    drawn = [line.get_ydata().tolist() for line in panels[0].lines]
    assert all(row.tolist() in drawn for row in [*returns, *(returns + 9), returns.mean(axis=0)])
    assert panels[0].lines[0].get_xdata().tolist() == [0.5, 1, 2]


def test_the_report_shows_it(trained, tmp_path):
    (run,) = trained.runs
    text = write_report(trained, tmp_path / "before").read_text()
    assert "1 runs have not been evaluated under all perturbations" in text and run.id in text
    evaluate_run(trained, run)
    text = write_report(trained, tmp_path / "report").read_text()
    assert "Pendulum-v1, robustness" in text and "have not been evaluated" not in text and "half gravity" in text
    assert text.count("<svg") == 2 * 3 + 1
    with open(tmp_path / "report" / "Pendulum-v1_robustness.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 + 3 and {row["algorithm"] for row in rows} == {"SoftAC_v1"}
    assert (tmp_path / "report" / "Pendulum-v1_robustness.png").stat().st_size > 5_000
    write_table(list(read_rows(trained.robustness_of(run)).values())[1:], trained.robustness_of(run))
    assert "1 runs have not been evaluated" in write_report(trained, tmp_path / "part").read_text()  # one strength lacks
    trained.robustness_of(run).unlink()


def test_a_study_without(tmp_path, capsys):
    path = declare(tmp_path, few())
    assert main(["robustness", str(path)]) == 2
    assert "has no key `robustness`" in capsys.readouterr().err


def command(folder, *arguments):
    typed = [sys.executable, "-m", "sb3_softac.zoo", "robustness", *map(str, arguments)]
    return subprocess.run(typed, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def test_the_command(trained, tmp_path):
    """As it is typed, on the run of a study."""
    (run,) = trained.runs
    folder = trained.folder_of(run) / "zoo"
    arguments = ("--algo", "softac_v1", "--env", "Pendulum-v1", "--run", folder, "-n", 3, "-o", tmp_path / "made")
    result = command(tmp_path, *arguments, "-p", "observation_noise", 0.3, "-p", "parameter", 0.5, 2.0, "name=g")
    assert result.returncode == 0, result.stderr
    made = [str(tmp_path / "made" / f"Pendulum-v1_robustness.{end}") for end in ("csv", "png")]
    assert result.stdout.strip().splitlines()[-2:] == made
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {f"Pendulum-v1_robustness.{end}" for end in ("png", "svg", "csv")} | {"Pendulum-v1_SoftAC_v1_1.csv"}
    evaluate_run(trained, run)  # the same numbers as by the study
    assert read_rows(tmp_path / "made" / "Pendulum-v1_SoftAC_v1_1.csv") == read_rows(trained.robustness_of(run))
    trained.robustness_of(run).unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--algo", "softac"), "RL Zoo has no algorithm 'softac', did you mean 'softac_v1'"),
        (("--env", "Pendulm-v1"), "Unknown environment 'Pendulm-v1', did you mean 'Pendulum-v1'"),
        (("-n", "0"), "--episodes must be at least 1"),
        (("--algo", "sac"), "is a run of softac_v1, not of sac"),
        (("--run", "nowhere"), "nowhere has no model Pendulum-v1.zip"),
        (("-p", "push", "10"), "Push needs a MuJoCo environment"),
        (("-p", "pushh", "10"), "unknown perturbation 'pushh', did you mean 'push'"),
        (("-p", "action_noise", "much"), "strengths must be a list of distinct numbers"),
        (("-p", "action_noise", "0.1", "-p", "action_noise", "0.2"), "--perturbation action_noise is given twice"),
    ],
)
def test_what_the_command_refuses(trained, tmp_path, monkeypatch, arguments, message):
    from sb3_softac.study import robustness_command

    monkeypatch.chdir(tmp_path)
    folder = trained.folder_of(trained.runs[0]) / "zoo"
    said = ["robustness", "--algo", "softac_v1", "--env", "Pendulum-v1", "--run", str(folder), *arguments]
    monkeypatch.setattr(sys, "argv", said)
    with pytest.raises(SystemExit, match="error: ") as caught:
        robustness_command.main()
    assert message in str(caught.value)


def test_runs_are_found_where_the_zoo_puts_them(tmp_path):
    for name in ("sac/Pendulum-v1_1", "sac/Pendulum-v1_12", "sac/Pendulum-v10_1", "td3/Pendulum-v1_1", "ppo/Pendulum-v1_1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "Pendulum-v1.zip").touch()
    (tmp_path / "td3/Pendulum-v1_1/Pendulum-v1").mkdir()
    (tmp_path / "td3/Pendulum-v1_1/Pendulum-v1/args.yml").write_text("algo: td3")
    (tmp_path / "sac/Pendulum-v1_best").mkdir()
    args = parse(["--algo", "sac", "td3", "--env", "Pendulum-v1", "-f", str(tmp_path)])
    found = sources(args)
    assert [str(source.folder.relative_to(tmp_path)) for source in found] == [
        *("sac/Pendulum-v1_1", "sac/Pendulum-v1_12"),
        "td3/Pendulum-v1_1",
    ]
    assert [source.name for source in found] == ["SAC", "SAC", "TD3"]
    with pytest.raises(StudyError, match="No run of dqn on Pendulum-v1"):
        sources(parse(["--algo", "dqn", "--env", "Pendulum-v1", "-f", str(tmp_path)]))


def test_lines_of_the_command():
    (push,) = sweeps_of_command([["push", "50", "100", "body=foot", "steps=3"]])
    assert (push.perturbation, push.strengths, push.options) == ("push", (50.0, 100.0), {"body": "foot", "steps": 3})
    assert push.name == "push foot 3"
    (mass,) = sweeps_of_command([["mass"]])
    assert mass.strengths == (0.5, 0.75, 1.25, 1.5, 2.0)


@pytest.mark.slow
def test_models_of_the_zoo(tmp_path):
    """SB3's algorithms, one with normalized observations, and ours, as rl_zoo3.train leaves them."""
    small = ("--hyperparams", "policy_kwargs:dict(net_arch=[8])", "n_envs:1")
    few_steps = ("--env", "Pendulum-v1", "-n", "300", "--eval-freq", "-1", "--seed", "1")
    for algo, more in (
        ("sac", ("buffer_size:500", "learning_starts:50")),
        ("td3", ("buffer_size:500", "noise_std:0.1", "learning_starts:50")),
        ("ppo", ("n_steps:64", "normalize:True")),
        ("softac_v1", ("batch_size:16", "buffer_size:500")),
    ):
        typed = [sys.executable, "-m", "sb3_softac.zoo", "train", "--algo", algo, *few_steps, *small, *more]
        result = subprocess.run(typed, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
    result = command(tmp_path, "--algo", "sac", "td3", "ppo", "softac_v1", "--env", "Pendulum-v1", "-n", 2)
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "robustness" / "Pendulum-v1_robustness.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["algorithm"] for row in rows} == {"SAC", "TD3", "PPO", "SoftAC_v1"}
    assert len({row["perturbation"] for row in rows}) == 7 and all(np.isfinite(float(row["IQM"])) for row in rows)


@pytest.mark.slow
def test_the_study_command(tmp_path):
    """In processes; a run whose model is gone fails alone."""
    path = declare(tmp_path, few(a=("seeds: 1", "seeds: 2")) + DECLARED)
    study = read_study(path)
    for run in study.runs:
        work(study, run)
    first, second = study.runs
    (study.folder_of(second) / "zoo" / "Pendulum-v1.zip").unlink()
    typed = [sys.executable, "-m", "sb3_softac.study", "robustness", str(path), "--jobs", "2"]
    result = subprocess.run(typed, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1 and f"failed: {second.id}: FileNotFoundError" in result.stderr
    assert len(read_rows(study.robustness_of(first))) == 4 and not study.robustness_of(second).exists()
