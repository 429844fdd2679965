"""One run of a study: training with RL Zoo's ``ExperimentManager``, which resumes where it was interrupted."""

import argparse
import copy
import functools
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from filelock import FileLock
from rl_zoo3.callbacks import SaveVecNormalizeCallback
from rl_zoo3.exp_manager import ALGOS, ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

import sb3_softac
from sb3_softac.files import replacing, sync
from sb3_softac.resume import ExactCheckpoint
from sb3_softac.resume.generators import generator_states, set_generator_states
from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.processes import INTERRUPTED
from sb3_softac.study.results import changed_settings, is_finished, write_failure
from sb3_softac.study.user_code import import_user_code, reason_of, traceback_of, with_defaults
from sb3_softac.zoo.checkpoints import EVERY, RUN_FOLDER, resumable

PACKAGES = ("sb3_softac", "stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "gymnasium", "mujoco", "numpy")


class Recorder(CallbackList):
    """
    Evaluates at regular intervals and restores the random number generators afterwards, so that evaluations do not change the
    training. Measures the time of training alone, notes its episodes, and writes the number of steps to a file.

    :param every: Calls between two evaluations.
    :param save: Called after each evaluation.
    :param progress: File for the number of steps, written at most once per second.
    """

    not_resumed = ("save", "progress", "ended", "_last", "_written")

    def __init__(self, every: int, evaluations: list[EvalCallback], save: Callable[[], None], progress: Path):
        super().__init__([*evaluations])
        self.every, self.save, self.progress = every, save, progress
        self.seconds = 0.0
        self.seconds_at_evaluations: list[float] = []
        self.train_returns: list[float] = []
        self.train_timesteps: list[int] = []
        self.ended = False
        self._last = self._written = 0.0

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._last = time.perf_counter()

    def _on_step(self) -> bool:
        self.seconds += time.perf_counter() - self._last
        for info in self.locals.get("infos", ()):
            if "episode" in info:
                self.train_returns.append(float(info["episode"]["r"]))
                self.train_timesteps.append(self.num_timesteps)
        proceed = True
        if self.n_calls % self.every == 0:
            self.seconds_at_evaluations.append(self.seconds)
            for evaluation in self.callbacks:
                states = generator_states()
                proceed = evaluation.on_step() and proceed
                set_generator_states(states)
            self.save()
        if time.monotonic() - self._written >= 1:
            self._written = time.monotonic()
            self.progress.write_text(str(self.num_timesteps))
        self._last = time.perf_counter()
        return proceed

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self.ended = True


class RunManager(ExperimentManager):
    """The Zoo's manager with the folders, checkpoints and evaluations of a study."""

    def __init__(self, study: Study, run: Run):
        packages = [*study.gym_packages, *filter(None, [run.env_module])]
        super().__init__(
            argparse.Namespace(
                algo=run.algo, env=run.env_id, seed=run.seed, n_timesteps=run.n_timesteps, gym_packages=packages
            ),
            run.algo,
            run.env_id,
            str(study.folder_of(run)),
            n_timesteps=run.n_timesteps,
            eval_freq=-1,  # evaluated by callbacks of our own
            n_eval_episodes=run.evaluation_episodes,
            env_kwargs=copy.deepcopy(run.env_kwargs),
            seed=run.seed,
            log_interval=-1,
            verbose=0,
            device="auto" if th.cuda.is_available() else "cpu",
        )
        self.study, self.run = study, run
        self.save_path = str(study.zoo_folder_of(run))
        self.params_path = f"{self.save_path}/{self.env_name}"
        self.evaluations: dict[str, EvalCallback] = {}
        self.has_rollouts = issubclass(ALGOS[run.algo], OnPolicyAlgorithm | OffPolicyAlgorithm)
        self.recorder: Recorder

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """:return: Those with which the run was started, whatever the file says now, and a sorted copy to save."""
        assert self.run.defaults is not None
        hyperparams = {**self.run.defaults, **self.run.hyperparams, "n_timesteps": self.run.n_timesteps}
        hyperparams = copy.deepcopy(hyperparams)  # SB3 writes into policy_kwargs
        if self.env_kwargs:
            hyperparams["env_kwargs"] = self.env_kwargs
        if hyperparams.get("noise_type", "") is None:  # RL Zoo would hand this on to the algorithm
            hyperparams = {name: value for name, value in hyperparams.items() if not name.startswith("noise_")}
        if "n_envs" in hyperparams:
            hyperparams["n_envs"] = int(hyperparams["n_envs"])  # may be 2.0
        self.eval_env_kwargs = hyperparams.get("env_kwargs", {})  # the Zoo evaluates in another environment
        return hyperparams, dict(sorted(hyperparams.items()))

    def create_callbacks(self) -> None:
        """Add checkpoints, evaluations and progress to the callbacks that the Zoo makes."""
        super().create_callbacks()
        self.env_wrapper = functools.partial(resumable, self.env_wrapper)
        for mode in self.run.evaluation_modes:
            self.evaluations[mode] = EvalCallback(
                self.create_envs(self.n_eval_envs, eval_env=True),
                n_eval_episodes=self.n_eval_episodes,
                eval_freq=1,  # the recorder says when
                log_path=f"{self.save_path}/{mode}",
                best_model_save_path=None if self.evaluations else self.save_path,
                callback_on_new_best=SaveVecNormalizeCallback(save_freq=1, save_path=self.params_path),
                deterministic=mode == "deterministic",
                verbose=0,
            )
        self.recorder = Recorder(
            max(self.run.evaluate_every // self.n_envs, 1),
            [*self.evaluations.values()],
            lambda: save_result(self, self.study.partial_result_of(self.run)),  # so that an unfinished run is in the report
            self.study.progress_of(self.run),
        )
        self.callbacks = [*self.callbacks, self.recorder]
        # RL Zoo tells the first one that the training has ended, even if it was interrupted
        first: BaseCallback = CallbackList([])
        if self.has_rollouts:  # else the run starts over
            first = ExactCheckpoint(self.study.checkpoints_of(self.run), self.study.checkpoint_every, keep=2)
        self.callbacks.insert(0, first)

    def learn(self, model: BaseAlgorithm) -> None:
        """Train; KeyboardInterrupt if the training was interrupted, which the Zoo takes for its end."""
        super().learn(model)
        if not self.recorder.ended:
            raise KeyboardInterrupt


def work(study: Study, run: Run) -> None:
    """Complete a run, from its newest checkpoint if there is one. Waits for another process that is working on it."""
    commit()  # of the code that is loaded now
    folder = study.folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        study.failure_of(run).unlink(missing_ok=True)
        try:
            import_user_code(study)
            run = with_defaults(study, run)
            if change := changed_settings(study, run):
                raise StudyError(f"{run.id} was started with a different declaration ({change})")
            if not is_finished(study, run):
                try:
                    train(study, run)
                except SystemExit as error:
                    if error.code in INTERRUPTED:
                        raise
                    raise StudyError(f"the training ended the process: {reason_of(error)}") from error
        except Exception as error:
            write_failure(study, run, f"{reason_of(error)}\n\n{traceback_of(error)}")
            raise


def train(study: Study, run: Run) -> None:
    """Train, evaluate and save a run that is not finished."""
    if study.result_of(run).is_dir():
        raise StudyError(f"{study.result_of(run)} is a folder where the result file belongs: remove it")
    with replacing(study.declaration_of(run)) as file:
        file.write(run.as_json().encode())
    for name in (EVERY, RUN_FOLDER):  # the study keeps checkpoints itself
        os.environ.pop(name, None)
    th.set_num_threads(run.threads)
    set_random_seed(run.seed)
    manager = RunManager(study, run)
    experiment = manager.setup_experiment()
    assert experiment is not None
    model, _ = experiment
    manager.learn(model)
    manager.save_trained_model(model)
    for path in Path(manager.save_path).rglob("*"):  # on disk before the result says that the run is finished
        sync(path)
    save_result(manager, study.result_of(run))
    for evaluation in manager.evaluations.values():
        evaluation.eval_env.close()
    study.partial_result_of(run).unlink(missing_ok=True)
    shutil.rmtree(study.checkpoints_of(run), ignore_errors=True)  # as large as the replay buffer
    study.progress_of(run).unlink(missing_ok=True)


def save_result(manager: RunManager, path: Path) -> None:
    """
    Write the result of a run, or its partial result: ``timesteps [evaluations]``, the returns ``[evaluations, episodes]``
    under the name of each evaluation mode, ``seconds [evaluations]`` of training until then, the return of each training
    episode and the steps at its end, the declaration, and the versions and machine.
    """
    recorder = manager.recorder
    first = next(iter(manager.evaluations.values()))
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "commit": commit(),
    }
    content: dict[str, Any] = {
        "timesteps": np.array(first.evaluations_timesteps),
        **{
            mode: np.array(evaluation.evaluations_results, np.float32).reshape(-1, manager.run.evaluation_episodes)
            for mode, evaluation in manager.evaluations.items()
        },
        "seconds": np.array(recorder.seconds_at_evaluations, np.float32),
        "train_returns": np.array(recorder.train_returns, np.float32),
        "train_timesteps": np.array(recorder.train_timesteps, int),
        "declaration": np.array(manager.run.as_json()),
        "versions": np.array(json.dumps({package: version(package) for package in PACKAGES} | machine)),
    }
    with replacing(path) as file:
        np.savez_compressed(file, **content)


@functools.cache
def commit() -> str:
    """:return: Commit of the package's checkout, ``-dirty`` if files of the package differ; ``release`` without a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(sb3_softac.__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "release"


def processor() -> str:
    """:return: Name of the processor, as reported by the system."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
