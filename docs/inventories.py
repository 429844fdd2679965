"""Links into the documentation of other libraries without asking them: intersphinx reads inventories that are made here."""

import zlib
from pathlib import Path

HEADER = "# Sphinx inventory version 2\n# Project: {}\n# Version: \n# The remainder of this file is compressed using zlib.\n"


def write_inventories(listing: Path, folder: Path) -> dict[str, tuple[str, str]]:
    """
    :param listing: ``inventories.txt``.
    :param folder: Where the inventories are written, one per library.
    :return: ``intersphinx_mapping``.
    """
    libraries: dict[str, list[str]] = {}
    for line in listing.read_text().splitlines():
        if line.startswith("https://"):
            names = libraries[line] = []
        elif line and not line.startswith("#"):
            name, page, anchor, *_ = [*line.split(), line.split()[0]]
            names.append(f"{name} py:class 1 {page}{'' if anchor == '-' else f'#{anchor}'} -\n")
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for address, names in libraries.items():
        project = address.split("/")[2]
        path = folder / f"{project}.inv"
        path.write_bytes(HEADER.format(project).encode() + zlib.compress("".join(names).encode()))
        mapping[project] = (address, str(path))
    return mapping
