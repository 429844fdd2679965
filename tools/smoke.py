"""
A short look at an installation: the algorithms learn, are saved and loaded, and RL Zoo trains and plays them.

Run it by the Python of the environment in question, from any folder: ``python tools/smoke.py``. It takes about a minute.
``make oldest`` runs it with the oldest versions that setup.cfg allows.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1

STEPS = 300
SMALL = dict(learning_starts=50, batch_size=32, buffer_size=1_000, policy_kwargs=dict(net_arch=[32]), device="cpu", seed=0)
TRAIN = ("-n", str(STEPS))
ZOO = {"softac_v1": "Walker2d-v4", "discretesac": "CartPole-v1", "discretesql": "CartPole-v1", "sql": "Pendulum-v1"}
NAMED = "stable_baselines3 sb3_contrib rl_zoo3 gymnasium mujoco torch numpy scipy pandas optuna safetensors".split()


def learn_and_load(folder: Path) -> None:
    """Train each algorithm, and see whether the model that was saved and loaded acts as the one that was trained."""
    tasks = {SoftAC_v1: "Pendulum-v1", DiscreteSAC: "CartPole-v1", DiscreteSQL: "CartPole-v1", SQL: "Pendulum-v1"}
    for algorithm, env_id in tasks.items():
        model = algorithm("MlpPolicy", env_id, **SMALL).learn(STEPS)
        model.save(folder / "model")
        observation = model.get_env().reset()
        actions = [m.predict(observation, deterministic=True)[0] for m in (model, algorithm.load(folder / "model"))]
        assert model._n_updates == STEPS - 50 and np.array_equal(*actions), (algorithm, model._n_updates, actions)
        print(f"{algorithm.__name__} learns, and is the same after saving and loading")


def train_through_the_zoo(folder: Path) -> None:
    """Train each algorithm by the Zoo's command, as the README has it, and play what was trained."""
    for algo, env_id in ZOO.items():
        task = ["--algo", algo, "--env", env_id]
        call(folder, "train", *task, *TRAIN, "--eval-freq", "200", "--eval-episodes", "1", "--tensorboard-log", "tb")
        call(folder, "enjoy", *task, "--folder", "logs", "--no-render", "-n", "50")
        assert (folder / "logs" / algo / f"{env_id}_1" / f"{env_id}.zip").exists()
        print(f"RL Zoo trains {algo} on {env_id}, and plays it")
    call(folder, "record_video", *task, "--folder", "logs", "-n", "20")
    call(folder, "train", *task, *TRAIN, "-optimize", "--n-trials", "1", "--no-optim-plots", "--n-evaluations", "1")
    assert list(folder.rglob("*.mp4")) and list(folder.rglob("report_*.csv"))
    print("RL Zoo records a video and searches for hyperparameters")


def call(folder: Path, script: str, *arguments: str) -> None:
    """Run a script of RL Zoo, as the README does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    subprocess.run([sys.executable, "-m", f"rl_zoo3.{script}", *arguments], cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    print(*(f"{name} {importlib.metadata.version(name)}" for name in NAMED), sep="\n")
    with tempfile.TemporaryDirectory() as name:
        learn_and_load(Path(name))
        train_through_the_zoo(Path(name))
    print("all is well")
