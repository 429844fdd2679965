"""
Resumable training runs of RL Zoo.

With the environment variable ``SB3_SOFTAC_CHECKPOINT_EVERY=10000`` each run saves a checkpoint in its folder every 10000
steps. ``python -m sb3_softac.zoo resume RUN_FOLDER`` repeats the command of a run, which then resumes from the newest
checkpoint and ends as if it had not been interrupted. It may be typed in any folder. Options of ``train`` that do not change
the result, such as ``--device``, and a larger number of steps may follow.
"""

import argparse
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_softac.algorithm.distributed import rank
from sb3_softac.files import replacing
from sb3_softac.files.plain_files import read_plain_json, safe_load_is_on
from sb3_softac.resume import ExactCheckpoint, Resumable
from sb3_softac.zoo.safe import safe_command
from sb3_softac.zoo.torchrun import shared_folder
from sb3_softac.zoo.wrapping import wrap_once

EVERY = "SB3_SOFTAC_CHECKPOINT_EVERY"
RUN_FOLDER = "SB3_SOFTAC_RUN_FOLDER"
FOLDER, COMMAND = "checkpoints", "command.json"
INSTALLED = (sys.prefix, sys.base_prefix, sys.exec_prefix)  # packages found there are found again without being told


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
    wrap_once(manager, "setup_experiment", _check_every_first)
    wrap_once(manager, "create_log_folder", _create_folder_of_run)
    wrap_once(manager, "create_callbacks", _create_callbacks_with_checkpoints)


def checkpoint_every() -> int | None:
    """
    :return: Steps between two checkpoints; None without checkpoints.
    :raises ValueError: if the environment variable is not a number of steps.
    """
    said = os.environ.get(EVERY)
    if said is None:
        return None
    try:
        every = int(said) if said.strip().lstrip("+-").isdecimal() else float(said)
        if every == int(every) and every >= 1:
            return int(every)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"The environment variable {EVERY} must be a number of environment steps, such as 10000, got {said!r}. Unset it to "
        "train without checkpoints"
    )


def _check_every_first(original: Any, self: Any) -> Any:
    checkpoint_every()  # before anything is created
    return original(self)


def _create_folder_of_run(original: Any, self: Any) -> None:
    if RUN_FOLDER in os.environ and rank() == 0:
        self.save_path = os.environ[RUN_FOLDER]
        self.params_path = os.path.join(self.save_path, self.env_name)
    original(self)


def _create_callbacks_with_checkpoints(original: Any, self: Any) -> None:
    every = checkpoint_every()
    if every is not None and not self.optimize_hyperparameters:
        folder = Path(shared_folder(self.save_path), FOLDER)
        if rank() == 0:
            _write_command(folder, every, self.seed)
        else:
            folder /= f"rank_{rank()}"
        self.env_wrapper = functools.partial(resumable, self.env_wrapper)
        self.callbacks.insert(0, ExactCheckpoint(folder, every))
    original(self)


def _relative(folder: Path) -> str:
    try:
        return os.path.relpath(folder)
    except ValueError:  # on another drive of Windows
        return str(folder)


def _write_command(folder: Path, every: int, seed: int) -> None:
    """Write the command that repeats this run, with its seed and what it needs to find its modules and files."""
    path = folder / COMMAND
    if not path.exists():
        command = {
            "arguments": [*sys.argv[1:], "--seed", str(seed)],
            "directory": os.getcwd(),
            "run": _relative(folder.parent),
            "modules": [entry for entry in map(os.path.abspath, sys.path) if not entry.startswith(INSTALLED)],
            "every": every,
        }
        with replacing(path) as file:
            file.write(json.dumps(command, indent=1).encode())


MAY_CHANGE = {
    "--device": ("--device",),
    "--num-threads": ("--num-threads",),
    "--verbose": ("--verbose",),
    "--log-interval": ("--log-interval",),
    "--tensorboard-log": ("-tb", "--tensorboard-log"),
    "--n-timesteps": ("-n", "--n-timesteps"),
    "--eval-freq": ("--eval-freq",),
    "--eval-episodes": ("--eval-episodes",),
    "--save-freq": ("--save-freq",),
}
"""The options of the Zoo's ``train`` that may follow ``resume RUN_FOLDER``, with their spellings."""


