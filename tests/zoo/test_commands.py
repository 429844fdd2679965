"""The Zoo's scripts as people type them, on short runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SMALL = ["--hyperparams", "policy_kwargs:dict(net_arch=[8])", "batch_size:16", "buffer_size:500"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy", "PYTHONPATH": ""}


def run(folder, module, *arguments, expect=0):
    command = [sys.executable, "-m", module, *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == expect, f"{' '.join(command)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout + result.stderr


def train(folder, *arguments, algo="softac_v1", env="Pendulum-v1", steps=250, expect=0, module="rl_zoo3.train"):
    common = ["--algo", algo, "--env", env, "-n", steps, "--eval-freq", 200, "--eval-episodes", 1]
    return run(folder, module, *common, *arguments, expect=expect)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One model trained with evaluation, checkpoints and TensorBoard; the other commands work on it."""
    folder = tmp_path_factory.mktemp("zoo")
    train(folder, "--save-freq", 100, "--tensorboard-log", "tb", "--save-replay-buffer", *SMALL)
    return folder


def test_train_writes_what_the_zoo_promises(trained):
    run_folder = trained / "logs/softac_v1/Pendulum-v1_1"
    for name in (
        "Pendulum-v1.zip",
        "best_model.zip",
        "evaluations.npz",
        "rl_model_100_steps.zip",
        "0.monitor.csv",
        "replay_buffer.pkl",
    ):
        assert (run_folder / name).exists(), name
    assert any((trained / "tb").rglob("events.out.tfevents*"))
    config = yaml.unsafe_load((run_folder / "Pendulum-v1/config.yml").read_text())
    assert config["ent_coef"] == 0.2 and config["learning_rate"] == 1e-3  # ours, not the Zoo's


def test_enjoy(trained):
    text = run(
        trained,
        "rl_zoo3.enjoy",
        "--algo",
        "softac_v1",
        "--env",
        "Pendulum-v1",
        "-f",
        "logs",
        "--no-render",
        "-n",
        250,
        "--load-best",
    )
    assert "Episode Reward" in text
    run(
        trained,
        "rl_zoo3.enjoy",
        "--algo",
        "softac_v1",
        "--env",
        "Pendulum-v1",
        "-f",
        "logs",
        "--no-render",
        "-n",
        20,
        "--load-checkpoint",
        100,
    )


def test_continue(trained):
    text = train(trained, "-i", "logs/softac_v1/Pendulum-v1_1/Pendulum-v1.zip", *SMALL)
    assert "Loading pretrained agent" in text and "Loading replay buffer" in text


def test_record_video(trained):
    run(trained, "rl_zoo3.record_video", "--algo", "softac_v1", "--env", "Pendulum-v1", "-f", "logs", "-n", 20, "--exp-id", 1)
    assert list(trained.rglob("*.mp4"))


def test_plots(trained):
    run(trained, "rl_zoo3.plots.plot_train", "--algo", "softac_v1", "--env", "Pendulum-v1", "--exp-folder", "logs", "-w", 1)
    text = run(
        trained,
        "rl_zoo3.plots.all_plots",
        "--algos",
        "softac_v1",
        "--env",
        "Pendulum-v1",
        "--exp-folders",
        "logs",
        "--no-display",
        "-o",
        "table",
    )
    assert "SOFTAC_V1" in text.upper()
    assert (trained / "table.pkl").exists()


def test_subprocesses_and_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "mine.yml").write_text(
        "Pendulum-v1:\n  policy: MlpPolicy\n  n_timesteps: 100\n  n_envs: 2\n  normalize: true\n  ent_coef: 0.7\n"
        "  learning_rate: lin_1e-3\n  policy_kwargs: 'dict(net_arch=[8])'\n"
    )
    train(tmp_path, "--vec-env", "subproc", "--conf-file", "mine.yml")
    config = yaml.unsafe_load((tmp_path / "logs/softac_v1/Pendulum-v1_1/Pendulum-v1/config.yml").read_text())
    assert config["ent_coef"] == 0.7 and config["n_envs"] == 2
    assert (tmp_path / "logs/softac_v1/Pendulum-v1_1/Pendulum-v1/vecnormalize.pkl").exists()


def test_optimize_and_train_the_best_trial(tmp_path):
    storage = ["--storage", "study.log", "--study-name", "test"]
    train(
        tmp_path,
        "-optimize",
        "--n-trials",
        2,
        "--n-startup-trials",
        1,
        "--n-evaluations",
        1,
        "--no-optim-plots",
        *storage,
        *SMALL,
        steps=120,
    )
    assert list((tmp_path / "logs/softac_v1").glob("report_*.csv"))
    train(tmp_path, "--trial-id", 1, *storage, steps=120)


def test_without_the_start_up_file(tmp_path):
    run(tmp_path, "sb3_softac.zoo", "train", "--algo", "softac_v1", "--env", "Pendulum-v1", "-n", 120, *SMALL)
    assert Path(tmp_path / "logs/softac_v1/Pendulum-v1_1/Pendulum-v1.zip").exists()
    assert "SCRIPT is one of train, enjoy" in run(tmp_path, "sb3_softac.zoo", "trian", expect=1)


def test_discrete_actions_are_refused_with_a_hint(tmp_path):
    assert "DiscreteSAC" in train(tmp_path, env="CartPole-v1", expect=1)


@pytest.mark.parametrize("script", ["push_to_hub", "load_from_hub", "record_training"])
def test_the_other_scripts_know_the_algorithm(script, tmp_path):
    assert "softac_v1" in run(tmp_path, f"rl_zoo3.{script}", "--help")
