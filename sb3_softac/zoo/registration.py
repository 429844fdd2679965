"""What is added to which module of RL Zoo, once that module has been imported."""

import functools
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, NamedTuple

import sb3_softac
from _sb3_softac_autoload import PATCHES
from sb3_softac.zoo.environments import mask_play, mask_training
from sb3_softac.zoo.hub import repair_hub


class Entry(NamedTuple):
    """Where an algorithm's class and the sampler and converter of its hyperparameter search are found."""

    algorithm: str
    sampler: str
    converter: str


# By Zoo id. The Zoo looks for a model's algorithm under the lower-cased class name, so id and class name must agree.
ALGORITHMS = {
    "softac_v1": Entry(
        "sb3_softac:SoftAC_v1",
        "sb3_softac.zoo.samplers:sample_softac_v1_params",
        "sb3_softac.zoo.samplers:convert_softac_v1_params",
    ),
    "sql": Entry(
        "sb3_softac:SQL",
        "sb3_softac.zoo.samplers:sample_sql_params",
        "sb3_softac.zoo.samplers:convert_sql_params",
    ),
    "discretesac": Entry(
        "sb3_softac:DiscreteSAC",
        "sb3_softac.zoo.samplers:sample_discretesac_params",
        "sb3_softac.zoo.samplers:convert_discretesac_params",
    ),
}


def patch(module: ModuleType) -> None:
    """
    Add the algorithms to a module of RL Zoo. Entries that are there already win.

    :param module: One of the modules named in ``_sb3_softac_autoload.PATCHES``.
    """
    globals()[PATCHES[module.__name__]](module)


def patch_utils(module: ModuleType) -> None:
    """
    :param module: ``rl_zoo3.utils``.
    """
    _add(module.ALGOS, {algo: entry.algorithm for algo, entry in ALGORITHMS.items()})
    with _failure_reported("repair RL Zoo's scripts for the hub"):
        repair_hub()
    with _failure_reported("have RL Zoo's scripts respect action masks"):
        mask_play(module)


def patch_hyperparams_opt(module: ModuleType) -> None:
    """
    :param module: ``rl_zoo3.hyperparams_opt``.
    """
    _add(module.HYPERPARAMS_SAMPLER, {algo: entry.sampler for algo, entry in ALGORITHMS.items()})
    _add(module.HYPERPARAMS_CONVERTER, {algo: entry.converter for algo, entry in ALGORITHMS.items()})


def patch_exp_manager(module: ModuleType) -> None:
    """
    :param module: ``rl_zoo3.exp_manager``.
    """
    _use_own_hyperparameters(module.ExperimentManager)
    with _failure_reported("have RL Zoo's environments report action masks"):
        mask_training(module.ExperimentManager)


def _add(table: dict[str, Any], names: dict[str, str]) -> None:
    """Fill in one of the Zoo's tables; an algorithm that cannot be imported does not take the others with it."""
    for algo, name in names.items():
        with _failure_reported(f"register {algo} with RL Zoo"):
            table.setdefault(algo, resolve_name(name))


@contextmanager
def _failure_reported(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        warnings.warn(f"sb3_softac could not {what}: {error!r}", stacklevel=2)


def hyperparameter_file(algo: str) -> Path:
    """
    :param algo: Zoo id of one of our algorithms.
    :return: Its YAML file: inside the package when that was built, else (editable install) at the top of the repository.
    """
    # A strict editable install imports links; the repository is where they lead.
    package = Path(sb3_softac.__file__).resolve().parent
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{algo}.yml"


def _use_own_hyperparameters(manager: Any) -> None:
    """Make our YAML files the default of ``ExperimentManager(config=...)``, which looks in the Zoo's own folder otherwise."""
    original = manager.__init__
    if hasattr(original, "_adds_sb3_softac"):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        if bound.arguments["algo"] in ALGORITHMS and not bound.arguments.get("config"):
            bound.arguments["config"] = str(hyperparameter_file(bound.arguments["algo"]))
        original(*bound.args, **bound.kwargs)

    __init__._adds_sb3_softac = True  # type: ignore[attr-defined]
    manager.__init__ = __init__