def repeat_command(arguments: list[str]) -> list[str]:
    """
    Prepare this process to repeat the run of a folder. It runs the command that is stored there, so use it only for runs that
    you trust.

    :param arguments: Folder of a run that was made with ``SB3_SOFTAC_CHECKPOINT_EVERY``, and options of the Zoo's ``train``.
    :return: The arguments of the Zoo's ``train``.
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_softac.zoo resume", allow_abbrev=False)
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    for option, spellings in MAY_CHANGE.items():
        parser.add_argument(*spellings, dest=option)
    parser.add_argument("--save-replay-buffer", action="store_true")
    parser.add_argument("--gym-packages", nargs="+", default=[])
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(
            f"{unknown[0]} cannot be changed when a run is resumed. These can: {', '.join(MAY_CHANGE)}, --save-replay-buffer, "
            "--gym-packages"
        )
    folder = given.run_folder.resolve()
    command = _read_command(folder)
    changes = {option: getattr(given, option) for option in MAY_CHANGE if getattr(given, option) is not None}
    if changes.get("--tensorboard-log"):
        changes["--tensorboard-log"] = os.path.abspath(changes["--tensorboard-log"])
    os.environ[EVERY], os.environ[RUN_FOLDER] = str(command["every"]), str(folder)
    if safe_load_is_on():  # nothing is imported or read from places that the file names
        command |= {"arguments": safe_command(command["arguments"], _presets()), "modules": []}
    else:
        _return_to_the_folder(command, folder)
    packages = [*_options(command["arguments"], "--gym-packages"), *given.gym_packages]
    _check_that_all_is_here(packages, command)
    return [
        *command["arguments"],
        *(word for option, value in changes.items() for word in (option, value)),
        *(["--save-replay-buffer"] if given.save_replay_buffer else []),
        *(["--gym-packages", *packages] if given.gym_packages else []),
    ]


def _read_command(folder: Path) -> dict[str, Any]:
    path = folder / FOLDER / COMMAND
    if not path.exists():
        sys.exit(
            f"{path} does not exist: a run can be resumed only if it was started with {EVERY}=10000 (or another number of "
            "steps)"
        )
    try:
        command = json.loads(read_plain_json(path))
        texts = [*command["arguments"], *command["modules"], command["directory"], command["run"]]
        if not all(isinstance(text, str) for text in texts) or not isinstance(command["every"], int):
            raise TypeError("it has values of other types")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        sys.exit(f"{path} is not the command of a run ({type(error).__name__}: {error})")
    return command


def _return_to_the_folder(command: dict[str, Any], folder: Path) -> None:
    """Go where the training was started, or where that folder has been moved together with the run, and import from there."""
    directory, run = Path(command["directory"]), Path(command["run"])
    moved = Path(*folder.parts[: -len(run.parts)])
    if directory.is_dir():
        now = directory
    elif moved / run == folder:
        now = moved
    else:
        now = Path.cwd()
        print(
            f"The training was started in {directory}, which no longer exists. What it names by relative paths is looked for "
            f"in {now}",
            file=sys.stderr,
        )
    os.chdir(now)
    modules = [str(now) if entry == str(directory) else entry for entry in command["modules"]]
    sys.path[:0] = [entry for entry in dict.fromkeys([str(now), *modules]) if os.path.exists(entry)]


def _options(arguments: list[str], *names: str) -> list[str]:
    """:return: The values of an option; the last one counts, as in argparse."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*names, dest="values", nargs="+", default=[])
    return parser.parse_known_args(arguments)[0].values


def _presets() -> set[str]:
    from sb3_softac.zoo.registration import hyperparameter_file

    return {path.name for path in (hyperparameter_file("softac_v1").parent / "presets").glob("*.yml")}


def _check_that_all_is_here(packages: list[str], command: dict[str, Any]) -> None:
    """Say what is missing before the training starts."""
    places = ", ".join(dict.fromkeys([os.getcwd(), *command["modules"]]))
    for package in packages:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            sys.exit(
                f"The run needs the module {package} (--gym-packages), which is neither installed nor in {places}. "
                "Install it, or add its folder to PYTHONPATH"
            )
    for option, names in {"--conf-file": ("-conf", "--conf-file"), "--trained-agent": ("-i", "--trained-agent")}.items():
        for path in _options(command["arguments"], *names):
            here = os.path.exists(path) or path in _presets()
            if path.endswith((".yml", ".yaml", ".py", ".zip")) and not here:
                sys.exit(f"The run needs {path} ({option}), which is not in {os.getcwd()}. Put it there again")
