"""
The C library of sb3_softac/engines/native, one build per kind of processor, and what the package index shows. Everything else
about the package is in setup.cfg.

The builds are optional: without a C compiler the package is installed all the same, and its gradient steps run in PyTorch.
"""

import os
import platform
import re
from pathlib import Path

from setuptools import Extension, setup

SOURCES = sorted(str(path) for path in Path("sb3_softac/engines/native/csrc").glob("*.c"))
HEADERS = sorted(str(path) for path in Path("sb3_softac/engines/native/csrc").glob("*.h"))
FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math"]
# By the kind of processor: the name of a build and the instructions it may use. Which one runs is decided when it is loaded
BUILDS = {
    "x86_64": {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"],
    },
    "arm64": {"neon": []},
}


def extensions() -> list[Extension]:
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    return [
        Extension(
            f"sb3_softac.engines.native._step_{name}",
            SOURCES,
            depends=HEADERS,
            extra_compile_args=[*FLAGS, *flags],
            libraries=["m", "pthread"],
            optional=True,
        )
        for name, flags in BUILDS.get(machine, {}).items()
    ]


def for_the_index(text: str, home: str, tag: str) -> str:
    """:return: A page for a place without the repository's folders: links and pictures have their full addresses."""
    text = re.sub(r"(!\[[^]]*\]\()(?!https:)", rf"\g<1>{home}/raw/{tag}/", text)
    text = re.sub(r"((?<!!)\[[^]]*\]\()(?!https:|#)", rf"\g<1>{home}/blob/{tag}/", text)
    return text.replace("<address of this repository>", home)


README = Path("README.md").read_text(encoding="utf-8")
METADATA = {"long_description": README, "long_description_content_type": "text/markdown"}
if "GITHUB_REPOSITORY" in os.environ:  # in the workflow of releases, which knows the address
    home = f"https://github.com/{os.environ['GITHUB_REPOSITORY']}"
    tag = f"v{Path('sb3_softac/version.txt').read_text().strip()}"
    METADATA["long_description"] = for_the_index(README, home, tag)
    METADATA["project_urls"] = {
        "Source": home,
        "Documentation": f"{home}/blob/{tag}/docs/index.md",
        "Changelog": f"{home}/blob/{tag}/docs/misc/changelog.md",
        "Issues": f"{home}/issues",
    }
setup(ext_modules=extensions(), **METADATA)
