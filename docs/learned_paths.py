"""What algorithms have learned on MultiGoal, for the playground: the paths that ``benchmarks/multigoal.py`` has recorded."""

import json
from pathlib import Path

import numpy as np

PATHS = Path(__file__).parent.parent / "benchmarks" / "results" / "multigoal_paths.npz"
TEMPERATURE = 10  # of all but TD3
NAMES = {
    "TD3": "TD3, greedy",
    "SoftAC_v1": "SoftAC_v1, a Gaussian",
    "SoftAC_v1, mixture": "SoftAC_v1, a mixture",
    "SQL": "SQL",
}


def trimmed(path: np.ndarray) -> list[list[float]]:
    """:return: Positions to one decimal, without those at which an episode stays at its end."""
    moves = np.flatnonzero((path[1:] != path[:-1]).any(axis=1))
    return np.round(path[: moves[-1] + 2].astype(float), 1).tolist()


def as_script() -> str:
    found = np.load(PATHS)
    policies = [
        {"name": title, "paths": [trimmed(path) for path in found[name]]} for name, title in NAMES.items() if name in found
    ]
    return f"Playground.learned = {json.dumps({'temperature': TEMPERATURE, 'policies': policies}, separators=(',', ':'))};\n"
