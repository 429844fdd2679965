"""
Resumable training runs of RL Zoo.

With the environment variable ``SB3_SOFTAC_CHECKPOINT_EVERY=10000`` each run saves a checkpoint in its folder every 10000
steps. ``python -m sb3_softac.zoo resume RUN_FOLDER`` repeats the command of a run, which then resumes from the newest
checkpoint and ends as if it had not been interrupted. It may be typed in any folder. Options of ``train`` that do not change
the result, such as ``--device``, and a larger number of steps may follow.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_softac.algorithm.distributed import broadcast_object, is_distributed, rank
from sb3_softac.files import replacing
from sb3_softac.files.plain_files import read_plain_json, safe_load_is_on
from sb3_softac.resume import ExactCheckpoint, Resumable
from sb3_softac.zoo.algorithms import presets
from sb3_softac.zoo.patches import wrap
from sb3_softac.zoo.safe import IMPORT_IT, refuse

EVERY = "SB3_SOFTAC_CHECKPOINT_EVERY"
RUN_FOLDER = "SB3_SOFTAC_RUN_FOLDER"
FOLDER, COMMAND = "checkpoints", "command.json"
# What is there is found again without being told
INSTALLED = (*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("stdlib", "platstdlib")))


def resumable(wrapper: Callable[[gym.Env], gym.Env] | None, env: gym.Env) -> gym.Env:
    """Wrap an environment; its state is accessible from other processes."""
    return Resumable(env if wrapper is None else wrapper(env))


def make_resumable() -> None:
    """Make training runs save checkpoints."""
    wrap("rl_zoo3.exp_manager:ExperimentManager.create_log_folder", _create_run_folder)
    wrap("rl_zoo3.exp_manager:ExperimentManager.create_callbacks", _create_callbacks)


def checkpoint_every() -> int:
    """:return: Steps between two checkpoints, from the environment variable."""
    value = os.environ[EVERY]
    with contextlib.suppress(ValueError):
        if (every := float(value)) >= 1 and every.is_integer():
            return int(every)
    raise ValueError(
        f"The environment variable {EVERY} must be a number of environment steps, such as 10000, got {value!r}. Unset it to "
        "train without checkpoints"
    )


def _create_run_folder(original: Any, self: Any) -> None:
    checkpoint_every()  # an error comes before anything is created
    if RUN_FOLDER in os.environ and rank() == 0:
        self.save_path = os.environ[RUN_FOLDER]
        self.params_path = os.path.join(self.save_path, self.env_name)
    original(self)


def _create_callbacks(original: Any, self: Any) -> None:
    if not self.optimize_hyperparameters:
        run = broadcast_object(self.save_path) if is_distributed() else self.save_path  # that of the first process
        every, folder = checkpoint_every(), Path(run, FOLDER)
        if rank() == 0:
            _write_command(folder, every, self.seed)
        else:
            folder /= f"rank_{rank()}"
        self.env_wrapper = functools.partial(resumable, self.env_wrapper)
        self.callbacks.insert(0, ExactCheckpoint(folder, every))
    original(self)


def _write_command(folder: Path, every: int, seed: int) -> None:
    """Write the command that repeats this run, with its seed and what it needs to find its modules and files."""
    if (folder / COMMAND).exists():
        return
    places = [entry for entry in map(os.path.abspath, sys.path) if os.path.exists(entry)]
    command = {
        "arguments": [*sys.argv[1:], "--seed", str(seed)],
        "directory": os.getcwd(),
        "run": os.path.abspath(folder.parent),
        "modules": [entry for entry in places if not any(map(Path(entry).is_relative_to, INSTALLED))],
        "every": every,
    }
    with replacing(folder / COMMAND) as file:
        file.write(json.dumps(command, indent=1).encode())


# Options of the Zoo's train: with one value, with several (+) or with none (!)
HARMLESS = (
    *("--device", "--num-threads", "--verbose", "--log-interval", "--n-timesteps -n", "--eval-freq", "--eval-episodes"),
    *("--save-freq", "--save-replay-buffer!"),
)
# Those that may follow `resume RUN_FOLDER`
CHANGEABLE = (*HARMLESS, "--tensorboard-log -tb", "--gym-packages+")
# Those that may stand in the file of somebody else, some of them only with harmless values
SAFE = (
    *HARMLESS,
    *("--algo", "--env", "--n-eval-envs", "--seed", "--vec-env", "--progress! -P", "--conf-file -conf"),
    *("--log-folder -f", "--hyperparams+ -params", "--env-kwargs+", "--eval-env-kwargs+", "--uuid! -uuid"),
)


def _name(option: str) -> str:
    return option.split()[0].rstrip("+!")


def _parser(options: tuple[str, ...], **settings: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, **settings)
    for name, *others in map(str.split, options):
        named = {"metavar": _name(name).lstrip("-").upper().replace("-", "_")}
        kind: dict[str, Any] = {"+": {"nargs": "+", **named}, "!": {"action": "store_true"}}.get(name[-1], named)
        name = _name(name)
        parser.add_argument(name, *others, dest=name, **kind)
    return parser


def _words(options: dict[str, Any]) -> list[str]:
    """:return: Options as on a command line; those that were not given are None or False."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, list):
            words += [name, *value]
        elif value is not None and value is not False:
            words += [name] if value is True else [f"{name}={value}"]
    return words


