"""The Zoo's scripts on short runs; one of each kind is run as people type it."""

import pickle

import pytest
import yaml

from tests.zoo.commands import PENDULUM, SMALL, TRIALS, run, run_as_typed, saved_config, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One model trained with evaluation, checkpoints and TensorBoard; the other commands work on it."""
    folder = tmp_path_factory.mktemp("zoo")
    train(folder, "--save-freq", 100, "--tensorboard-log", "tb", "--save-replay-buffer", *SMALL, run=run_as_typed)
    return folder


def test_train_writes_what_the_zoo_promises(trained):
    run_folder = trained / "logs/softac_v1/Pendulum-v1_1"
    for name in (
        "Pendulum-v1.zip",
        "best_model.zip",
        "evaluations.npz",
        "rl_model_100_steps.zip",
        "rl_model_200_steps.zip",
        "0.monitor.csv",
        "replay_buffer.pkl",
    ):
        assert (run_folder / name).exists(), name
    assert any((trained / "tb").rglob("events.out.tfevents*"))
    config = saved_config(trained)
    assert config["ent_coef"] == 0.2 and config["learning_rate"] == 1e-3  # ours, not the Zoo's


@pytest.mark.parametrize(
    "which",
    [
        ["--load-best"],
        *(pytest.param(which, marks=pytest.mark.slow) for which in (["--load-checkpoint", 100], ["--load-last-checkpoint"])),
    ],
)
def test_enjoy(which, trained):
    arguments = ("-f", "logs", "--exp-id", 1, "--no-render", "-n", 210)
    assert "Mean reward" in run(trained, "rl_zoo3.enjoy", *PENDULUM, *arguments, *which)


def test_continue(trained):
    text = train(trained, "-i", "logs/softac_v1/Pendulum-v1_1/Pendulum-v1.zip", *SMALL)
    assert "Loading pretrained agent" in text and "Loading replay buffer" in text


def test_record_video(trained):
    run(trained, "rl_zoo3.record_video", *PENDULUM, "-f", "logs", "-n", 20, "--exp-id", 1)
    assert list(trained.rglob("*.mp4"))


def test_plots(trained):
    train(trained, *SMALL)  # a comparison needs a second run
    run(trained, "rl_zoo3.plots.plot_train", *PENDULUM, "--exp-folder", "logs", "-w", 1)
    all_plots = ("--algos", "softac_v1", "--env", "Pendulum-v1", "--exp-folders", "logs", "--no-display", "-o", "table")
    run(trained, "rl_zoo3.plots.all_plots", *all_plots)
    results = pickle.loads((trained / "table.pkl").read_bytes())["Pendulum-v1"]["SOFTAC_V1-logs"]
    assert results["timesteps"].tolist() == [100, 200] and results["mean"].max() < 0  # two evaluations were drawn
    run(trained, "rl_zoo3.plots.plot_from_file", "-i", "table.pkl", "-l", "SoftAC_v1", "-o", "curve.svg")
    assert (trained / "curve.svg").exists()


@pytest.mark.slow
def test_subprocesses_and_a_configuration_of_ones_own(tmp_path):
    (tmp_path / "mine.yml").write_text(
        "Pendulum-v1:\n  policy: MlpPolicy\n  n_timesteps: 100\n  n_envs: 2\n  normalize: true\n  ent_coef: 0.7\n"
        "  learning_rate: lin_1e-3\n  policy_kwargs: 'dict(net_arch=[8])'\n"
    )
    train(tmp_path, "--vec-env", "subproc", "--conf-file", "mine.yml", run=run_as_typed)
    config = saved_config(tmp_path)
    assert config["ent_coef"] == 0.7 and config["n_envs"] == 2
    assert (tmp_path / "logs/softac_v1/Pendulum-v1_1/Pendulum-v1/vecnormalize.pkl").exists()


def test_optimize_and_train_with_what_was_found(tmp_path):
    storage = ("--storage", "study.log", "--study-name", "test")
    train(tmp_path, "-optimize", *TRIALS, *storage, *SMALL, steps=120)
    (report,) = (tmp_path / "logs/softac_v1").glob("report_*.csv")
    assert report.read_text().count("COMPLETE") == 2
    run(tmp_path, "sb3_softac.zoo", "train", *PENDULUM, "-n", 120, "--eval-freq", -1, "--trial-id", 0, *storage)
    assert saved_config(tmp_path, 2)["actor_q"] in ("min", "first")


@pytest.mark.slow
def test_without_the_start_up_file(tmp_path):
    off = {"SB3_SOFTAC_NO_ZOO": "1"}
    assert "invalid choice: 'softac_v1'" in run_as_typed(tmp_path, "rl_zoo3.train", *PENDULUM, expect=2, **off)
    run_as_typed(tmp_path, "sb3_softac.zoo", "train", *PENDULUM, "-n", 120, "--eval-freq", -1, *SMALL, **off)
    assert saved_config(tmp_path)["ent_coef"] == 0.2
    run_as_typed(tmp_path, "sb3_softac.zoo", "enjoy", *PENDULUM, "-f", "logs", "--no-render", "-n", 10, **off)


@pytest.mark.slow
def test_benchmark_without_a_clone_of_the_zoo(trained):
    arguments = ("--log-dir", "logs", "--no-hub", "-n", 410)
    run(trained, "sb3_softac.zoo", "benchmark", *arguments)
    (row,) = [line for line in (trained / "benchmark.md").read_text().splitlines() if line.startswith("|softac_v1|")]
    _, env_id, reward, _, _, steps, episodes = row.strip("|").split("|")
    assert env_id == "Pendulum-v1" and float(reward) < 0 and int(steps) == 400 and int(episodes) == 2


def test_plots_say_what_they_need(tmp_path):
    (tmp_path / "without_seaborn.py").write_text(
        "import runpy, sys; sys.modules['seaborn'] = None; runpy.run_module('sb3_softac.zoo', run_name='__main__')"
    )
    text = run(tmp_path, "without_seaborn", "plot_train", "--help", expect=1)
    assert "pip install 'sb3_softac[plots]'" in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("algo", "env_id", "ours"),
    [
        ("sql", "Pendulum-v1", "kernel_particles"),
        pytest.param("discretesac", "CartPole-v1", "target_entropy", marks=pytest.mark.slow),
        pytest.param("discretesql", "CartPole-v1", "ent_coef", marks=pytest.mark.slow),
    ],
)
def test_the_other_algorithms_train_enjoy_optimize_and_plot(algo, env_id, ours, tmp_path):
    task = ("--algo", algo, "--env", env_id)
    for _ in range(2):  # a comparison needs two runs
        train(tmp_path, *SMALL, task=task)
    assert ours in yaml.unsafe_load((tmp_path / f"logs/{algo}/{env_id}_1/{env_id}/config.yml").read_text())
    assert "Mean reward" in run(tmp_path, "rl_zoo3.enjoy", *task, "-f", "logs", "--no-render", "-n", 210)
    run(tmp_path, "rl_zoo3.plots.plot_train", *task, "--exp-folder", "logs", "-w", 1)
    all_plots = ("--algos", algo, "--env", env_id, "--exp-folders", "logs", "--no-display", "-o", "table")
    run(tmp_path, "rl_zoo3.plots.all_plots", *all_plots)
    assert pickle.loads((tmp_path / "table.pkl").read_bytes())[env_id][f"{algo.upper()}-logs"]["timesteps"].tolist() == [
        100,
        200,
    ]
    train(tmp_path, "-optimize", *TRIALS, *SMALL, task=task, steps=120)
    (report,) = (tmp_path / f"logs/{algo}").glob("report_*.csv")
    assert report.read_text().count("COMPLETE") == 2
