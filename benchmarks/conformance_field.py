"""
The conformance suite on other libraries, with their versions. What fails on one seed is tried on another.

Each library has an environment of its own, because their requirements differ. Install PyTorch first, so that nothing later
replaces it by a larger build, then the library, then what this package imports::

    python -m venv sb3-soft && sb3-soft/bin/pip install torch && sb3-soft/bin/pip install sb3-soft
    sb3-soft/bin/pip install stable-baselines3 sb3-contrib safetensors filelock pyyaml rich scipy
    PYTHONPATH=. sb3-soft/bin/python benchmarks/conformance_field.py SDSAC "SQL of sb3-soft"

The other packages are ``sbx-rl``, ``tianshou`` and ``torchrl``; ``"SAC of SB3"`` runs in any of these environments. CleanRL
asks for older versions and is on GitHub only::

    pip install "gymnasium==0.29.1" "numpy<2" tyro tensorboard
    pip install --no-deps --ignore-requires-python git+https://github.com/vwxyzjn/cleanrl@fe8d8a0
"""

import csv
import sys
from importlib.metadata import version
from pathlib import Path

import torch as th

from sb3_softac.conformance import CHECKS, import_subject
from sb3_softac.conformance.check import KINDS

RESULTS = Path(__file__).parent / "results" / "conformance_field.csv"
HEADER = ["algorithm", "versions", "seed", "check", "kind", "exact", "measured", "low", "high", "tolerance", "verdict"]
SEEDS = (0, 1)
ADAPTERS = "benchmarks.conformance_adapters"
FIELD = {
    "SAC of SB3": ("stable_baselines3:SAC", ["stable-baselines3", "torch"]),
    "SDSAC": (f"{ADAPTERS}.sb3_soft:SDSAC", ["sb3-soft", "stable-baselines3", "torch"]),
    "SQL of sb3-soft": (f"{ADAPTERS}.sb3_soft:SQL", ["sb3-soft", "stable-baselines3", "torch"]),
    "SAC of SBX": (f"{ADAPTERS}.sbx:SAC", ["sbx-rl", "stable-baselines3", "jax"]),
    "SAC of Tianshou": (f"{ADAPTERS}.tianshou:SAC", ["tianshou", "torch"]),
    "DiscreteSAC of Tianshou": (f"{ADAPTERS}.tianshou:DiscreteSAC", ["tianshou", "torch"]),
    "SAC of TorchRL": (f"{ADAPTERS}.torchrl:SAC", ["torchrl", "torch"]),
    "DiscreteSAC of TorchRL": (f"{ADAPTERS}.torchrl:DiscreteSAC", ["torchrl", "torch"]),
    "SAC of CleanRL": (f"{ADAPTERS}.cleanrl:SAC", ["cleanrl", "gymnasium", "torch"]),
}
"""Class or adapter, and the packages whose versions count."""


def main() -> None:
    th.set_num_threads(1)
    if not RESULTS.exists():
        RESULTS.write_text(",".join(HEADER) + "\n")
    with RESULTS.open(newline="") as file:
        lines = list(csv.reader(file))
    for name in sys.argv[1:] or FIELD:
        algorithm, packages = FIELD[name]
        subject = import_subject(algorithm)
        versions = " ".join(f"{package}={version(package).partition('+')[0]}" for package in packages)
        kinds = [kind for kind, space in KINDS.items() if not subject.refuses(space)]
        assert kinds, f"{name} takes no actions of any kind: {subject.refuses(KINDS['Box'])}"
        for seed in SEEDS:
            for check in (check for check in CHECKS if check.kind in kinds):
                known = {line[2]: line[-1] for line in lines if (line[0], *line[3:5]) == (name, check.name, check.kind)}
                again = seed == 0 or known.get("0") == "FAIL"  # what has failed is tried on another seed
                if again and str(seed) not in known:
                    lines.append([str(value) for value in (name, versions, seed, *check.run(subject, seed).as_row())])
                    with RESULTS.open("a", newline="") as file:
                        csv.writer(file, lineterminator="\n").writerow(lines[-1])


if __name__ == "__main__":
    main()
