"""
RL Zoo's scripts with the algorithms registered, where start-up files are not processed.

``python -m sb3_softac.zoo train ...`` is ``python -m rl_zoo3.train ...``.
"""

import runpy
import sys

from sb3_softac.zoo import register

SCRIPTS = {
    **{
        name: f"rl_zoo3.{name}"
        for name in ("train", "enjoy", "record_video", "record_training", "push_to_hub", "load_from_hub")
    },
    **{name: f"rl_zoo3.plots.{name}" for name in ("plot_train", "all_plots", "plot_from_file")},
}


def main() -> None:
    """Run the script named by the first argument with the remaining ones."""
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        given = sys.argv[1] if len(sys.argv) > 1 else "nothing"
        sys.exit(f"usage: python -m sb3_softac.zoo SCRIPT ...; SCRIPT is one of {', '.join(SCRIPTS)}, got {given}")
    register()
    script = SCRIPTS[sys.argv.pop(1)]
    runpy.run_module(script, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