def command_of(arguments: list[str]) -> list[str]:
    """
    Prepare this process to repeat the run of a folder, and return the arguments of the Zoo's ``train``.

    It runs the command that is stored in the folder, so use it only for runs that you trust, or with ``SB3_SOFTAC_SAFE_LOAD``.
    """
    about = "Complete an interrupted training run. The options are those of `train`, and replace those of the run."
    parser = _parser(CHANGEABLE, prog="python -m sb3_softac.zoo resume", description=about)
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    given, unknown = parser.parse_known_args(arguments)
    if unknown:
        may = ", ".join(map(_name, CHANGEABLE))
        parser.error(f"{unknown[0]} cannot be changed when a run is resumed. These can: {may}")
    changes = vars(given)
    folder = changes.pop("run_folder").resolve()
    command = _read_command(folder)
    for option, default in (("--eval-freq", "25000"), ("--save-freq", "-1")):  # those of the Zoo
        before, after = str(_option(command, option) or default), changes[option]
        if after is not None and before.startswith("-") != after.startswith("-"):
            parser.error(f"{option} cannot be switched on or off when a run is resumed: it was {before}")
    if changes["--tensorboard-log"]:
        changes["--tensorboard-log"] = os.path.abspath(changes["--tensorboard-log"])
    os.environ[EVERY], os.environ[RUN_FOLDER] = str(command["every"]), str(folder)
    if safe_load_is_on():  # nothing is imported or read from places that the file names
        command |= {"arguments": safe_command(command["arguments"], changes), "modules": []}
    else:
        _return_to_the_folder(command, folder)
    if changes["--gym-packages"]:
        changes["--gym-packages"] = [*_option(command, "--gym-packages+"), *changes["--gym-packages"]]
    _check_that_all_is_here(changes["--gym-packages"] or _option(command, "--gym-packages+"), command)
    return [*command["arguments"], *_words(changes)]


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
            raise TypeError("some of its values have the wrong type")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        sys.exit(f"{path} is not the command of a run ({type(error).__name__}: {error})")
    return command


def _return_to_the_folder(command: dict[str, Any], folder: Path) -> None:
    """Go where the training was started, or where that folder is now if the run has moved with it, and import from there."""
    directory = Path(command["directory"])
    run = Path(directory, command["run"])
    inside = run.relative_to(directory).parts if run.is_relative_to(directory) else ()
    if inside and folder.parts[-len(inside) :] == inside:
        now = Path(*folder.parts[: -len(inside)])
    elif directory.is_dir():
        now = directory
    else:
        now = Path.cwd()
        print(
            f"The training was started in {directory}, which no longer exists. Its relative paths are looked for in {now}",
            file=sys.stderr,
        )
    os.chdir(now)
    places = map(Path, command["modules"])
    modules = [str(now / each.relative_to(directory) if each.is_relative_to(directory) else each) for each in places]
    sys.path[:0] = [entry for entry in dict.fromkeys([str(now), *modules]) if os.path.exists(entry)]


def _option(command: dict[str, Any], option: str) -> list[str]:
    """:return: The values of an option of the run; the last one counts, as in argparse."""
    return next(iter(vars(_parser((option,), add_help=False).parse_known_args(command["arguments"])[0]).values())) or []


def _check_that_all_is_here(packages: list[str], command: dict[str, Any]) -> None:
    """Say what is missing before the training starts."""
    places = ", ".join(dict.fromkeys([os.getcwd(), *command["modules"]]))
    for package in packages:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            sys.exit(
                f"The run needs the module {package} (--gym-packages), which is neither installed nor in {places}. "
                "Install it, or add its folder to PYTHONPATH"
            )
    for option in ("--conf-file+ -conf", "--trained-agent+ -i"):
        for path in _option(command, option):
            if path.endswith((".yml", ".yaml", ".py", ".zip")) and not os.path.exists(path) and path not in presets():
                sys.exit(f"The run needs {path} ({option.partition('+')[0]}), which is not in {os.getcwd()}. Put it back")


def safe_command(arguments: list[str], changes: dict[str, Any]) -> list[str]:
    """
    Check the arguments of the Zoo's ``train`` in the file of somebody else.

    :return: The same without the folder of the logs, which is that of the run, and without options that the user has changed.
    :raises ValueError: if one of them names a module or a place.
    """
    changed = [option for option in CHANGEABLE if changes.get(_name(option))]
    try:
        known = _parser(tuple(dict.fromkeys([*SAFE, *changed])), add_help=False, exit_on_error=False)
        found, unknown = known.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        refuse(f"the command of the run cannot be read: {error}")
    if unknown:
        refuse(
            f"the command of the run contains {unknown[0]!r:.99}, which may name a module or a place",
            "Options that you trust can follow the folder of the run",
        )
    options = vars(found)
    if (config := options["--conf-file"]) is not None and config not in presets():
        refuse(f"the command of the run reads its hyperparameters from {config!r:.200}")
    if ":" in (options["--env"] or ""):
        refuse(f"the command of the run imports the module of {options['--env']!r:.200}", IMPORT_IT)
    return _words({name: value for name, value in options.items() if name != "--log-folder" and not changes.get(name)})
