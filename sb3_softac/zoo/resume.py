"""
Resumable training runs of RL Zoo.

With the environment variable ``SB3_SOFTAC_CHECKPOINT_EVERY=10000`` each run saves a checkpoint in its folder every 10000
steps. ``python -m sb3_softac.zoo resume RUN_FOLDER`` repeats the command of a run, which then resumes from the newest
checkpoint and ends as if it had not been interrupted.
"""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_softac.common.ranks import own_rank
from sb3_softac.resume import ExactCheckpoint, Resumable
from sb3_softac.zoo.ranks import shared_folder
from sb3_softac.zoo.wrapping import wrap_once

EVERY = "SB3_SOFTAC_CHECKPOINT_EVERY"
RUN_FOLDER = "SB3_SOFTAC_RUN_FOLDER"
FOLDER, COMMAND = "checkpoints", "command.json"


def resumable(wrapper: Callable[[gym.Env], gym.Env] | None, env: gym.Env) -> gym.Env:
    """
    :param wrapper: The wrapper from the hyperparameters, if any.
    :param env: Environment.
    :return: The environment in that wrapper; its state is accessible from other processes.
    """
    return Resumable(env if wrapper is None else wrapper(env))


def make_resumable(manager: Any) -> None:
    """
    Make training runs save checkpoints if ``SB3_SOFTAC_CHECKPOINT_EVERY`` is set.

    :param manager: The Zoo's ``ExperimentManager``.
    """
    wrap_once(manager, "create_log_folder", _create_folder_of_run)
    wrap_once(manager, "create_callbacks", _create_callbacks_with_checkpoints)


def _create_folder_of_run(original: Any, self: Any) -> None:
    if RUN_FOLDER in os.environ and own_rank() == 0:
        self.save_path = os.environ[RUN_FOLDER]
        self.params_path = os.path.join(self.save_path, self.env_name)
    original(self)


def _create_callbacks_with_checkpoints(original: Any, self: Any) -> None:
    if EVERY in os.environ and not self.optimize_hyperparameters:
        folder, every = Path(shared_folder(self.save_path), FOLDER), int(os.environ[EVERY])
        if own_rank() == 0:
            _write_command(folder, every, self.seed)
        else:
            folder /= f"rank_{own_rank()}"
        self.env_wrapper = functools.partial(resumable, self.env_wrapper)
        self.callbacks.insert(0, ExactCheckpoint(folder, every))
    original(self)


def _write_command(folder: Path, every: int, seed: int) -> None:
    """Write the command that repeats this run, with its seed."""
    path = folder / COMMAND
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [*sys.argv[1:], "--seed", str(seed)]
        path.write_text(json.dumps({"arguments": arguments, "directory": os.getcwd(), "every": every}, indent=1))


def repeat_command(run_folder: str) -> list[str]:
    """
    Prepare this process to repeat the run of a folder. It runs the command that is stored there, so use it only for runs that
    you trust.

    :param run_folder: Folder of a run that was made with ``SB3_SOFTAC_CHECKPOINT_EVERY``.
    :return: The arguments of the Zoo's ``train``.
    """
    path = Path(run_folder, FOLDER, COMMAND).resolve()
    if not path.exists():
        sys.exit(
            f"{path} does not exist: a run can be resumed only if it was started with {EVERY}=10000 (or another number of "
            "steps)"
        )
    command = json.loads(path.read_text())
    os.environ[EVERY], os.environ[RUN_FOLDER] = str(command["every"]), str(path.parents[1])
    os.chdir(command["directory"])
    return command["arguments"]
