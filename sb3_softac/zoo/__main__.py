"""
RL Zoo's scripts with the algorithms registered, repaired where they need it, for all installations.

``python -m sb3_softac.zoo train ...`` is ``python -m rl_zoo3.train ...``.
``python -m sb3_softac.zoo resume RUN_FOLDER`` completes an interrupted training run, see :mod:`sb3_softac.zoo.checkpoints`.
``python -m sb3_softac.zoo robustness ...`` evaluates trained models under perturbations, see
:mod:`sb3_softac.study.robustness_command`. ``torchrun --nproc-per-node=N -m sb3_softac.zoo train ...`` trains one agent with N
processes, see :mod:`sb3_softac.zoo.torchrun`.
"""

import runpy
import sys

from sb3_softac.checks import did_you_mean
from sb3_softac.zoo import register
from sb3_softac.zoo.checkpoints import command_of
from sb3_softac.zoo.scripts import absolute_output, find_programs, repair_hub
from sb3_softac.zoo.sweeps import make_sweeps_survive
from sb3_softac.zoo.torchrun import join

SCRIPTS = {
    **{
        name: f"rl_zoo3.{name}"
        for name in ("train", "enjoy", "record_video", "record_training", "push_to_hub", "load_from_hub", "benchmark")
    },
    **{name: f"rl_zoo3.plots.{name}" for name in ("plot_train", "all_plots", "plot_from_file")},
    "robustness": "sb3_softac.study.robustness_command",
}
USAGE = (
    f"usage: python -m sb3_softac.zoo SCRIPT ..., where SCRIPT is one of {', '.join(SCRIPTS)}\n"
    "       python -m sb3_softac.zoo resume RUN_FOLDER ..."
)
PLOTS = ("matplotlib", "seaborn", "rliable")
"""What the extra ``plots`` installs and RL Zoo's plots import."""


def main() -> None:
    """Run the script named by the first argument with the remaining ones."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(f"{USAGE}\n\n`python -m sb3_softac.zoo SCRIPT --help` lists the options of a script.")
        return
    if not sys.argv[1:]:
        sys.exit(f"{USAGE}\nerror: a SCRIPT is missing")
    name = sys.argv.pop(1)
    if name == "resume":
        name, sys.argv[1:] = "train", command_of(sys.argv[1:])
    if name not in SCRIPTS:
        sys.exit(f"{USAGE}\nerror: there is no script {name!r}{did_you_mean(name, SCRIPTS)}")
    register()
    repair_hub()
    make_sweeps_survive()
    if name == "train":
        join()
    if name in ("benchmark", "record_training", "push_to_hub"):  # they call other programs
        find_programs()
    if name == "record_training":
        sys.argv[1:] = absolute_output(sys.argv[1:])
    try:
        runpy.run_module(SCRIPTS[name], run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        if error.name not in PLOTS:
            raise
        sys.exit(f"{SCRIPTS[name]} needs {error.name}: pip install 'sb3_softac[plots]'")


if __name__ == "__main__":
    main()
