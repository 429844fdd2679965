"""Trained models under perturbations: the numbers, by hand, and their part of the report."""

import csv
import re
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac.robustness import ObservationNoise, Parameter
from sb3_softac.study import PerturbationSweep, perturbed_evaluation, plots, read_study
from sb3_softac.study.__main__ import main
from sb3_softac.study.perturbed_evaluation import (
    MAX_ENVS,
    SEED,
    Condition,
    curves,
    default_name,
    evaluate_run,
    evaluate_runs,
    read_rows,
    returns_of,
    summary,
    sweeps_of,
    write_table,
)
from sb3_softac.study.report import robustness_section, write_report
from sb3_softac.study.results import read_results
from sb3_softac.study.training import work
from sb3_softac.study.validation import check_names
from sb3_softac.zoo.trained import load_trained, model_of
from tests.study.small import ENVIRONMENT, SMALL, declare, declared

NOISE = Condition("observation_noise", "{}", 0.3, 3)
UNPERTURBED = Condition("none", "{}", 0.0, 3)


def gravity(strength):
    return Condition("parameter", '{"name": "g"}', strength, 3)


@pytest.fixture
def returns(trained):
    """The file of returns under perturbations, which is removed afterwards."""
    file = trained.robustness_of(trained.runs[0])
    yield file
    file.unlink(missing_ok=True)


def by_hand(model, wrap, episodes):
    """The mean return by a loop, one environment after the other."""
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


def test_numbers(trained, returns, monkeypatch):
    (run,) = trained.runs
    evaluate_run(trained, run)
    rows = read_rows(returns)
    loaded = load_trained(trained.zoo_folder_of(run), run.algo, run.env)
    found = {condition: float(row["return"]) for condition, row in rows.items()}
    assert set(found) == {UNPERTURBED, NOISE, gravity(0.5), gravity(2.0)} and len(set(found.values())) == 4
    assert found[UNPERTURBED] == pytest.approx(by_hand(loaded.model, lambda env: env, 3), rel=1e-4)
    assert found[NOISE] == pytest.approx(by_hand(loaded.model, lambda env: ObservationNoise(env, 0.3), 3), rel=1e-4)
    assert found[gravity(2.0)] == pytest.approx(by_hand(loaded.model, lambda env: Parameter(env, 2.0, "g"), 3), rel=1e-4)
    # more episodes than there are parallel environments
    assert len(returns_of(loaded, sweeps_of(trained, run.env)[0], 0.3, MAX_ENVS + 2)) == MAX_ENVS + 2

    # only what is not known is evaluated
    monkeypatch.setattr(perturbed_evaluation, "returns_of", lambda trained, sweep, strength, episodes: [strength] * episodes)
    before = returns.read_text()
    evaluate_run(trained, run)
    assert returns.read_text() == before
    more = (PerturbationSweep("noise", "observation_noise", {}, (0.3, 7.0)),)
    found = perturbed_evaluation.evaluate(trained.zoo_folder_of(run), run.algo, run.env, more, 3, returns)
    assert found[NOISE._replace(strength=7.0)] == 7.0 and found[NOISE] == float(rows[NOISE]["return"])
    # returns of another model are not known
    returns.write_text(re.sub(r",\w+$", ",another", before, flags=re.MULTILINE).replace(",another", ",model", 1))
    evaluate_run(trained, run)
    assert float(read_rows(returns)[NOISE]["return"]) == 0.3


