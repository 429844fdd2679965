"""
Repairs of RL Zoo 2.9's scripts, for the processes of ``python -m sb3_softac.zoo`` alone. A repair that
the Zoo no longer needs changes nothing.
"""

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import errors
from requests.exceptions import HTTPError

from sb3_softac.zoo.patches import replace, wrap

RECORDER = ["python", "-m", "rl_zoo3.record_video"]
ENJOY = ["python", "enjoy.py"]
MISSING = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)


class MissingFileError(errors.EntryNotFoundError, HTTPError):
    """A file that the hub does not have; code for either exception catches it."""


def repair_hub() -> None:
    """Make uploads and downloads work with the present libraries of the Hugging Face Hub."""
    module = importlib.import_module("huggingface_sb3.push_to_hub")
    private = getattr(module, "_generate_metadata", None)  # as sb3-team-hf-integration 3.2 calls it; it returns an object
    if private is not None and not hasattr(module, "generate_metadata"):
        replace("huggingface_sb3.push_to_hub:generate_metadata", lambda *args, **kwargs: private(*args, **kwargs).to_dict())
    wrap("huggingface_sb3:load_from_hub", _missing_files_are_http_errors)


def _missing_files_are_http_errors(original: Any, *args: Any, **kwargs: Any) -> str:
    """
    The Zoo learns from an HTTPError that a model has no statistics of VecNormalize; huggingface_hub 1.0 raises its own error.

    Other failures, such as a missing connection, are not converted: they must not make a model lose its normalization.
    """
    try:
        return original(*args, **kwargs)
    except MISSING as error:
        raise MissingFileError(str(error)) from error


def find_programs() -> None:
    """Have the Zoo call its scripts by this Python, with the algorithms registered, and ffmpeg by its path."""
    wrap("subprocess:call", _call)
    wrap("os:system", _system)


def _call(original: Any, command: Any, *args: Any, **kwargs: Any) -> int:
    if list(command[:3]) == RECORDER:
        command = [sys.executable, "-m", "sb3_softac.zoo", "record_video", *command[3:]]
    elif list(command[:2]) == ENJOY and not Path(ENJOY[1]).exists():  # a clone of the Zoo has this file
        command = [sys.executable, "-m", "sb3_softac.zoo", "enjoy", *command[2:]]
    return original(command, *args, **kwargs)


def _system(original: Any, command: str) -> int:
    if command.startswith("ffmpeg ") and shutil.which("ffmpeg") is None:
        from moviepy.config import FFMPEG_BINARY

        command = f'"{FFMPEG_BINARY}"' + command.removeprefix("ffmpeg")
    return original(command)


def absolute_output(arguments: list[str]) -> list[str]:
    """Make the folder of videos absolute; otherwise ``record_training`` does not join them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-o", "--output-folder")
    known, others = parser.parse_known_args(arguments)
    return others if known.output_folder is None else [*others, "-o", os.path.abspath(known.output_folder)]
