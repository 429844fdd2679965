"""The log goes on where the checkpoint was: its files, TensorBoard, and the iterations of PPO and A2C."""

import csv
import json
import shutil

import pytest
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_softac import SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, ResumeError
from tests.resume.harness import Cut

FORMATS = ["csv", "json", "log"]
TIMES = {"time/fps", "time/time_elapsed"}


class Words(BaseCallback):
    """Logs names that are new in the course of the training, and text with commas and quotes."""

    def _on_step(self):
        self.logger.record(f"words/{self.num_timesteps // 20}", 'a "word", or two')
        return True


def off_policy(algorithm, **kwargs):
    env = make_vec_env("Pendulum-v1", env_kwargs=dict(max_episode_steps=15))
    small = dict(learning_starts=5, batch_size=4, buffer_size=200, seed=3, device="cpu", policy_kwargs=dict(net_arch=[4]))
    return algorithm("MlpPolicy", env, **small, **kwargs)


def on_policy(algorithm, **kwargs):
    small = dict(n_steps=8, seed=3, device="cpu", policy_kwargs=dict(net_arch=[4]))
    return algorithm(
        "MlpPolicy",
        make_vec_env("CartPole-v1"),
        **small,
        **({"batch_size": 8, "n_epochs": 2} if algorithm is PPO else {}),
        **kwargs,
    )


def run(model, folder, steps, cut=10**9, formats=FORMATS, log_interval=1, every=8):
    """A whole program that logs into files."""
    if formats:
        model.set_logger(configure(str(folder), formats))
    callbacks = [ExactCheckpoint(folder / "checkpoints", every), Words(), Cut(cut)]
    try:
        model.learn(steps, callback=callbacks, log_interval=log_interval)
    except KeyboardInterrupt:
        pass
    finally:
        model.logger.close()


def rows(folder):
    with open(folder / "progress.csv") as file:
        table = [{name: text for name, text in row.items() if name not in TIMES and text} for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]
    lines = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    text = (folder / "log.txt").read_text().splitlines()
    others = ("fps", "elapsed", "Logging to")
    return table, lines, [line.strip("-").replace(" ", "") for line in text if not any(part in line for part in others)]


@pytest.mark.parametrize("algorithm", [PPO, A2C])
@pytest.mark.parametrize("log_interval", [1, 3])
def test_rows_and_iterations_go_on(algorithm, log_interval, tmp_path):
    for name, cuts in [("straight", []), ("cut", [30, 31, 62])]:
        for cut in [*cuts, 10**9, 10**9]:  # once more when it is finished
            run(on_policy(algorithm), tmp_path / name, 80, cut, log_interval=log_interval)
    straight, cut = rows(tmp_path / "straight"), rows(tmp_path / "cut")
    assert straight == cut and len(cut[1]) == 10 // log_interval
    assert [line["time/iterations"] for line in cut[1]] == [*range(log_interval, 11, log_interval)]


def test_a_longer_training_counts_on(tmp_path):
    run(on_policy(PPO), tmp_path, 40)
    run(on_policy(PPO), tmp_path, 64)
    assert [line["time/iterations"] for line in rows(tmp_path)[1]] == [*range(1, 9)]


@pytest.mark.parametrize("algorithm", [SoftAC_v1, SAC])
def test_rows_of_algorithms_with_a_replay_buffer(algorithm, tmp_path):
    for name, cuts in [("straight", []), ("cut", [33, 55])]:
        for cut in [*cuts, 10**9]:
            run(off_policy(algorithm), tmp_path / name, 80, cut)
    straight, cut = rows(tmp_path / "straight"), rows(tmp_path / "cut")
    assert straight == cut and len(cut[1]) == 5


def test_a_refused_program_does_not_erase_the_log(tmp_path):
    run(on_policy(PPO), tmp_path, 40)
    before = rows(tmp_path)
    with pytest.raises(ResumeError, match="algorithm: A2C now"):
        run(on_policy(A2C), tmp_path, 40)
    assert rows(tmp_path) == before


def test_a_log_that_is_removed_ends_no_training(tmp_path):
    class Remove(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 20:
                (tmp_path / "log/progress.csv").unlink()
            return True

    model = off_policy(SoftAC_v1)
    model.set_logger(configure(str(tmp_path / "log"), FORMATS))
    model.learn(40, callback=[ExactCheckpoint(tmp_path / "checkpoints", 10), Remove()], log_interval=1)
    model.logger.close()
    assert [*(tmp_path / "checkpoints").glob("checkpoint-*40")]


def test_another_folder_gets_the_whole_log(tmp_path):
    run(on_policy(PPO), tmp_path / "a", 80, 50)
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    run(on_policy(PPO), tmp_path / "b", 80, formats=["json"])
    assert len((tmp_path / "b" / "progress.json").read_text().splitlines()) == 10


def scalars(folder, tag="rollout/ep_len_mean"):
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.parametrize("own", [True, False])
def test_tensorboard_goes_on_in_the_same_folder(own, tmp_path):
    folders = {name: tmp_path / name / ("tb/PPO_1" if own else "") for name in ("straight", "cut")}
    for name, cuts in [("straight", []), ("cut", [30, 62])]:
        for cut in [*cuts, 10**9, 10**9]:
            model = on_policy(PPO, tensorboard_log=str(tmp_path / name / "tb") if own else None)
            run(model, tmp_path / name, 80, cut, formats=None if own else ["tensorboard"])
    if own:
        assert [path.name for path in (tmp_path / "cut" / "tb").iterdir()] == ["PPO_1"]
    assert scalars(folders["straight"]) == scalars(folders["cut"])
    assert len({step for step, _ in scalars(folders["cut"])}) == len(scalars(folders["cut"])) > 3
