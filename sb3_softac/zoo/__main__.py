"""
RL Zoo's scripts with the algorithms registered, repaired where they need it, for all installations.

``python -m sb3_softac.zoo --help`` lists them. With ``torchrun --nproc-per-node=N -m sb3_softac.zoo train ...``, N processes
train one agent, see :mod:`sb3_softac.zoo.torchrun`.
"""

import runpy
import sys
import traceback

from sb3_softac.checks import did_you_mean
from sb3_softac.zoo import register
from sb3_softac.zoo.checkpoints import command_of
from sb3_softac.zoo.scripts import absolute_output, find_programs, repair_hub
from sb3_softac.zoo.sweeps import make_sweeps_survive
from sb3_softac.zoo.torchrun import join

SCRIPTS = {
    "train": ("rl_zoo3.train", "train an agent, or search for hyperparameters with -optimize"),
    "enjoy": ("rl_zoo3.enjoy", "evaluate a trained agent, or watch it"),
    "record_video": ("rl_zoo3.record_video", "film a trained agent"),
    "record_training": ("rl_zoo3.record_training", "film an agent at each checkpoint of its training, and join the films"),
    "benchmark": ("rl_zoo3.benchmark", "evaluate all trained agents in a folder, and write a table of their returns"),
    "plot_train": ("rl_zoo3.plots.plot_train", "plot the returns of training episodes"),
    "all_plots": ("rl_zoo3.plots.all_plots", "plot and compare the evaluations of several algorithms"),
    "plot_from_file": ("rl_zoo3.plots.plot_from_file", "plot what all_plots has saved"),
    "push_to_hub": ("rl_zoo3.push_to_hub", "upload a trained agent to the Hugging Face Hub"),
    "load_from_hub": ("rl_zoo3.load_from_hub", "download an agent from the Hugging Face Hub"),
    "robustness": ("sb3_softac.study.robustness_command", "evaluate trained agents in perturbed environments"),
}
"""For each script its module, and what it does."""
HELP = f"""usage: python -m sb3_softac.zoo SCRIPT ...

RL Zoo's scripts, with the algorithms of this package, and `robustness` and `resume`:

{chr(10).join(f"  {name:<16} {text}" for name, (_, text) in SCRIPTS.items())}
  resume           complete an interrupted training run: resume RUN_FOLDER

Options of a script: python -m sb3_softac.zoo SCRIPT --help"""
PLOTS = ("matplotlib", "seaborn", "rliable")
"""What the extra ``plots`` installs and RL Zoo's plots import."""


def main() -> None:
    """Run the script named by the first argument with the remaining ones."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(HELP)
        return
    if not sys.argv[1:]:
        sys.exit(f"{HELP}\n\nerror: a SCRIPT is missing")
    name = sys.argv.pop(1)
    if name == "resume":
        name, sys.argv[1:] = "train", command_of(sys.argv[1:])
    if name not in SCRIPTS:
        sys.exit(f"{HELP}\n\nerror: there is no script {name!r}{did_you_mean(name, SCRIPTS)}")
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
        runpy.run_module(SCRIPTS[name][0], run_name="__main__", alter_sys=True)
    except Exception as error:
        if (message := message_for_users(error)) is None:
            raise
        sys.exit(f"error: {message}")


def message_for_users(error: Exception) -> str | None:
    """:return: What an error says without its traceback, if the Zoo or this package has raised it on purpose."""
    if isinstance(error, ModuleNotFoundError) and error.name in PLOTS:
        return f"{error.name} is missing: pip install 'sb3_softac[plots]'"
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if (frame.f_globals.get("__package__") or "").partition(".")[0] not in ("rl_zoo3", "sb3_softac"):
        return None
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    on_purpose = isinstance(error, OSError) or line.startswith(("raise ", "assert "))
    return str(error) or None if on_purpose else None


if __name__ == "__main__":
    main()
