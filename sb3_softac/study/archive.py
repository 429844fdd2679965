"""The file of a run's result: arrays by name, complete and on disk, or not there."""

from pathlib import Path
from typing import Any

import numpy as np

from sb3_softac.files import replacing
from sb3_softac.study.declaration import StudyError


def write_arrays(path: Path, content: dict[str, Any]) -> None:
    """
    :param path: File.
    :param content: Arrays by name.
    """
    with replacing(path) as file:
        np.savez_compressed(file, **content)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """
    :param path: File.
    :return: All of its arrays.
    :raises StudyError: if the file is damaged.
    """
    try:
        with open(path, "rb") as file, np.load(file) as data:
            return {name: data[name] for name in data.files}
    except Exception as error:  # whatever zip, zlib and NumPy find wrong
        raise StudyError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
