"""The algorithms by Zoo id, and their files of hyperparameters."""

import os
from pathlib import Path

import sb3_softac

# The Zoo looks for a model's algorithm under the lower-cased class name, so id and class name must agree.
ALGORITHMS = {"softac_v1": "SoftAC_v1", "sql": "SQL", "discretesac": "DiscreteSAC", "discretesql": "DiscreteSQL"}


def hyperparameter_file(algo: str) -> Path:
    """:return: Its YAML file: inside the built package, or (editable install) at the top of the repository."""
    # A strict editable install imports links; the repository is where they lead.
    package = Path(sb3_softac.__file__).resolve().parent
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{algo}.yml"


def presets() -> list[str]:
    """:return: Names of the files of published settings and variants."""
    return os.listdir(hyperparameter_file("presets").with_suffix(""))
