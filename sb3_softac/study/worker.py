"""One run of a study: training with RL Zoo's ``ExperimentManager``, which resumes where it was interrupted."""

import argparse
import copy
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch as th
from filelock import FileLock
from rl_zoo3.callbacks import SaveVecNormalizeCallback
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.utils import set_random_seed

import sb3_softac
from sb3_softac.files import replacing, sync
from sb3_softac.resume import ExactCheckpoint
from sb3_softac.study.archive import write_arrays
from sb3_softac.study.callbacks import EveryNCalls, ProgressFile, QuietEvaluation, TrainingClock
from sb3_softac.study.checks import made_otherwise
from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.local import INTERRUPTED
from sb3_softac.study.results import is_finished, write_failure
from sb3_softac.study.user_code import import_user_code, reason_of, traceback_of, with_defaults
from sb3_softac.zoo.checkpoints import EVERY, RUN_FOLDER, resumable

PACKAGES = ("sb3_softac", "stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "gymnasium", "mujoco", "numpy")
CHECKPOINTS = "checkpoints"


class WatchedModel:
    """
    A model that remembers whether its training was interrupted.

    :param model: The model.
    """

    def __init__(self, model: BaseAlgorithm):
        self._model = model
        self.interruption: KeyboardInterrupt | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def learn(self, *args: Any, **kwargs: Any) -> BaseAlgorithm:
        """Train the model."""
        try:
            return self._model.learn(*args, **kwargs)
        except KeyboardInterrupt as interruption:
            self.interruption = interruption
            raise


class RunManager(ExperimentManager):
    """
    The Zoo's manager with a study's folders, checkpoints and evaluations.

    :param study: Study.
    :param run: One of its runs.
    """

    def __init__(self, study: Study, run: Run):
        folder = study.folder_of(run)
        packages = [*study.gym_packages, *filter(None, [run.env.rpartition(":")[0]])]
        arguments = argparse.Namespace(
            algo=run.algo, env=run.env_id, seed=run.seed, n_timesteps=run.n_timesteps, gym_packages=packages
        )
        super().__init__(
            arguments,
            run.algo,
            run.env_id,
            str(folder),
            n_timesteps=run.n_timesteps,
            eval_freq=-1,  # evaluated by callbacks of our own
            n_eval_episodes=run.evaluation_episodes,
            hyperparams=copy.deepcopy(run.hyperparams),  # SB3 writes into policy_kwargs
            env_kwargs=copy.deepcopy(run.env_kwargs),
            seed=run.seed,
            log_interval=-1,
            verbose=0,
            device="cpu" if not th.cuda.is_available() else "auto",
        )
        self.run, self.folder, self.checkpoint_every = run, folder, study.checkpoint_every
        self.progress, self.partial_result = study.progress_of(run), study.partial_result_of(run)
        self.save_path = str(folder / "zoo")
        self.params_path = f"{self.save_path}/{self.env_name}"
        self.clock: TrainingClock
        self.evaluations: dict[str, QuietEvaluation] = {}

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read those with which the run was started, not what a file has now."""
        assert self.run.defaults is not None
        module = ModuleType(f"{__name__}.hyperparameters")
        defaults = {"n_timesteps": self.run.n_timesteps, **copy.deepcopy(self.run.defaults)}
        module.__dict__["hyperparams"] = {self.env_name.gym_id: defaults}
        sys.modules[module.__name__] = module  # where the Zoo looks for a config in Python
        self.config = module.__name__
        hyperparams, saved = super().read_hyperparameters()
        self.eval_env_kwargs = hyperparams.get("env_kwargs", self.env_kwargs)  # the Zoo evaluates in another environment
        return hyperparams, saved

    def learn(self, model: BaseAlgorithm) -> None:
        """Train; the Zoo takes an interrupted training for a finished one."""
        watched = WatchedModel(model)
        super().learn(watched)  # type: ignore[arg-type]
        if watched.interruption is not None:
            raise watched.interruption

    def create_callbacks(self) -> None:
        """Add checkpoints, evaluations and progress to the callbacks that the Zoo makes."""
        super().create_callbacks()
        self.env_wrapper = functools.partial(resumable, self.env_wrapper)
        every = max(self.run.evaluate_every // self.n_envs, 1)
        self.clock = TrainingClock(every)
        for mode in self.run.evaluation_modes:
            self.evaluations[mode] = QuietEvaluation(
                self.clock,
                self.create_envs(self.n_eval_envs, eval_env=True),
                n_eval_episodes=self.n_eval_episodes,
                eval_freq=every,
                log_path=f"{self.save_path}/{mode}",
                best_model_save_path=None if self.evaluations else self.save_path,
                callback_on_new_best=SaveVecNormalizeCallback(save_freq=1, save_path=self.params_path),
                deterministic=mode == "deterministic",
                verbose=0,
            )
        checkpoints = ExactCheckpoint(self.folder / CHECKPOINTS, self.checkpoint_every, keep=2)
        # What is known so far, so that a run that is cut stays in the report
        so_far = EveryNCalls(every, lambda: save_result(self, self.partial_result))
        progress = ProgressFile(self.progress)
        self.callbacks = [checkpoints, *self.callbacks, self.clock, *self.evaluations.values(), so_far, progress]


def work(study: Study, run: Run) -> None:
    """
    Complete a run, from its newest checkpoint if there is one. If another process is working on it, wait for that process.

    :param study: Study.
    :param run: One of its runs.
    :raises StudyError: if it was started with a different declaration.
    """
    commit()  # of the code that is loaded now
    folder = study.folder_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        study.failure_of(run).unlink(missing_ok=True)
        try:
            import_user_code(study)
            run = with_defaults(study, run)
            if change := made_otherwise(study, run):
                raise StudyError(f"{run.id} was started with a different declaration ({change})")
            if not is_finished(study, run):
                with _exits_as_errors():
                    train(study, run)
        except Exception as error:
            write_failure(study, run, f"{reason_of(error)}\n\n{traceback_of(error)}")
            raise


@contextmanager
def _exits_as_errors() -> Iterator[None]:
    """Turn the end of the process by code of the user into an error; a checkpoint on a signal ends it, too, and may."""
    try:
        yield
    except SystemExit as error:
        if error.code in INTERRUPTED:
            raise
        raise StudyError(f"the training ended the process: {reason_of(error)}") from error


def train(study: Study, run: Run) -> None:
    """
    Train, evaluate and save a run that is not finished.

    :param study: Study.
    :param run: One of its runs.
    """
    folder = study.folder_of(run)
    if study.result_of(run).is_dir():
        raise StudyError(f"{study.result_of(run)} is a folder, in the place of the result: remove it")
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
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # as large as the replay buffer
    study.progress_of(run).unlink(missing_ok=True)


def save_result(manager: RunManager, path: Path) -> None:
    """
    Write the result of a run, or its partial result.

    The file contains ``timesteps [evaluations]``, the returns ``[evaluations, episodes]`` under the name of each evaluation
    mode, ``seconds [evaluations]`` of training until then, the return of each training episode and the steps at its end, the
    declaration, and the versions and machine.

    :param manager: Manager of the run.
    :param path: File.
    """
    episodes = load_results(manager.save_path)
    first = next(iter(manager.evaluations.values()))
    where = {"python": platform.python_version(), "system": platform.platform(), "processor": processor(), "commit": commit()}
    content: dict[str, Any] = {
        "timesteps": np.array(first.evaluations_timesteps),
        **{
            mode: np.array(made.evaluations_results, np.float32).reshape(-1, manager.run.evaluation_episodes)
            for mode, made in manager.evaluations.items()
        },
        "seconds": np.array(manager.clock.noted, np.float32),
        "train_returns": episodes["r"].to_numpy(np.float32),
        "train_timesteps": np.cumsum(episodes["l"].to_numpy(int)),
        "declaration": np.array(manager.run.as_json()),
        "versions": np.array(json.dumps({package: version(package) for package in PACKAGES} | where)),
    }
    write_arrays(path, content)


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
