"""
The C library of sb3_softac/engines/native, one build per kind of processor. Everything else about the package is in setup.cfg.

The builds are optional: without a C compiler the package is installed all the same, and its gradient steps run in PyTorch.
"""

import platform
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


setup(ext_modules=extensions())
