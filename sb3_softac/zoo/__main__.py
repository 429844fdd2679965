"""
RL Zoo's scripts with the algorithms registered, for installations where Python does not process start-up files.

``python -m sb3_softac.zoo train ...`` is ``python -m rl_zoo3.train ...``.
``python -m sb3_softac.zoo resume RUN_FOLDER`` completes an interrupted training run, see :mod:`sb3_softac.zoo.resume`.
``python -m sb3_softac.zoo robustness ...`` evaluates trained models under perturbations, see
:mod:`sb3_softac.study.robustness_command`. ``torchrun --nproc-per-node=N -m sb3_softac.zoo train ...`` trains one agent with N
processes, see :mod:`sb3_softac.zoo.torchrun`.
"""

import runpy
import sys

from sb3_softac.checks import did_you_mean
from sb3_softac.zoo import register
from sb3_softac.zoo.programs import absolute_output, find_programs
from sb3_softac.zoo.resume import repeat_command
from sb3_softac.zoo.statistics import keep_twins_of_all
from sb3_softac.zoo.torchrun import join

SCRIPTS = {
    **{
        name: f"rl_zoo3.{name}"
        for name in ("train", "enjoy", "record_video", "record_training", "push_to_hub", "load_from_hub", "benchmark")
    },
    **{name: f"rl_zoo3.plots.{name}" for name in ("plot_train", "all_plots", "plot_from_file")},
    "robustness": "sb3_softac.study.robustness_command",
}

CALLERS = ("benchmark", "record_training", "push_to_hub")
"""The scripts that call other programs."""

USAGE = (
    f"usage: python -m sb3_softac.zoo SCRIPT ..., where SCRIPT is one of {', '.join(SCRIPTS)}\n"
    "       python -m sb3_softac.zoo resume RUN_FOLDER ..."
)

PLOTS = ("matplotlib", "seaborn", "rliable")
"""What the extra ``plots`` installs and RL Zoo's plots import."""


def complaint(arguments: list[str]) -> str:
    """
    :param arguments: Arguments of the command line that do not begin with the name of a script.
    :return: What is wrong with them.
    """
    if not arguments:
        return "a SCRIPT is missing"
    return f"there is no script {arguments[0]!r}{did_you_mean(arguments[0], SCRIPTS)}"


def main() -> None:
    """Run the script named by the first argument with the remaining ones."""
    if sys.argv[1:2] == ["resume"]:
        sys.argv[1:] = ["train", *repeat_command(sys.argv[2:])]
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(f"{USAGE}\n\n`python -m sb3_softac.zoo SCRIPT --help` lists the options of a script.")
        return
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        sys.exit(f"{USAGE}\nerror: {complaint(sys.argv[1:])}")
    register()
    if sys.argv[1] == "train":
        join()
    if sys.argv[1] in CALLERS:
        find_programs()
    if sys.argv[1] == "push_to_hub":
        keep_twins_of_all()
    if sys.argv[1] == "record_training":
        sys.argv[2:] = absolute_output(sys.argv[2:])
    script = SCRIPTS[sys.argv.pop(1)]
    try:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        if error.name not in PLOTS:
            raise
        sys.exit(f"{script} needs {error.name}: pip install 'sb3_softac[plots]'")


if __name__ == "__main__":
    main()