def test_the_report_shows_it(trained, returns, tmp_path, monkeypatch):
    (run,) = trained.runs
    evaluate_run(trained, run)
    results, _, _ = read_results(trained)
    section = robustness_section(trained, results, run.env, tmp_path)
    assert not section.warnings and "half gravity" in str(section.plots)
    with open(tmp_path / "Pendulum-v1_robustness.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows == section.tables["Perturbations"] and len(rows) == 2 + 3
    assert (tmp_path / "Pendulum-v1_robustness.png").stat().st_size > 5_000
    monkeypatch.setattr(plots, "save", lambda figure, path: "<svg")
    text = write_report(trained, tmp_path / "report").read_text()
    assert "Pendulum-v1, robustness" in text and text.count("<svg") == 2 * 3 + 1
    write_table(list(read_rows(returns).values())[1:], returns)  # one strength is missing
    (warning,) = robustness_section(trained, results, run.env, tmp_path).warnings
    assert f"Not evaluated under all perturbations, and not in this plot: {run.id}" in warning


def test_wrappers_and_statistics_of_the_training(tmp_path):
    """The agent's wrappers are outside of the perturbation; those of its training that perturb are left out."""
    history = {"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 2}}
    wrappers = [{"sb3_softac.robustness.ActionNoise": {"strength": 0.5}}, history]
    hyperparams = {**SMALL["hyperparams"], "normalize": True, "env_wrapper": wrappers}
    study = declared(tmp_path, n_timesteps=100, hyperparams=hyperparams)
    (run,) = study.runs
    work(study, run)
    trained = load_trained(study.zoo_folder_of(run), run.algo, run.env)
    envs = trained.make_envs(2, 0, {ObservationNoise: {"strength": 0.3}})
    assert isinstance(envs, VecNormalize) and not envs.training and not envs.norm_reward
    statistics = VecNormalize.load(str(study.zoo_folder_of(run) / run.env / "vecnormalize.pkl"), envs.venv)
    assert np.array_equal(envs.obs_rms.mean, statistics.obs_rms.mean) and abs(envs.obs_rms.mean).max() > 0
    assert str(envs.venv.envs[0]).startswith("<HistoryWrapper<ObservationNoise<Monitor<")
    assert "ActionNoise" not in str(envs.venv.envs[0])
    assert trained.hyperparams["env_wrapper"] == wrappers


def test_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no model Pendulum-v1\.zip"):
        load_trained(tmp_path, "sac", "Pendulum-v1")
    (tmp_path / "Pendulum-v1.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"no folder Pendulum-v1 with the hyperparameters"):
        load_trained(tmp_path, "sac", "Pendulum-v1")


def test_summary_by_hand(trained):
    _, sweep = sweeps_of(trained, "Pendulum-v1")
    runs = [{UNPERTURBED: -100.0 - k, gravity(0.5): -50.0 - k, gravity(2.0): -400.0 - k} for k in range(5)]
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
    study = declared(tmp_path, robustness={})
    reasons = set(evaluate_runs(study, list(study.runs), 2).values())
    assert reasons == {"a process was killed, perhaps for lack of memory: try again with fewer --jobs"}


def test_ctrl_c_starts_no_further_evaluation(monkeypatch, tmp_path):
    begun = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, jobs, context):
            super().__init__(1)

    def interrupted(futures):
        next(as_completed(futures))
        raise KeyboardInterrupt

    monkeypatch.setattr(perturbed_evaluation, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(perturbed_evaluation, "as_completed", interrupted)
    monkeypatch.setattr(perturbed_evaluation, "evaluate_run", lambda study, run: begun.append(run) or time.sleep(0.2))
    study = declared(tmp_path, robustness={}, seeds=9)
    with pytest.raises(KeyboardInterrupt):
        evaluate_runs(study, list(study.runs), 1)
    assert len(begun) <= 2


def test_a_study_without_perturbations(tmp_path, capsys):
    assert main(["robustness", str(declare(tmp_path))]) == 2
    assert "has no key `robustness`" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_of_a_study(tmp_path):
    """In processes; a run whose model is gone fails alone."""
    sweeps = {"perturbations": {"observation_noise": [0.3]}, "episodes": 1}
    path = declare(tmp_path, seeds=2, n_timesteps=100, robustness=sweeps)
    study = read_study(path)
    for run in study.runs:
        work(study, run)
    first, second = study.runs
    (study.zoo_folder_of(second) / "Pendulum-v1.zip").unlink()
    command = [sys.executable, "-m", "sb3_softac.study", "robustness", str(path), "--jobs", "2"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and f"failed: {second.id}: FileNotFoundError" in done.stderr
    assert len(read_rows(study.robustness_of(first))) == 2 and not study.robustness_of(second).exists()


def test_more_episodes_than_environments_have_the_same_seeds_at_all_strengths(trained, monkeypatch):
    made = []
    monkeypatch.setattr(perturbed_evaluation, "evaluate_policy", lambda model, envs, n, **kwargs: ([0.0] * n, [1] * n))
    loaded = load_trained(trained.zoo_folder_of(trained.runs[0]), trained.runs[0].algo, trained.runs[0].env)
    monkeypatch.setattr(type(loaded), "make_envs", lambda self, n, seed, wrapper: made.append((n, seed)) or Closed())
    assert returns_of(loaded, sweeps_of(trained, loaded.env)[0], 0.3, MAX_ENVS + 2) == [0.0] * (MAX_ENVS + 2)
    assert made == [(MAX_ENVS, SEED), (2, SEED + MAX_ENVS)]


class Closed:
    def close(self):
        pass


def test_keyword_arguments_of_a_hyperparameter_file(tmp_path):
    entry = {"policy": "MlpPolicy", "env_kwargs": {"sutton_barto_reward": True}, "learning_starts": 1000}
    (tmp_path / "conf.yml").write_text(yaml.safe_dump({"CartPole-v1": entry}))
    study = declared(
        tmp_path,
        algorithms={"dqn": {"config": "conf.yml"}},
        environments=["CartPole-v1"],
        n_timesteps=100,
        hyperparams={},
        robustness={"episodes": 2, "perturbations": {"parameter": {"name": "length", "strengths": [2]}}},
    )
    (run,) = study.runs
    check_names(study)
    work(study, run)
    evaluate_run(study, run)
    assert {row["return"] for row in read_rows(study.robustness_of(run)).values()} == {"-1"}


def test_returns_of_another_model_are_not_shown(trained, returns, tmp_path):
    (run,) = trained.runs
    evaluate_run(trained, run)
    returns.write_text(re.sub(r",\w+$", ",another", returns.read_text(), flags=re.MULTILINE).replace(",another", ",model", 1))
    results, _, _ = read_results(trained)
    (warning,) = robustness_section(trained, results, run.env, tmp_path).warnings
    assert run.id in warning
    model = model_of(trained.zoo_folder_of(run), run.env)
    content = model.read_bytes()
    model.unlink()  # only the results have been kept: there is nothing to compare with
    try:
        assert not robustness_section(trained, results, run.env, tmp_path).warnings
    finally:
        model.write_bytes(content)


def test_names_tell_perturbations_apart():
    assert default_name("push", {"body": "cart", "steps": 3}) != default_name("push", {"body": "cart", "every": 3})
    assert default_name("parameter", {"name": "g"}) == "parameter g"
