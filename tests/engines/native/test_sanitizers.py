"""The C sources under the sanitizers of the compiler, in steps of all kinds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "sb3_softac" / "engines" / "native" / "csrc").glob("*.c"))
GCC = shutil.which("gcc")
FLAGS = ["-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-fPIC", "-shared", "-lm", "-lpthread"]
FLAGS += [] if os.uname().machine in ("aarch64", "arm64") else ["-mavx2", "-mfma"]
STEPS = """
import sys
from pathlib import Path

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.engines.native import native_engine, library, plan
from tests.engines.native.helpers import is_fast, make_model
from tests.toys import train

loaded = library.open_library(Path(sys.argv[1]))
native_engine.load = plan.load = lambda: (loaded, "")
ARCHITECTURES = ([], [1], [5, 3], dict(pi=[7], qf=[17, 33, 2], vf=[]), dict(pi=[], qf=[9], vf=[4, 4]))
SPACES = (spaces.Discrete(1), spaces.Discrete(5), spaces.MultiDiscrete([2, 4, 1]), spaces.MultiBinary(3))
cases = [(SoftAC_v1, dict(actions=spaces.Box(-1, 1, (n,)), actor_q=q)) for n, q in ((1, "min"), (3, "first"))]
cases += [(DiscreteSAC, dict(actions=space, masked=k % 2 == 1)) for k, space in enumerate(SPACES)]
done = 0
for number, arch in enumerate(ARCHITECTURES):
    for algorithm, arguments in cases:
        policy_kwargs = dict(net_arch=arch, activation_fn=(nn.ReLU, nn.Tanh)[number % 2], n_critics=1 + done % 4)
        if algorithm is SoftAC_v1:
            arguments = dict(arguments, n_critics=policy_kwargs.pop("n_critics"))
        elif isinstance(arch, dict):  # it has no value network
            policy_kwargs["net_arch"] = {name: sizes for name, sizes in arch.items() if name != "vf"}
        policy_kwargs["optimizer_kwargs"] = dict(amsgrad=done % 2 == 0)
        obs = spaces.Box(-1, 1, ((3, 300)[done % 7 == 0],), np.float32)
        ent_coef = ("auto", 0.2)[done % 3 == 0]
        model = make_model(algorithm, obs=obs, ent_coef=ent_coef, policy_kwargs=policy_kwargs, **arguments)
        for n_threads in (1, 2, 3):
            th.set_num_threads(n_threads)
            for batch_size in (1, 2, 7, 70):
                train(model, 2, batch_size)
                assert is_fast(model)
                done += 1
print("steps of", done, "kinds done")
"""


def runtime(name):
    """:return: Path of a library of the compiler."""
    return subprocess.run([GCC, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def run(tmp_path, flags, preload, program=("-c", STEPS), **options):
    """:return: The result of a program that makes steps in a library that was built with these flags."""
    path = tmp_path / "_step_checked.so"
    built = subprocess.run([GCC, *flags, *map(str, SOURCES), "-o", path, *FLAGS], capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"the compiler has no {flags}: {built.stderr[-300:]}")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SB3_SOFTAC_FAST": "1",
        "OMP_NUM_THREADS": "1",
        "LD_PRELOAD": " ".join(runtime(name) for name in preload),
        **options,
    }
    command = [sys.executable, *program, str(path)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def assert_clean(result):
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    assert "kinds done" in result.stdout
    for word in ("ERROR", "WARNING", "runtime error", "Sanitizer"):
        assert word not in result.stderr, result.stderr[-4000:]


@pytest.mark.skipif(GCC is None, reason="there is no gcc")
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(("-c", STEPS), id="steps", marks=pytest.mark.slow),
        pytest.param(("-W", "ignore", "-m", "tests.engines.native.misfits"), id="misfits", marks=pytest.mark.drill),
    ],
)
def test_addresses_and_undefined_behaviour(tmp_path, program):
    options = dict(ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    assert_clean(run(tmp_path, flags, ["libasan.so", "libstdc++.so.6"], program, **options))


@pytest.mark.slow
@pytest.mark.skipif(GCC is None, reason="there is no gcc")
def test_races(tmp_path):
    result = run(tmp_path, ["-fsanitize=thread"], ["libtsan.so", "libstdc++.so.6"], TSAN_OPTIONS="halt_on_error=1:exitcode=66")
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("ThreadSanitizer cannot run with the addresses that this system hands out")
    assert_clean(result)
