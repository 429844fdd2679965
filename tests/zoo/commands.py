"""
The Zoo's scripts on short runs.

Importing the Zoo takes longer than such a run. A script that is run by :func:`run` therefore starts in the fork of a process
that has imported what the scripts import; one that is run by :func:`run_as_typed` starts from nothing, as in a shell.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from unittest import mock

import yaml

PENDULUM = ("--algo", "softac_v1", "--env", "Pendulum-v1")
SMALL = ("--hyperparams", "policy_kwargs:dict(net_arch=[8])", "batch_size:16", "buffer_size:500")
TRIALS = ("--n-trials", 2, "--n-startup-trials", 1, "--n-evaluations", 1, "--pruner", "none", "--no-optim-plots")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy", "PYTHONPATH": ""}
TIMEOUT = 300  # seconds

forks = multiprocessing.get_context("forkserver")
# torch._dynamo, which PyTorch imports with the first optimizer, takes longer than all the rest
forks.set_forkserver_preload(["rl_zoo3.exp_manager", "rl_zoo3.callbacks", "rl_zoo3.plots", "sb3_softac", "torch._dynamo"])


def run(folder, module, *arguments, expect=0):
    """
    Run a script in a fork of a process that has imported the Zoo.

    :param folder: Working directory.
    :param module: Module that ``python -m`` would run.
    :param arguments: Arguments of the script.
    :param expect: Exit status that it must have.
    :return: What it printed.
    """
    output = folder / "output.txt"
    command = [module, *map(str, arguments)]
    process = forks.Process(target=_script, args=(folder, command, output))
    with mock.patch.dict(os.environ, ENVIRONMENT, clear=True):  # the first one starts the process that is forked
        process.start()
    process.join(TIMEOUT)
    process.kill()  # if it still runs
    return _check(command, process.exitcode, output.read_text(), expect)


def _script(folder, command, output):
    """What the fork does; how it ends is left to multiprocessing, which answers exceptions as Python itself does."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    with open(output, "w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.path[0], sys.argv = str(folder), command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def run_as_typed(folder, module, *arguments, expect=0, **environment):
    """
    Run a script by ``python -m``.

    :param folder: Working directory.
    :param module: Module that is run.
    :param arguments: Arguments of the script.
    :param expect: Exit status that it must have.
    :param environment: Further environment variables.
    :return: What it printed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    result = subprocess.run(
        command, cwd=folder, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=TIMEOUT
    )
    return _check(command, result.returncode, result.stdout + result.stderr, expect)


def _check(command, code, text, expect):
    assert expect is None or code == expect, f"{' '.join(command)} ended with {code}\n{text[-6000:]}"
    return text


def train(folder, *arguments, task=PENDULUM, steps=250, expect=0, run=run):
    return run(
        folder, "rl_zoo3.train", *task, "-n", steps, "--eval-freq", 100, "--eval-episodes", 2, *arguments, expect=expect
    )


def saved_config(folder, number=1):
    return yaml.unsafe_load((folder / f"logs/softac_v1/Pendulum-v1_{number}/Pendulum-v1/config.yml").read_text())
