"""Reading files that somebody else may have made: no pipe, device or link is opened, and none that is larger than expected."""

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

SAFE_LOAD = "SB3_SOFTAC_SAFE_LOAD"
JSON_COST = 16  # bytes of memory that a byte of JSON may take
# Text that leads to a file: a separator, a hidden or home folder, a drive, or a name with a suffix
PATH = re.compile(r"[/\\\0]|^[.~]|^[A-Za-z]:|\.[A-Za-z]\w*$")
NAMES_A_FILE = re.compile(
    r"(^|_)(path|file|folder|dir|directory|prefix|suffix|(file|path|dir|folder)name|log_?(dir|file)|url|output)s?(_|$)",
    re.IGNORECASE,
)


def safe_load_is_on() -> bool:
    """Whether the environment variable asks for nothing to be unpickled or evaluated."""
    return os.environ.get(SAFE_LOAD, "0") not in ("", "0")


def leads_to_a_file(name: str, text: str) -> bool:
    """Whether the value may say which file or folder is written."""
    return bool(PATH.search(text) or NAMES_A_FILE.search(name))


def memory() -> int:
    """Bytes of memory of this machine; a large number where this is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63


def open_plain(path: str | Path, most: int | None = None, follow_links: bool = False) -> BinaryIO:
    """The file, opened for reading. Opening it never waits."""
    most = memory() if most is None else most
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    if not follow_links:
        if os.path.islink(path):
            raise OSError(f"{path} is a symbolic link, which is not followed")
        flags |= getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        if status.st_size > most:
            raise OSError(f"{path} has {status.st_size} bytes, more than the {most} that can be read")
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_plain(path: str | Path, most: int | None = None, follow_links: bool = False) -> bytes:
    with open_plain(path, most, follow_links) as file:
        return file.read()


def read_plain_json(path: str | Path) -> str:
    return read_plain(path, memory() // JSON_COST).decode()
