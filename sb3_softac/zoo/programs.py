"""
Repairs for RL Zoo 2.9's scripts that call other programs: ``enjoy.py``, a file that only a clone of the Zoo has, and
``python`` and ``ffmpeg``, which need not be on the path.
"""

import argparse
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RECORDER = ["python", "-m", "rl_zoo3.record_video"]
ENJOY = ["python", "enjoy.py"]


def find_programs() -> None:
    """
    Have this process call the Zoo's ``enjoy`` and ``record_video`` by its own Python, with the algorithms registered, and
    MoviePy's ffmpeg. A clone's ``enjoy.py`` and an ffmpeg on the path come first, and once the Zoo calls something else
    nothing is changed.
    """
    original_call, original_system = subprocess.call, os.system

    @functools.wraps(original_call)
    def call(command: Any, *args: Any, **kwargs: Any) -> int:
        if list(command[:3]) == RECORDER:
            command = [sys.executable, "-m", "sb3_softac.zoo", "record_video", *command[3:]]
        elif list(command[:2]) == ENJOY and not Path(ENJOY[1]).exists():
            command = [sys.executable, "-m", "sb3_softac.zoo", "enjoy", *command[2:]]
        return original_call(command, *args, **kwargs)

    @functools.wraps(original_system)
    def system(command: Any) -> int:
        if command.startswith("ffmpeg ") and shutil.which("ffmpeg") is None:
            from moviepy.config import FFMPEG_BINARY

            command = f'"{FFMPEG_BINARY}"' + command.removeprefix("ffmpeg")
        return original_system(command)

    subprocess.__dict__["call"] = call
    os.__dict__["system"] = system


def absolute_output(arguments: list[str]) -> list[str]:
    """
    :param arguments: Those of ``record_training``, which joins its videos only if the folder for them is an absolute path.
    :return: The same with that folder as an absolute path.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-o", "--output-folder")
    known, others = parser.parse_known_args(arguments)
    return others if known.output_folder is None else [*others, "-o", os.path.abspath(known.output_folder)]
